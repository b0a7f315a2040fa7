"""Settings of setting clips apart as a test set."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import LARGEST_SEED, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeSettings:
    """Sets clips of a store apart as a named test set, for good; without a name lists the sets.

    From then on no training sees them, their groups or equal bytes; train, sweep and refresh test
    on them by name (--test-set NAME).
    """

    store: str = setting("features.zarr", "the store", metavar="PATH")
    name: str = setting(
        "", "what the test set is called; empty: list those there are", metavar="NAME"
    )
    clips: str = setting(
        "",
        "ids of its clips, separated by commas; * and ? match any part, e.g. 'fight/v_Fight_g0*' "
        "(default: cut as --split says)",
        metavar="ID,…",
    )
    split: str = setting(
        "auto",
        "how it is cut: the data's own test clips (given), whole groups, or a share of each class; "
        "auto: the first of these that the clips allow",
        choices=("auto", "given", "grouped", "stratified"),
    )
    fraction: float = setting(
        0.15, "share of the clips, where groups or classes are cut", metavar="FRACTION", most=1
    )
    seed: int = setting(
        0, "decides which groups or clips are taken", metavar="N", most=LARGEST_SEED
    )
    lease: bool = setting(True, "hold the store's lease while writing")
