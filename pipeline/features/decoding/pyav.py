"""PyAV as a source of frames: for codecs that OpenCV's wheel lacks, and for seeking."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from pipeline.errors import UnreadableClip
from pipeline.features.decoding.fit import Picture, turn_upright
from pipeline.features.decoding.opencv import MOST_FRAMES, check_size, sane_fps

# Tags that are no UTF-8 must not end the reading; from PyAV 19 they never do, and the word is gone.
_READING = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


class Pictures:
    """Turns PyAV's frames into upright BGR pictures, by the conversion that OpenCV uses."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def of(self, frame: Any) -> Picture:
        """(height, width, 3) uint8 BGR, upright by the container's rotation."""
        converted = self._reformatter.reformat(
            frame, format="bgr24", interpolation=Interpolation.BICUBIC
        )
        picture: Picture = converted.to_ndarray().astype(np.uint8, copy=False)
        return turn_upright(picture, clockwise_rotation(frame))


def clockwise_rotation(frame: Any) -> int:
    """How far the container asks a frame to be turned clockwise: 0, 90, 180 or 270."""
    return round(-float(frame.rotation) / 90) * 90 % 360


def open_video(path: str) -> tuple[Any, Any]:
    """An open container and its first video stream, decoding on one thread.

    Raises `UnreadableClip`: `unreadable`, `no_video`, `codec_unsupported` or `out_of_memory`.
    """
    try:
        container = av.open(path, **_READING)
    except MemoryError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableClip("unreadable", f"PyAV: {_plain(error)}") from None
    if not container.streams.video:
        container.close()
        raise UnreadableClip("no_video", "the file has no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        container.close()
        raise UnreadableClip("codec_unsupported", "PyAV has no decoder for its codec")
    stream.codec_context.thread_count = 1
    return container, stream


class PyAVSource:
    """One pass over a clip by PyAV; see `through.Source`.

    Packets that do not decode are skipped.
    """

    decoder = "pyav"

    def __init__(self, path: str, max_pixels: int) -> None:
        self._container, stream = open_video(path)
        context = stream.codec_context
        check_size(context.width, context.height, max_pixels)
        self.width, self.height = context.width, context.height
        self.fps = sane_fps(float(stream.average_rate or stream.guessed_rate or 0))
        self.declared = _declared(self._container, stream, self.fps)
        self._max_pixels = max_pixels
        self._frames = self._decode(stream)
        self._frame: Any = None
        self._pictures = Pictures()
        self._grabbed = 0

    def grab(self) -> bool:
        self._frame = next(self._frames, None)
        if self._frame is None:
            return False
        self._grabbed += 1
        if self._grabbed == 1:
            self.width, self.height = upright_size(self._frame)
        return True

    def retrieve(self) -> Picture | None:
        check_size(self._frame.width, self._frame.height, self._max_pixels)
        return self._pictures.of(self._frame)

    def time_s(self) -> float:
        if self._frame.time is not None:
            return float(self._frame.time)
        return (self._grabbed - 1) / self.fps if self.fps else float("nan")

    def close(self) -> None:
        self._frames.close()
        self._frame = None
        self._container.close()

    def _decode(self, stream: Any) -> Generator[Any, None, None]:
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                return
            except MemoryError:
                raise
            except av.error.FFmpegError:
                # The file is damaged from here on; what came before is good.
                packet = None
            try:
                yield from stream.decode(packet)
            except MemoryError:
                raise
            except av.error.FFmpegError:
                pass
            if packet is None:
                return


def _declared(container: Any, stream: Any, fps: float) -> int:
    """The header's frame count, else the estimate by duration that OpenCV makes too; else 0."""
    count = stream.frames or round((container.duration or 0) / av.time_base * fps)
    return count if 0 < count <= MOST_FRAMES else 0


def upright_size(frame: Any) -> tuple[int, int]:
    """(width, height) of a frame after it is turned upright."""
    if clockwise_rotation(frame) in (90, 270):
        return frame.height, frame.width
    return frame.width, frame.height


def _plain(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
