"""Settings of a refresh."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSettings:
    """Extract what is new, retrain, and accept the new head only if it is not worse."""

    videos: str = setting("", "the clips, as for features", metavar="PATH")
    store: str = setting("", "the store, as for features", metavar="PATH")
    weights: str = setting("", "the backbone's weights, as for features", metavar="WEIGHTS")
    heads: str = setting("gru", "heads to train, separated by commas", metavar="A,B")
    threshold: float = setting(
        0.05,
        "how much worse in top-1 the new head may be, −1 to 1 (below 0: so much better it must be): "
        "the low end of the paired interval on the test set is held against it",
        metavar="X",
        least=-1,
        most=1,
    )
    test_set: str = setting(
        "",
        "the test set that heads are judged by; the first refresh makes it where the store has none "
        "of this name (default: the store's only one, else refresh)",
        metavar="NAME",
    )
    runs: str = setting(
        "runs", "folder of all runs; RUNS/accepted is the accepted one", metavar="DIR"
    )
    always: bool = setting(False, "train even if the store is as it was at the last refresh")
    features: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "other settings of features: [refresh.features]", "file_only": True},
    )
    train: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "settings of every training: [refresh.train]", "file_only": True},
    )
    head: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "settings of one head: [refresh.head.gru]", "file_only": True},
    )
