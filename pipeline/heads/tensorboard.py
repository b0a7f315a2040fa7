"""A training's epochs as TensorBoard logs. Needs the extra `tensorboard`, and no TensorFlow."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.heads.epochs import EpochReport, OnEpoch


def log_epochs(folder: Path) -> OnEpoch:
    """A callback that writes each epoch's figures under `folder`, every fold in a folder of its own
    (`fold1`, …; the last fit on all clips in `all`), and every head of an ensemble (`member1`, …).

    Raises `ConfigError` if TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "--tensorboard needs TensorBoard: pip install -e '.[tensorboard]' in the project's "
            "folder, or leave it out; history.csv has the same figures"
        )
    from tensorboard.summary import Writer

    writers: dict[tuple[int, int], Any] = {}

    def log(report: EpochReport) -> None:
        part = report.fold, report.member
        if part not in writers:
            name = f"fold{report.fold + 1}" if report.fold < report.folds else "all"
            path = folder / name if report.folds > 1 else folder
            member = f"member{report.member + 1}" if report.members > 1 else ""
            writers[part] = Writer(str(path / member))
        writer = writers[part]
        for name, value in (
            ("loss/training", report.loss),
            ("loss/validation", report.val_loss),
            ("top1/training", report.top1),
            ("top1/validation", report.val_top1),
            ("lr", report.lr),
            ("clips_per_second", report.clips_per_second),
        ):
            if not math.isnan(value):  # the last fit on all clips has no validation
                writer.add_scalar(name, value, report.epoch)
        writer.flush()

    return log
