"""Settings of a check of a store."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import LARGEST_SEED, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings:
    """Reads every row back and says which are sound; --repair sends damaged rows to pending."""

    store: str = setting("features.zarr", "the store", metavar="PATH")
    repair: bool = setting(False, "set damaged rows to pending; the next run makes them anew")
    lease: bool = setting(True, "hold the store's lease while repairing")
    sample: int = setting(
        0, "also extract this many random ready clips again and compare", metavar="N"
    )
    videos: str = setting(
        "", "where the clips are, for --sample (default: where they were)", metavar="PATH"
    )
    weights: str = setting("", "the backbone's weights, for --sample", metavar="WEIGHTS")
    seed: int = setting(0, "which clips --sample picks", metavar="N", most=LARGEST_SEED)
