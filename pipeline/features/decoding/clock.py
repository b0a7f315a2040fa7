"""When each frame is shown, in seconds from the clip's first frame, strictly rising."""

from __future__ import annotations

NEW_BEGINNING_S = 1.0
"""A step back by this much or more is a recording that was joined on and counts from zero again."""


class Clock:
    """Turns the time stamps of frames, in order of presentation, into times that rise.

    frame_s: seconds that a frame lasts where the file does not say. wrap_s: after how many seconds
    the file's stamps begin again at zero, 0.0 where they do not. `mended` counts the stamps that were
    replaced. The rules:

    - A frame without a stamp comes one frame after the one before (a file without any: index · frame_s).
    - A stamp that is a second or more away from the time before, while the next stamp continues that
      time, is wrong: the frame counts as one without a stamp. After a step back the next stamp
      continues it only where it is due, within a second: a later one is the pause of a new beginning.
    - A step back by a wrap, within a second, goes on as before.
    - Any other step back by a second or more is a new beginning: it comes one frame after the one
      before, and shifts all that follows.
    - A smaller step back is a wrong stamp: the frame comes half a frame after the one before.
    """

    __slots__ = ("_frame_s", "_shift", "_wrap_s", "last", "mended")

    def __init__(self, frame_s: float, wrap_s: float = 0.0) -> None:
        self._frame_s = frame_s
        self._wrap_s = wrap_s
        self._shift: float | None = None
        self.last: float | None = None
        self.mended = 0

    def at(self, stamp_s: float) -> float:
        """The time of a frame with this stamp, if nothing begins anew before it."""
        return stamp_s + (self._shift or 0.0)

    def doubts(self, stamp_s: float | None) -> bool:
        """Whether `tick` needs the following stamp to judge this one."""
        if stamp_s is None or self._shift is None or self.last is None:
            return False
        return abs(stamp_s + self._shift - self.last) >= NEW_BEGINNING_S

    def tick(self, stamp_s: float | None, following_s: float | None = None) -> float:
        """The time of the next frame.

        stamp_s: its time stamp in seconds, None without one. following_s: the stamp of the frame
        after it, where `doubts` asked for it.
        """
        follows = 0.0 if self.last is None else self.last + self._frame_s
        if stamp_s is None:
            time_s = follows
        elif self._is_wrong(stamp_s, following_s):
            self.mended += 1
            time_s = follows
        else:
            if self._shift is None:
                self._shift = follows - stamp_s
            if self._wraps(stamp_s):
                self._shift += self._wrap_s
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

    def _is_wrong(self, stamp_s: float, following_s: float | None) -> bool:
        """Whether the next stamp continues the time before, and is a second or more from this one."""
        if following_s is None or not self.doubts(stamp_s):
            return False
        assert self.last is not None
        assert self._shift is not None
        before_s = self.last - self._shift
        if stamp_s < before_s:
            due_s = before_s + 2 * self._frame_s
            return before_s < following_s < due_s + NEW_BEGINNING_S
        goes_on = before_s < following_s <= stamp_s
        return goes_on and stamp_s - following_s >= NEW_BEGINNING_S

    def _wraps(self, stamp_s: float) -> bool:
        """Whether the stamp goes on from the time before, less a wrap."""
        if not self._wrap_s or self.last is None or self._shift is None:
            return False
        step_s = stamp_s + self._wrap_s + self._shift - self.last
        return abs(step_s) < self._frame_s + NEW_BEGINNING_S
