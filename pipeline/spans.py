"""A span of a file: the part of a video that one row holds, as bounds, as text and as frames."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

BOUNDS = ("start_s", "end_s", "start_frame", "end_frame")
"""The columns that hold a row's span: seconds are NaN and frames −1 where a bound is not given."""

_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d{1,2}(?:\.\d*)?)")
_FRAGMENT = re.compile(r"#(t|frames)=(?=[^#]*\d)((?:npt:)?[\d:.]*)(?:,([\d:.]*))?$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of a file: seconds from its first frame, or frames; the end is exclusive.

    A frame belongs to it if its time is at or after `start_s` and before `end_s`. None: not bounded;
    without any bound it is the whole file. Raises `ConfigError` for bounds that hold nothing.
    """

    start_s: float | None = None
    end_s: float | None = None
    start_frame: int | None = None
    end_frame: int | None = None

    def __post_init__(self) -> None:
        seconds, frames = (self.start_s, self.end_s), (self.start_frame, self.end_frame)
        if seconds != (None, None) and frames != (None, None):
            raise ConfigError("the part has bounds in seconds and in frames: give one kind")
        for low, high in (seconds, frames):
            for bound in (low, high):
                if bound is not None and not (math.isfinite(bound) and bound >= 0):
                    raise ConfigError(
                        f"a part's bound is {bound}: give a number of 0 or more, or leave it empty"
                    )
            if high is not None and high <= (low or 0):
                raise ConfigError(
                    f"the part from {_short(low or 0)} to {_short(high)} is empty: its end must be "
                    "after its start"
                )

    @classmethod
    def of(cls, start: Any = None, end: Any = None, first: Any = None, last: Any = None) -> Self:
        """The span of values as the columns hold them, or as text: see `read_seconds`.

        Starting at 0 is not a bound: without an end that is the whole file, with one the start is 0.
        Raises `ConfigError` for what is no number, or no span.
        """
        low, high = _given(read_seconds, start), _given(read_seconds, end)
        begin, stop = _given(_read_frame, first), _given(_read_frame, last)
        # -0.0 and 0.0 are one bound with one text.
        low, begin = (low or None), (begin or None)
        if high is not None:
            low = low or 0.0
        if stop is not None:
            begin = begin or 0
        return cls(low, high, begin, stop)

    @property
    def whole(self) -> bool:
        """Whether it is the whole file."""
        return self == WHOLE

    @property
    def fragment(self) -> str:
        """As a W3C media fragment, `t=12.5,17`; in frames `frames=120,240`; "" for the whole file."""
        if self.start_s is not None:
            return "t=" + _pair(self.start_s, self.end_s)
        if self.start_frame is not None:
            return "frames=" + _pair(self.start_frame, self.end_frame)
        return ""

    @property
    def columns(self) -> dict[str, float]:
        """The values of the columns `BOUNDS`."""
        seconds = {name: getattr(self, name) for name in BOUNDS[:2]}
        frames = {name: getattr(self, name) for name in BOUNDS[2:]}
        return {name: math.nan if value is None else value for name, value in seconds.items()} | {
            name: -1 if value is None else value for name, value in frames.items()
        }

    @property
    def order(self) -> tuple[float, float]:
        """A key that sorts spans of one file by their ends, then their starts."""
        end = self.end_s if self.end_frame is None else float(self.end_frame)
        return (math.inf if end is None else end, self.start_s or self.start_frame or 0)

    def named(self, file: str) -> str:
        """The id of this part of a file.

        >>> Span(12.5, 17.0).named("match.mp4")
        'match.mp4#t=12.5,17'
        """
        return f"{file}#{self.fragment}" if self.fragment else file

    def frames(self, times: NDArray[np.float64], slack_s: float) -> tuple[int, int]:
        """The first of its frames and the one after its last, of a file whose frames have these times.

        times: (n,) seconds, rising. slack_s: by how much a time may be off.
        """
        if self.start_frame is not None:
            end = len(times) if self.end_frame is None else min(self.end_frame, len(times))
            return min(self.start_frame, end), end
        low = -math.inf if self.start_s is None else self.start_s - slack_s
        high = math.inf if self.end_s is None else self.end_s - slack_s
        first, last = np.searchsorted(times, [low, high]).tolist()
        return first, max(first, last)

    def ends_before(self, index: int, time_s: float, slack_s: float) -> bool:
        """Whether a frame with this index and time lies behind it."""
        if self.end_frame is not None:
            return index >= self.end_frame
        return self.end_s is not None and time_s >= self.end_s - slack_s


WHOLE = Span()

_LATEST_S = 1e15  # an id holds every digit of its bounds


def read_seconds(text: Any) -> float:
    """Seconds from a number or a text: `83.5`, `1:23.5`, `0:01:23.5`. Raises `ConfigError`.

    >>> read_seconds("1:02.5")
    62.5
    """
    seconds: float | None = None
    if isinstance(text, str) and (match := _CLOCK.fullmatch(text.strip())):
        hours, minutes, rest = match.groups()
        if float(rest) < 60 and (hours is None or int(minutes) < 60):
            seconds = float(hours or 0) * 3600 + float(minutes) * 60 + float(rest)
    elif not isinstance(text, bool) and "_" not in str(text):  # Python reads 1_5 as 15
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            seconds = float(text)
    if seconds is None:
        raise ConfigError(f"the time {text!r} is no number: write seconds (83.5) or 1:23.5")
    if _LATEST_S < seconds < math.inf:
        raise ConfigError(f"the time {seconds:g} s is beyond any video: count seconds from 0")
    return seconds


def split_fragment(text: str) -> tuple[str, Span]:
    """A path and the span that its fragment names; the path as it is where it has no such fragment.

    Raises `ConfigError` for a fragment `#t=` or `#frames=` that holds nothing.

    >>> split_fragment("match.mp4#t=12.5,17")
    ('match.mp4', Span(start_s=12.5, end_s=17.0, start_frame=None, end_frame=None))
    """
    match = _FRAGMENT.search(text)
    if match is None:
        return text, WHOLE
    kind, start, end = match[1], match[2], match[3] or ""
    span = Span.of(start.removeprefix("npt:"), end) if kind == "t" else Span.of("", "", start, end)
    return text[: match.start()], span


def _read_frame(value: Any) -> int:
    try:
        if "_" in str(value):  # Python reads 1_5 as 15
            raise ValueError
        number = int(value.strip()) if isinstance(value, str) else int(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"the frame {value!r} is no whole number: count frames from 0") from None
    if number > np.iinfo(np.int32).max:
        raise ConfigError(f"the frame {number} is beyond any video: count frames from 0")
    return number


def _given(read: Any, value: Any) -> Any:
    """The bound that a column or a cell holds; None where it says that there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str) and (value != value or (read is _read_frame and value == -1)):
        return None
    return read(value)


def _pair(start: float, end: float | None) -> str:
    return _short(start) if end is None else f"{_short(start)},{_short(end)}"


def _short(number: float) -> str:
    """The shortest text of a number, without an exponent."""
    return np.format_float_positional(number, trim="-")
