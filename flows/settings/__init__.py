"""Settings that several rooms share, and how settings are declared and resolved.

A TOML file (`--config`), the environment (`PIXELS_ONCE_FEATURES_VIDEOS=…`) and flags
(`--videos …`) override the defaults, in that order. These modules import nothing heavy.
"""

from __future__ import annotations

from flows.settings.features import FeaturesSettings
from flows.settings.training import RefreshSettings, SweepSettings, TrainingSettings, TrainSettings

__all__ = [
    "FeaturesSettings",
    "RefreshSettings",
    "SweepSettings",
    "TrainSettings",
    "TrainingSettings",
]
