"""One clip's file → its sampled frames: upright, fitted, RGB, with index and time of each."""

from typing import TYPE_CHECKING, Any

from pipeline.features.decoding.values import ClipFrames, FramePlan

if TYPE_CHECKING:
    from pipeline.features.decoding.reading import read_clip

__all__ = ["ClipFrames", "FramePlan", "read_clip"]


def __getattr__(name: str) -> Any:
    # Late, so that a process which only hands clips to decoder processes never loads a decoder.
    if name == "read_clip":
        from pipeline.features.decoding.reading import read_clip

        return read_clip
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
