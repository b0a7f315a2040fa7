"""Settings of a training."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting
from flows.settings.training import TrainingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings(TrainingSettings):
    """Store → a trained head with its metrics, plots and settings, in RUNS/NAME/."""

    head: str = setting("lstm", "which head: `pixels-once heads` lists them", metavar="NAME")
    preset: str = setting(
        "", "a named set of the head's options, e.g. article_code for lstm", metavar="NAME"
    )
    name: str = setting("", "the run's name (default: HEAD-STORE)", metavar="NAME")
    resume: bool = setting(False, "go on with an interrupted run of this name")
