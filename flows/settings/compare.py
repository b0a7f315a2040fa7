"""Settings of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSettings:
    """Runs side by side: a leaderboard per test set, as a table, CSV and plot."""

    runs: str = setting("runs", "folder of all runs", metavar="DIR")
    out: str = setting("", "where leaderboard.csv and .png go (default: RUNS)", metavar="DIR")
    against: str = setting(
        "",
        "a run that the others are held against, with the paired bootstrap interval over groups "
        "(default: the frame average of the same test set)",
        metavar="NAME",
    )
    test_set: str = setting(
        "", "only runs that were tested on this test set of a store", metavar="NAME"
    )
