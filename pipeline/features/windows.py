"""Which frames each step of a sequence is computed from, where one frame is not enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray


def gap_frames(gap_s: float, fps: float) -> int:
    """Frames from one frame of a window to the next, at least 1, at a rate of `fps`.

    >>> gap_frames(0.1, 29.97)
    3
    """
    return max(1, round(gap_s * fps))


class Spaced(Protocol):
    """What says how far apart the frames of a window are: `gap` frames, or `gap_s` seconds."""

    @property
    def window(self) -> int: ...
    @property
    def gap(self) -> int: ...
    @property
    def gap_s(self) -> float: ...


def windows_of(plan: Spaced, steps: NDArray[np.int64], n_frames: int, *, fps: float) -> Windows:
    """The frames that the steps at these frames need, of a clip with `n_frames` at a rate of `fps`."""
    if plan.gap:
        return Windows.around(steps, n_frames, window=plan.window, gap=plan.gap, squeezed=False)
    return Windows.around(steps, n_frames, window=plan.window, gap=gap_frames(plan.gap_s, fps))


def span_of(plan: Spaced, fps: float) -> int:
    """How many frames a window reaches over, the first and the last included."""
    return (plan.window - 1) * (plan.gap or gap_frames(plan.gap_s, fps)) + 1


@dataclass(frozen=True, slots=True)
class Windows:
    """The steps of a clip and the frames that each needs.

    steps: (n,) int64, the sampled frames. windows: (n, window) int64, ascending in each row.
    short: the clip is shorter than one window.
    """

    steps: NDArray[np.int64]
    windows: NDArray[np.int64]
    short: bool = False

    @classmethod
    def around(
        cls,
        steps: NDArray[np.int64],
        n_frames: int,
        *,
        window: int = 1,
        gap: int = 1,
        squeezed: bool = True,
    ) -> Self:
        """`window` frames for each step, `gap` apart, of a clip of `n_frames`.

        A step's frame is in the middle (of an even number, the one before the middle). A window that
        would reach over an end is moved inside. In a clip that is shorter than one window the last
        frame is repeated; if `squeezed`, its frames are as far apart as they can be, and the last is
        repeated only where there are fewer than a window has.

        >>> Windows.around(np.array([0, 4, 9]), 10, window=2, gap=3).windows.tolist()
        [[0, 3], [4, 7], [6, 9]]
        """
        span = window - 1
        short = span * gap >= max(n_frames, 1)
        if short and squeezed:
            gap = max(1, (n_frames - 1) // span)
        last_start = max(0, n_frames - 1 - span * gap)
        starts = np.clip(steps - span // 2 * gap, 0, last_start)
        windows = np.minimum(starts[:, None] + np.arange(window) * gap, max(n_frames - 1, 0))
        return cls(steps, windows, short)

    @property
    def frames(self) -> NDArray[np.int64]:
        """Every frame that a step needs, once, ascending."""
        return np.unique(self.windows)

    @property
    def places(self) -> NDArray[np.int32]:
        """(n, window): where in `frames` those of each step are."""
        return np.searchsorted(self.frames, self.windows).astype(np.int32)

    def gaps_s(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) seconds from frame to frame within each window. times: of all frames of the clip."""
        first, last = times[self.windows[:, 0]], times[self.windows[:, -1]]
        gaps: NDArray[np.float64] = (last - first) / max(1, self.windows.shape[1] - 1)
        return gaps

    def behind(self, first: int) -> Self:
        """The same of a part of a file that begins at frame `first`, in frames of the file."""
        return type(self)(self.steps + first, self.windows + first, self.short)

    def within(self, frames: Sequence[int]) -> Self:
        """The steps of which every frame is among these."""
        there = np.isin(self.windows, frames).all(1)
        return type(self)(self.steps[there], self.windows[there], self.short)
