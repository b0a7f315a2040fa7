"""An export's folder as its manifest tells it: each clip's file, what it holds, what is said of it.

Others can write a manifest, too: what does not fit is left out.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flows.exchange.entries import Entry
from flows.exchange.formats import Format
from flows.exchange.labels import FOLLOWED
from pipeline.errors import ConfigError

MANIFEST, ABOUT = "manifest.jsonl", "export.json"
_MOST_STEPS = 1 << 20
_INT32 = (1 << 31) - 1
_SECONDS = 1e9  # thirty years
_MOST_FPS = 1e6
_LONGEST = 200  # bytes of one component, with the ending and a temporary name's still below 255
_RESERVED = re.compile(r'[\x00-\x1f\\:*?"<>|]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # of Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A line of a manifest; a field's default stands for what it does not tell.

    digest: CRC-32C of the array's bytes · frames (n,) int32 · times (n,) float32 seconds.
    """

    digest: int | None = None
    frames: NDArray[np.int32] | None = None
    times: NDArray[np.float32] | None = None
    fps: float = math.nan
    frames_declared: int = -1


def told_of(values: Mapping[str, Any]) -> Told:
    """What of a line's values is of the right type and range.

    >>> told_of({"fps": 25, "frames": [0, 2], "frames_declared": 2**40, "digest": "12"}).fps
    25.0
    """
    names = ("frames", "times", "fps", "digest", "frames_declared")
    told: list[Any] = [values.get(name) for name in names]
    frames, times, fps, digest, declared = told
    return Told(
        digest=digest if _is_whole(digest, 0, (1 << 32) - 1) else None,
        frames=_numbers(frames, {int}, 0, _INT32, np.int32),
        times=_numbers(times, {int, float}, -_SECONDS, _SECONDS, np.float32),
        fps=float(fps) if _is_number(fps, _MOST_FPS) and fps > 0 else math.nan,
        frames_declared=declared if _is_whole(declared, -1, _INT32) else -1,
    )


def _numbers(
    values: Any, types: set[type], least: float, most: float, dtype: Any
) -> NDArray[Any] | None:
    """A list of numbers of these types, all between `least` and `most`; None for anything else."""
    if type(values) is not list or not set(map(type, values)) <= types:
        return None
    try:
        array = np.array(values, np.float64)
    except OverflowError:
        return None
    if not ((least <= array) & (array <= most)).all():  # NaN is neither
        return None
    return array.astype(dtype)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any, most: float) -> bool:
    return type(value) in (int, float) and abs(value) <= most


def is_inside(name: str) -> bool:
    """Whether a path in a manifest stays below its folder."""
    return not name.startswith("/") and ".." not in name.split("/")


def about_export(root: Path) -> dict[str, Any]:
    """Of what an export of ours says of itself, what an import uses: steps, shape, transpose, source."""
    fits: dict[str, Callable[[Any], bool]] = {
        "steps": lambda v: _is_whole(v, 1, _MOST_STEPS),
        "shape": lambda v: type(v) is list and all(_is_whole(n, 1, _INT32) for n in v),
        "transpose": lambda v: type(v) is bool,
        "source": lambda v: type(v) is str,
    }
    if not (root / ABOUT).is_file():
        return {}
    try:
        values = dict(json.loads((root / ABOUT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
    return {name: values[name] for name, fit in fits.items() if fit(values.get(name))}


def entries_of_manifest(root: Path) -> Iterator[Entry]:
    """The last line of every id counts; a line that was cut short does not."""
    at: dict[str, Entry] = {}
    known: dict[str, str] = {}
    start, name = 0, ""
    with (root / MANIFEST).open("rb") as file:
        for number, line in enumerate(file):
            begin, start = start, start + len(line)
            try:
                said = json.loads(line)
                if name != said["file"]:  # else it is the same object: a shard holds many clips
                    name = str(said["file"])
                texts = {n: "" if said.get(n) is None else str(said[n]) for n in FOLLOWED}
                shared: dict[str, Any] = {n: known.setdefault(v, v) for n, v in texts.items()}
                key = str(said.get("key", ""))
                entry = Entry(id=str(said["id"]), file=name, key=key, line=begin, **shared)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise ConfigError(
                    f"line {number + 1} of {root / MANIFEST} cannot be read: export again"
                ) from None
            if not is_inside(name):
                raise ConfigError(
                    f"{root / MANIFEST} names {name!r}, which is outside of the folder: take it out"
                )
            at[entry.id] = entry
    yield from at.values()


class FileNames:
    """A relative path for every id, all different, none leading out of the folder.

    Different on any disk: where case does not count, or where two spellings of one accent are one name.
    Most ids are their own path, so only the others' are kept.

    >>> names = FileNames(["run/a.mp4", "../b.mp4"], ".npy")
    >>> names.of(0, "run/a.mp4"), names.of(1, "../b.mp4")
    ('run/a.mp4.npy', '_/b.mp4-5f2e78aa00.npy')
    """

    def __init__(self, ids: Collection[str], ending: str) -> None:
        self._ending = ending
        paths = pd.Series((_number(_folded(f"{name}{ending}")) for name in ids), dtype="uint64")
        # A file may not be another's folder, nor its twin: the first of twins keeps its path.
        folders = {
            _folded("/".join(name.split("/")[:i]))
            for name in ids
            for i in range(1, name.count("/") + 1)
        }
        taken = paths.duplicated() | paths.isin(np.fromiter(map(_number, folders), np.uint64))
        self._others = {
            at: self._stand_in(name)
            for at, (name, is_taken) in enumerate(zip(ids, taken, strict=True))
            if is_taken or not _is_plain(name)
        }

    def of(self, at: int, name: str) -> str:
        """The path of the id that was given at position `at`."""
        return self._others.get(at) or f"{name}{self._ending}"

    def _stand_in(self, name: str) -> str:
        stem = _RESERVED.sub("_", name.rsplit("/", 1)[-1]).strip(". ")
        stem = stem.encode()[:120].decode(errors="ignore")
        return f"_/{stem}-{hashlib.sha256(name.encode()).hexdigest()[:10]}{self._ending}"


def _number(path: str) -> int:
    """Eight bytes that stand for a path, the same in every process."""
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest())


def _folded(path: str) -> str:
    """One text for all paths that some disk takes for the same."""
    return path if path.isascii() and path.islower() else _unaccented(path)


def _unaccented(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return parts[0] != "_" and all(
        part == part.strip(" ")
        and not part.endswith(".")
        and part != ""
        and len(part.encode()) <= _LONGEST
        and not _RESERVED.search(part)
        and not _DEVICE.match(part)
        for part in parts
    )


@dataclass(frozen=True, slots=True)
class Note:
    """A row that was written and read back. steps: its real ones · digest, stored: of its features
    and of its row in the store · embedded: of the facts that are in its file (`Format.embeds`).
    """

    id: str
    file: str
    key: str
    steps: int
    digest: int
    stored: int
    embedded: bytes


class Notes:
    """The rows of a manifest, by number; a line that is no line of ours counts as none."""

    def __init__(self, path: Path, writer: Format) -> None:
        self._writer = writer
        blocks: dict[str, dict[int, Note]] = {}
        last = ("", -1)
        for line in path.open("rb") if path.exists() else ():
            try:
                said = json.loads(line)
                note = Note(
                    said["id"], said["file"], said["key"], len(said["frames"]), said["digest"],
                    said["stored"], embedded(said, writer),
                )  # fmt: skip
                row = said["row"]
                if type(row) is not int or type(note.id) is not str or not is_inside(note.file):
                    continue
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
            # A shard that was written again has no other rows than those of its last block of lines.
            if not writer.per_clip and (note.file != last[0] or row <= last[1]):
                blocks[note.file] = {}
            last = (note.file, row)
            blocks.setdefault(note.file if not writer.per_clip else "", {})[row] = note
        self.rows = {row: note for block in blocks.values() for row, note in block.items()}
        self._counts = Counter(note.file for note in self.rows.values())

    @property
    def files(self) -> set[str]:
        """The files that are named, those of the export's own format."""
        return {name for name in self._counts if name.endswith(self._writer.ending)}

    def holds(self, lines: list[dict[str, Any]]) -> list[bool]:
        """Whether what was written of these rows, those of one unit, is what would be written now.

        lines: `Clip.facts()` and `file`. A shard holds as a whole, or not at all.
        """
        same = []
        for line in lines:
            note = self.rows.get(line["row"])
            same.append(
                note is not None
                and (note.file, note.stored) == (line["file"], line["stored"])
                and note.embedded == embedded(line, self._writer)
            )
        if not self._writer.per_clip:
            whole = all(same) and self._counts[lines[0]["file"]] == len(lines)
            return [whole] * len(lines)
        return same


def embedded(line: dict[str, Any], writer: Format) -> bytes:
    """A digest of the facts that are in a clip's file."""
    text = json.dumps([line[name] for name in writer.embeds])
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
