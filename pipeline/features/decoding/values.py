"""What goes into reading a clip (`ClipSource`, `FramePlan`) and what comes out (`ClipFrames`)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.features.decoding.slots import Place
from pipeline.spans import WHOLE, Span
from pipeline.spec import Aspect, Fit, Sampling, Spec, View

INTERPOLATIONS = ("area", "linear", "cubic", "nearest")

MAX_PIXELS = 64 * 1024 * 1024
"""A picture of more pixels than this (twice 8K) is `too_large`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePlan:
    """The part of a spec that decides a clip's frames: which, and fitted how.

    `size` is the side of the square in pixels (of the fit "whole", the longer side); `max_pixels` the
    largest picture accepted. `aspect` "display" shows pixels that are not square in their true shape,
    "stored" takes them for square. Each step needs `window` frames, `gap` frames or about `gap_s`
    seconds apart.
    """

    sampling: Sampling = field(default_factory=Sampling)
    fit: Fit = "crop"
    interpolation: str = "area"
    size: int = 299
    view: View = "plain"
    aspect: Aspect = "display"
    window: int = 1
    gap_s: float = 0.0
    gap: int = 0
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ConfigError(f"interpolation {self.interpolation!r} is not known: use {known}")
        if self.fit not in get_args(Fit):
            raise ConfigError(f"fit {self.fit!r} is not known: use {', '.join(get_args(Fit))}")

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """The plan of a spec. Raises `ConfigError` on an interpolation that is not known."""
        names = ("sampling", "fit", "interpolation", "size", "view", "aspect", "window", "gap_s")
        return cls(**{name: getattr(spec, name) for name in (*names, "gap")})

    @property
    def frames_shape(self) -> tuple[int, int, int, int]:
        """(steps · window, size, size, 3): room for the frames of any clip."""
        return (self.sampling.steps * self.window, self.size, self.size, 3)

    @property
    def taking(self) -> tuple[object, ...]:
        """What decides which frames are taken: plans in which it is the same differ in fitting alone."""
        return (self.sampling, self.window, self.gap_s, self.gap, self.max_pixels)

    @property
    def fitting(self) -> tuple[object, ...]:
        """What decides how a picture is fitted: plans in which it is the same take the same pictures."""
        return (self.size, self.fit, self.interpolation, self.view, self.aspect)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The plan of the values that `dataclasses.asdict` gives."""
        return cls(**{**values, "sampling": Sampling(**values["sampling"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderFacts:
    """What the decoder says of a clip: one field for each of the store's decoder columns.

    A new column is a field here, a line in `Video.facts`, and one in `store.layout`. The
    defaults are what a row holds whose clip could not be read.

    fps, width, height: as declared; width and height of the upright picture as it is stored. fps is
        0.0 where the container states no rate.
    pixel_aspect: how many times wider than high its pixels are to be shown; 1.0 for square ones.
    frames_declared: the container's claim; 0 where it makes none.
    frames_decoded: how many frames the clip gave, with those that were left out because no wanted one
        is decoded from them. Where the clip was sought through instead of read through it is the number
        of its video packets; where reading could stop early
        (rules `stride`, `first`, `fps`) it counts up to the last frame that was looked at. Of a part
        of a file: the frames in it, while `frames_declared`, which the container does not claim, is 0.
    decoder: "pyav" (rows of older versions may say "opencv").
    cut_off_s: seconds from where a further step would have looked at the clip to its end; 0.0 where the
        steps reach its end.
    """

    fps: float = 0.0
    width: int = 0
    height: int = 0
    pixel_aspect: float = math.nan
    frames_declared: int = 0
    frames_decoded: int = 0
    decoder: str = ""
    cut_off_s: float = math.nan

    @property
    def facts(self) -> dict[str, Any]:
        """The facts alone, by column."""
        return {name: getattr(self, name) for name in FACTS}


FACTS = tuple(DecoderFacts.__dataclass_fields__)
"""The names of the decoder columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFrames(DecoderFacts):
    """The sampled frames of one clip, in order of time.

    frames: (m, size, size, 3) uint8 RGB, upright and fitted; one per step, or those of all windows,
        each once. They may live in shared memory that is lent: call `release` when done, and do not
        read them afterwards. It gives the memory back to its pool; a second call does nothing.
    frame_index: (n,) int32, the index of each step's frame in the clip, n ≤ steps.
    timestamp: (n,) float32, seconds from the clip's first frame, rising.
    windows: (n, window) int32, where in `frames` those of each step are; None if there is one per step.
    gaps_s: (n,) float64, seconds from frame to frame within each window; None likewise.
    reason: "" or a warning of `reasons`. decode_s: CPU seconds spent.
    sha256: of the file's bytes as they were before it was read; "" where it was not taken.
    previews: JPEG files of three frames, oldest first, where the decoder was asked for them.
    further: what further plans take of the same decoding; each is released by itself.
    place: where the frames lie, in the order of `frames`, in memory that is lent to other clips too; None
        where they lie alone.
    """

    frames: NDArray[np.uint8]
    frame_index: NDArray[np.int32]
    timestamp: NDArray[np.float32]
    windows: NDArray[np.int32] | None = None
    gaps_s: NDArray[np.float64] | None = None
    reason: str = ""
    decode_s: float = 0.0
    sha256: str = ""
    previews: tuple[bytes, ...] = ()
    release: Callable[[], None] = lambda: None
    further: tuple[ClipFrames, ...] = ()
    place: Place | None = None

    def __len__(self) -> int:
        """How many steps it has."""
        return len(self.frame_index)

    def __repr__(self) -> str:
        return (
            f"ClipFrames(frames={self.frames.shape} {self.frames.dtype}, {self.width}×{self.height}"
            f" at {self.fps:.4g} fps, decoded {self.frames_decoded} of {self.frames_declared}"
            f" by {self.decoder}{', ' + self.reason if self.reason else ''})"
        )


class ClipSource(NamedTuple):
    """A clip to read: the path that a decoder opens, and the file's size (−1 where unknown).

    span: the part of the file that the clip is. sha256: of the file, where it was taken just now.
    """

    path: str
    size_bytes: int = -1
    span: Span = WHOLE
    sha256: str = ""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class FileParts:
    """The parts of one file that are read together: one process opens it once and hashes it once.

    sha256: of the file, where it is known already. number: tells these parts from any others.
    """

    spans: tuple[Span, ...]
    sha256: str = ""
    number: int = field(default_factory=itertools.count(1).__next__)


class Part(NamedTuple):
    """One of the parts of a file, by its number."""

    of: FileParts
    number: int


def parts_of(
    clips: Sequence[ClipSource], wanted: Sequence[tuple[int, ...]] | None = None
) -> tuple[list[int], dict[int, Part]]:
    """The order in which clips are read, and the part that each is of a file, by position.

    Clips of one file come together, where the first of them stood, by their ends: so the least has to be
    kept for others. A clip that is a file alone, with an unknown hash, is no part. wanted: what each is
    read for; parts that are read for other things are other parts.
    """
    positions: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for i, clip in enumerate(clips):
        positions.setdefault((clip.path, wanted[i] if wanted else ()), []).append(i)
    order: list[int] = []
    parts: dict[int, Part] = {}
    for same in positions.values():
        first = clips[same[0]]
        if len(same) > 1 or not first.span.whole or first.sha256:
            same.sort(key=lambda i: clips[i].span.order)
            of = FileParts(tuple(clips[i].span for i in same), first.sha256)
            parts |= {i: Part(of, number) for number, i in enumerate(same)}
        order += same
    return order, parts


class Decoders(Protocol):
    """Whatever reads clips: a pool of decoder processes, alone or behind a fetcher of remote clips."""

    def submit(
        self,
        path: str,
        size_bytes: int = -1,
        part: Part | None = None,
        plans: tuple[int, ...] = (),
    ) -> Future[ClipFrames]:
        """Begin to read a clip; the future raises `UnreadableClip` where that fails.

        part: which part of the file it is, among those that are read together; None: all of it.
        plans: those by which it is read, ascending, if not by all.
        """
        ...
