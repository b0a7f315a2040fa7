"""The frames of a clip as `ffmpeg` itself decodes them, outside our code: the reference.

Pictures come from `ffmpeg` (upright by its own autorotation, RGB, none dropped or doubled), times and
the pixels' shape from `ffprobe`. Both decode on one thread, so that damage is concealed alike.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.frames.making import FFMPEG, FFPROBE


class NoReference(RuntimeError):
    """`ffmpeg` does not decode the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What is in a clip, by `ffmpeg`.

    pictures: (n, height, width, 3) uint8 RGB, upright, in the coded shape. times: (n,) float64,
    seconds from the first frame, NaN where there are none. sample_aspect: the width of a pixel by
    its height, upright. rate: the container's average frames per second. declared: its count or 0.
    tick_s: the unit of its times.
    """

    pictures: NDArray[np.uint8]
    times: NDArray[np.float64]
    sample_aspect: Fraction
    codec: str
    container: str
    rate: float
    declared: int
    tick_s: float

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def display_size(self) -> tuple[int, int]:
        """(width, height) with square pixels: the width stretched or shrunk, the height kept."""
        height, width = self.pictures.shape[1:3]
        return max(1, round(width * self.sample_aspect)), height


def reference(path: Path, stream: str = "V:0", *, limit_s: float = 120.0) -> Reference:
    """What `ffmpeg` and `ffprobe` tell of the stream, given `limit_s` seconds each.

    Raises `NoReference` where they yield no frame.
    """
    told = _probe(path, stream, limit_s)
    if not told.get("streams") or not told.get("frames"):
        raise NoReference(f"ffprobe finds no frame in {path.name}")
    shown, frames = told["streams"][0], told["frames"]
    pictures = _pictures(path, stream, limit_s)
    seconds = [float(frame.get("best_effort_timestamp_time", "nan")) for frame in frames]
    times = np.array(seconds[: len(pictures)])
    aspect = _fraction(frames[0].get("sample_aspect_ratio")) or _fraction(
        shown.get("sample_aspect_ratio")
    )
    aspect = aspect or Fraction(1)
    if _quarter_turned(shown):
        aspect = 1 / aspect
    return Reference(
        pictures=pictures,
        times=times - times[0],
        sample_aspect=aspect,
        codec=shown["codec_name"],
        container=told["format"]["format_name"],
        rate=float(_fraction(shown.get("avg_frame_rate")) or 0),
        declared=int(shown.get("nb_frames", 0)),
        tick_s=float(_fraction(shown.get("time_base")) or 0),
    )


def _probe(path: Path, stream: str, limit_s: float) -> dict[str, Any]:
    assert FFPROBE is not None
    words = ["-v", "quiet", "-threads", "1", "-of", "json", "-show_streams", "-show_format"]
    words += ["-show_entries", "frame=best_effort_timestamp_time,sample_aspect_ratio,width,height"]
    words += ["-select_streams", stream, str(path)]
    try:
        return json.loads(_output([FFPROBE, *words], limit_s))  # type: ignore[no-any-return]
    except json.JSONDecodeError:  # begun, and left off at the first fault
        return {}


def _pictures(path: Path, stream: str, limit_s: float) -> NDArray[np.uint8]:
    """Every frame, of the first one's size: `ffmpeg` scales others to it."""
    assert FFMPEG is not None
    words = ["-nostdin", "-v", "quiet", "-threads", "1", "-i", str(path), "-map", f"0:{stream}"]
    words += ["-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm"]
    words += ["-pix_fmt", "rgb24", "-"]
    pictures = _netpbm(_output([FFMPEG, *words], limit_s))
    if not pictures:
        raise NoReference(f"ffmpeg decodes no frame of {path.name}")
    return np.stack(pictures)


def _output(command: list[str], limit_s: float) -> bytes:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=limit_s).stdout
    except subprocess.TimeoutExpired:
        raise NoReference(f"{command[0]} takes more than {limit_s:g} s") from None


def _netpbm(data: bytes) -> list[NDArray[np.uint8]]:
    """The pictures of a row of binary PPM files: their headers tell the size after autorotation."""
    found, at = [], 0
    while at < len(data):
        end = at
        for _ in range(3):
            end = data.index(b"\n", end) + 1
        _, size, _ = data[at:end].split(b"\n", 2)
        width, height = map(int, size.split())
        picture = np.frombuffer(data, np.uint8, width * height * 3, end)
        found.append(picture.reshape(height, width, 3))
        at = end + width * height * 3
    return found


def _quarter_turned(stream: dict[str, object]) -> bool:
    for side in stream.get("side_data_list", []):  # type: ignore[attr-defined]
        if "rotation" in side:
            return abs(int(side["rotation"])) % 180 == 90
    return False


def _fraction(text: object) -> Fraction | None:
    """`16:15` or `25/1` as a fraction; None where it is absent or says nothing (`0:1`)."""
    if not isinstance(text, str):
        return None
    above, _, below = text.replace(":", "/").partition("/")
    if not above.isdigit() or not below.isdigit() or not int(above) or not int(below):
        return None
    return Fraction(int(above), int(below))
