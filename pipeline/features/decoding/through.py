"""Read a clip from front to back and keep the wanted frames, whichever decoder delivers them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding.fit import Picture, fit_picture
from pipeline.features.decoding.values import FramePlan
from pipeline.features.sampling import needs_length, sample_indices

OnProgress = Callable[[], None]


class Described(Protocol):
    """What is known of a clip besides its frames; width and height are the upright picture's.

    `declared` is the number of frames that the container claims, 0 where it makes no sane claim.
    """

    @property
    def decoder(self) -> str: ...
    @property
    def fps(self) -> float: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def declared(self) -> int: ...


class Source(Described, Protocol):
    """An open clip that hands out its frames in order of presentation."""

    def grab(self) -> bool:
        """Decode the next frame; False at the end."""

    def retrieve(self) -> Picture | None:
        """The grabbed frame, upright BGR (height, width, 3); None where it cannot be had."""

    def time_s(self) -> float:
        """The grabbed frame's presentation time."""

    def close(self) -> None: ...


@dataclass(slots=True)
class Kept:
    """What reading has gathered so far: fitted BGR pictures and times by frame index."""

    pictures: dict[int, Picture] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)  # wanted, but the decoder gave no picture
    first_time: float = 0.0
    frames: int = 0  # frames read
    ended: bool = False  # the clip's end was reached


def read_through(
    open_source: Callable[[], Source], plan: FramePlan, on_progress: OnProgress
) -> tuple[Source, Kept, NDArray[np.int64]]:
    """The closed source, what was kept, and the wanted indices among it, ascending.

    One pass where the header's frame count is true (or where the rule does not depend on it).
    Where it was not, the frames are now counted, and a second pass fetches those that the true
    count asks for and the first pass did not keep. A wanted frame without a picture drops out.
    """
    source = open_source()
    kept = Kept()
    guess = source.declared or plan.sampling.steps
    wanted = sample_indices(plan.sampling, guess, source.fps)
    stop_early = not needs_length(plan.sampling)
    _one_pass(source, wanted, plan, kept, on_progress, stop_early=stop_early)
    if kept.ended and kept.frames != guess:
        wanted = sample_indices(plan.sampling, kept.frames, source.fps)
        absent = [i for i in wanted.tolist() if i not in kept.pictures and i not in kept.lost]
        if absent:
            again = Kept()
            _one_pass(open_source(), np.array(absent), plan, again, on_progress, stop_early=True)
            kept.pictures |= again.pictures
            kept.times |= again.times
            kept.lost |= again.lost
    held = [i for i in wanted.tolist() if i in kept.pictures]
    return source, kept, np.array(held, dtype=np.int64)


def _one_pass(
    source: Source,
    wanted: NDArray[np.int64],
    plan: FramePlan,
    kept: Kept,
    on_progress: OnProgress,
    *,
    stop_early: bool,
) -> None:
    wishes = set(wanted.tolist())
    last = max(wishes, default=-1)
    try:
        while not (stop_early and kept.frames > last):
            if not source.grab():
                kept.ended = True
                return
            on_progress()
            index = kept.frames
            kept.frames += 1
            if index == 0:
                kept.first_time = source.time_s()
            if index in wishes:
                picture = source.retrieve()
                if picture is None:
                    kept.lost.add(index)
                else:
                    kept.pictures[index] = fit_picture(picture, plan)
                    kept.times[index] = source.time_s()
    finally:
        source.close()
