"""Runs that ended and whose result is not acceptable."""

from __future__ import annotations

from flows.extract.summary import Summary
from pipeline.errors import PixelsError


class RunFailed(PixelsError, RuntimeError):
    """The run ended, and its result is not acceptable. `summary` says what it did."""

    exit_status = 3

    def __init__(self, message: str, summary: Summary) -> None:
        super().__init__(message)
        self.summary = summary


class TooManyFailed(RunFailed):
    """More clips failed than `--max-failed` allows."""


class NothingReached(RunFailed):
    """No clip that was planned could be reached: the environment is at fault, not the clips."""

    exit_status = 4


def require_reached(summary: Summary) -> None:
    """Raise `NothingReached` where every planned clip was `unreachable`, or nobody says what they are.

    A single clip that stays out of reach beside ready ones is its own fault, and costs only itself.
    """
    if not summary.planned and summary.unknown == summary.clips > 0:
        raise NothingReached(
            f"none of the {summary.clips} clips says whether it has changed: check the network, the "
            "mount and the credentials, and run again; the rows are as they were",
            summary,
        )
    unreachable = summary.reasons.get("unreachable", 0)
    alone = summary.planned == 1 and summary.rows.get("ready", 0) > 0
    if summary.planned and unreachable == summary.planned and not alone:
        raise NothingReached(
            f"none of the {summary.planned} clips could be reached (the first: "
            f"{summary.failures[0]['detail'][:200]}): check the network, the mount and the "
            "credentials, and run again",
            summary,
        )


def require_few_failed(summary: Summary, max_failed: float) -> None:
    """Raise `TooManyFailed` where more than this share of the planned clips failed."""
    if summary.planned and summary.failed / summary.planned > max_failed:
        raise TooManyFailed(
            f"{summary.failed} of {summary.planned} clips failed, over --max-failed "
            f"{max_failed}: see the failure table",
            summary,
        )
