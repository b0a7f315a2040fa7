"""One clip's file → its sampled frames: upright, fitted, RGB, with index and time of each."""

from pipeline.features.decoding.reading import read_clip
from pipeline.features.decoding.values import ClipFrames, FramePlan

__all__ = ["ClipFrames", "FramePlan", "read_clip"]
