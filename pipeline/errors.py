"""The few errors that this package raises; each is also the natural builtin.

A message is one sentence: the fact, the value, the remedy. What is wrong with one clip is data
(a reason code in its row), so `UnreadableClip` never crosses a batch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PixelsError(Exception):
    """Anything that a user can correct: the command line prints it without a traceback."""

    exit_status = 1


class ConfigError(PixelsError, ValueError):
    """A setting, folder or file is invalid."""


class ServiceUnavailable(PixelsError, ConnectionError):
    """A server, scheduler or site that a command needs does not answer, or refuses. As far as can be
    seen no setting is wrong, so the command may succeed later.
    """

    exit_status = 4


class WeightsNotFound(ConfigError, FileNotFoundError):
    """The backbone's weights can be neither found nor fetched."""

    def __str__(self) -> str:
        # FileNotFoundError would format errno and file name; the sentence is ours.
        return str(self.args[0]) if self.args else ""


class WeightsUnavailable(WeightsNotFound):
    """The backbone's weights are not here, and their site could not be reached."""

    exit_status = 4


class SpecMismatch(ConfigError):
    """Two specs differ that must be equal: a store's and a run's, a head's and its source's."""


class RunWarning(UserWarning):
    """Something beside the results of a run is missing; the results are complete."""


class UnreadableClip(PixelsError, ValueError):
    """A clip gives no frames. `reason` is one of `pipeline.features.reasons`.

    sha256: of the file as it was read; empty where it is not known.
    """

    def __init__(self, reason: str, detail: str = "", *, sha256: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.sha256 = sha256


def did_you_mean(word: str, known: Iterable[str], *, most: int = 0) -> str:
    """The remedy for a name that is not known: the nearest one, else all (or the first `most`).

    >>> did_you_mean("inceptionv3", ["inception_v3", "pose"])
    'did you mean inception_v3?'
    >>> did_you_mean("yolo", ["inception_v3", "pose"])
    'use one of inception_v3, pose'
    """
    names = list(known)
    near = nearest(word, names).removeprefix(": ")
    return near or f"use one of {', '.join(names[: most or None])}"


def nearest(word: str, known: Iterable[str]) -> str:
    """`: did you mean …?`, to end a message with; empty if no known name is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {near[0]}?" if near else ""


def exit_status(error: BaseException) -> int | None:
    """The exit status of a command that ends with this error; None where it deserves a traceback.

    A class of errors says it by its own `exit_status`; of the system's errors, 4: the environment.
    """
    status = getattr(error, "exit_status", None)
    if status is None and isinstance(error, OSError) and error.errno is not None:
        return 4
    return status


def first_line(error: BaseException, *, most: int = 120) -> str:
    """The first line of an error's message, `most` characters of it; its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]
