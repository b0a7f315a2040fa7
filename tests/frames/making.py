"""Makes the corpus' clips: painted frames through `ffmpeg`, each clip once and when first asked for."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from tests.frames.painting import painted
from tests.frames.recipes import Change, Recipe

FFMPEG = shutil.which("ffmpeg")
FFPROBE = shutil.which("ffprobe")
# One thread and no random ids or dates: the same bytes every time, and damage that decodes alike.
_EXACT = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"]


class NotMade(RuntimeError):
    """This `ffmpeg` cannot make a clip: an encoder or an option is missing."""


class Maker:
    """Clips in a folder of its own, and the painted frames that they are made of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clip(self, recipe: Recipe) -> Path:
        """The recipe's clip. Raises `NotMade` with `ffmpeg`'s words where it cannot be made."""
        path = self._folder / "clips" / recipe.name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            unfinished = self._folder / f"unfinished-{recipe.name}"
            self._encode(recipe, unfinished)
            for change in recipe.changes:
                self._change(change, unfinished)
            unfinished.rename(path)
        return path

    def _change(self, change: list[str] | Change, path: Path) -> None:
        if callable(change):
            path.write_bytes(change(path.read_bytes()))
            return
        copy = path.with_name(f"copy-{path.name}")
        run_ffmpeg([word.replace("{in}", str(path)) for word in change] + [*_EXACT, str(copy)])
        copy.replace(path)

    def _encode(self, recipe: Recipe, target: Path) -> None:
        width, height = recipe.size
        source = self._painted(width, height)
        words = [
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            f"{width}x{height}",
            "-r",
            recipe.rate,
        ]
        words += [*shlex.split(recipe.input_flags), "-i", str(source), *shlex.split(recipe.inputs)]
        words += shlex.split(recipe.encode)
        words = [self._cover() if word == "{cover}" else word for word in words]
        run_ffmpeg([*words, "-frames:v:0", str(recipe.frames), *_EXACT, str(target)])

    def _cover(self) -> str:
        path = self._folder / "cover.jpg"
        if not path.exists():
            words = ["-f", "lavfi", "-i", "color=red:s=600x600:d=0.04", "-frames:v", "1"]
            run_ffmpeg([*words, *_EXACT, str(path)])
        return str(path)

    def _painted(self, width: int, height: int) -> Path:
        """100 frames of raw RGB of this size; large ones fewer."""
        path = self._folder / f"painted-{width}x{height}.rgb"
        if not path.exists():
            frames = 100 if width * height < 100_000 else 24
            path.write_bytes(b"".join(painted(n, width, height).tobytes() for n in range(frames)))
        return path


def run_ffmpeg(words: list[str]) -> bytes:
    """What `ffmpeg` writes to its output. Raises `NotMade` with what it says where it fails."""
    assert FFMPEG is not None
    command = [FFMPEG, "-nostdin", "-v", "error", "-y", *words]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise NotMade(f"{shlex.join(command)}: {done.stderr.decode(errors='replace')}")
    return done.stdout
