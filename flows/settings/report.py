"""Settings of a report."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import LARGEST_SEED, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """A store and its runs as one HTML page: pictures, map, look-alikes, leaderboard, mistakes."""

    store: str = setting("features.zarr", "the store", metavar="PATH")
    runs: str = setting(
        "runs", "folder of all runs; those of other stores are left out", metavar="DIR"
    )
    out: str = setting("report.html", "the page to write", metavar="FILE")
    wall: int = setting(20, "random clips to show", metavar="N")
    hover: int = setting(
        2000, "clips of the map that show their picture under the pointer", metavar="N"
    )
    near: float = setting(
        0.98, "from this similarity on, two clips are look-alikes", metavar="X", least=-1, most=1
    )
    seed: int = setting(0, "which clips are drawn", metavar="N", most=LARGEST_SEED)
