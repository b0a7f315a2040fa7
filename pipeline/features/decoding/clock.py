"""When each frame is shown, in seconds from the clip's first frame, rising without exception."""

from __future__ import annotations

NEW_BEGINNING_S = 1.0
"""A step back by this much or more is a recording that was joined on and counts anew."""


class Clock:
    """Turns the stamps of frames, in order of presentation, into times that rise.

    `frame_s`: seconds that a frame lasts where the file does not say. The rule, for a frame without
    a stamp: one frame after the one before (files without any times become index · frame_s). For a
    stamp that does not rise: a step back of a second or more is a new beginning, which follows one
    frame after the one before and shifts all that comes; a smaller one is a single wrong stamp, and
    its frame comes half a frame after the one before. `mended` counts stamps that did not rise.
    """

    __slots__ = ("_frame_s", "_shift", "last", "mended")

    def __init__(self, frame_s: float) -> None:
        self._frame_s = frame_s
        self._shift: float | None = None
        self.last: float | None = None
        self.mended = 0

    def tick(self, stamp_s: float | None) -> float:
        """The time of the next frame, whose stamp is `stamp_s` seconds, or None without one."""
        follows = 0.0 if self.last is None else self.last + self._frame_s
        if stamp_s is None:
            time_s = follows
        else:
            if self._shift is None:
                self._shift = follows - stamp_s
            time_s = stamp_s + self._shift
            if self.last is not None and time_s <= self.last:
                self.mended += 1
                if self.last - time_s >= NEW_BEGINNING_S:
                    self._shift = follows - stamp_s
                    time_s = follows
                else:
                    time_s = self.last + self._frame_s / 2
        self.last = time_s
        return time_s
