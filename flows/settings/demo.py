"""Settings of the demo."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import LARGEST_SEED, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """Features, a head and a prediction on the built-in clips, in one go."""

    store: str = setting("demo.zarr", "the demo's store", metavar="PATH")
    weights: str = setting(
        "", "as for features; random is allowed to step in here", metavar="WEIGHTS"
    )
    runs: str = setting("runs", "folder of all runs", metavar="DIR")
    units: int = setting(64, "width of the demo's LSTM", metavar="N", least=1)
    seed: int = setting(0, "of the split and the training", metavar="N", most=LARGEST_SEED)
