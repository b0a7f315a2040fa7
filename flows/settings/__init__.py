"""Every setting of every command: one typed tree, a file per command, its defaults there.

A TOML file (`--config`), the environment (`PIXELS_ONCE_FEATURES_VIDEOS=…`) and flags
(`--videos …`) override the defaults, in that order. The tree that came out is saved with what it
made. These modules import nothing heavy: the command line's `--help` rests on them.
"""

from __future__ import annotations

from typing import Any

from flows.settings.compare import CompareSettings
from flows.settings.dataset import DatasetSettings
from flows.settings.demo import DemoSettings
from flows.settings.doctor import DoctorSettings
from flows.settings.export import ExportSettings
from flows.settings.features import FeaturesSettings
from flows.settings.forget import ForgetSettings
from flows.settings.freeze import FreezeSettings
from flows.settings.heads import HeadsSettings
from flows.settings.predict import PredictSettings
from flows.settings.refresh import RefreshSettings
from flows.settings.report import ReportSettings
from flows.settings.scan import ScanSettings
from flows.settings.serve import ServeSettings
from flows.settings.show import ShowSettings
from flows.settings.similar import SimilarSettings
from flows.settings.sweep import SweepSettings
from flows.settings.train import TrainSettings
from flows.settings.ui import UiSettings
from flows.settings.verify import VerifySettings

COMMANDS: dict[str, type[Any]] = {
    "features": FeaturesSettings,
    "train": TrainSettings,
    "sweep": SweepSettings,
    "compare": CompareSettings,
    "predict": PredictSettings,
    "export": ExportSettings,
    "heads": HeadsSettings,
    "show": ShowSettings,
    "report": ReportSettings,
    "similar": SimilarSettings,
    "doctor": DoctorSettings,
    "scan": ScanSettings,
    "dataset": DatasetSettings,
    "verify": VerifySettings,
    "forget": ForgetSettings,
    "freeze": FreezeSettings,
    "refresh": RefreshSettings,
    "serve": ServeSettings,
    "ui": UiSettings,
    "demo": DemoSettings,
}

__all__ = [
    "COMMANDS",
    "CompareSettings",
    "DatasetSettings",
    "DemoSettings",
    "DoctorSettings",
    "ExportSettings",
    "FeaturesSettings",
    "ForgetSettings",
    "FreezeSettings",
    "HeadsSettings",
    "PredictSettings",
    "RefreshSettings",
    "ReportSettings",
    "ScanSettings",
    "ServeSettings",
    "ShowSettings",
    "SimilarSettings",
    "SweepSettings",
    "TrainSettings",
    "UiSettings",
    "VerifySettings",
]
