"""The state of a training on disk, so that an interrupted one resumes exactly.

One `.npz` (no pickles) and one JSON file, each written to a temporary name and renamed. Writing
costs at most a tenth of the training's time: the next save waits ten times as long as the last
took.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.heads.epochs import EpochReport, Progress
from pipeline.heads.source import Array
from pipeline.plain import write_json

COST = 10.0


class Checkpoint:
    """The state of the last whole epoch: in memory, and in `folder` within the time budget above.

    identity: of the run that it belongs to; the state of another run is refused
    """

    def __init__(self, folder: Path, identity: str = "") -> None:
        self.folder = folder
        self.identity = identity
        self._next = 0.0
        self._held: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._part: Checkpoint | None = None

    def member(self, number: int) -> Checkpoint:
        """The state of this head of an ensemble, in a folder of its own; `save` saves it too."""
        return self._kept_too(f"member-{number:02d}", f"member {number}")

    def refit(self) -> Checkpoint:
        """The state of the training on training and validation clips; `save` saves it too."""
        return self._kept_too("refit", "refit")

    def _kept_too(self, folder: str, name: str) -> Checkpoint:
        self._part = Checkpoint(self.folder / folder, f"{self.identity} {name}")
        return self._part

    @property
    def exists(self) -> bool:
        """Whether a state was saved here."""
        return (self.folder / "progress.json").exists()

    def after_epoch(self, model: Any, progress: Progress) -> None:
        """Keep this epoch's state; write it, unless the last write is too recent for its cost."""
        # Copies: training changes the variables further.
        arrays = {f"variable_{i}": np.array(np.asarray(v)) for i, v in enumerate(_variables(model))}
        arrays |= {f"best_{i}": w for i, w in enumerate(progress.best_weights)}
        values = {
            name: getattr(progress, name) for name in ("best_loss", "best_epoch", "lr", "choice")
        }
        history = [dataclasses.asdict(report) for report in progress.history]
        self._held = arrays, {"history": history, **values}
        if time.monotonic() >= self._next:
            self.save()

    def save(self) -> None:
        """Write the state of the last whole epoch, unless it is written already."""
        if self._part is not None:
            self._part.save()
        if self._held is None:
            return
        started = time.monotonic()
        arrays, values = self._held
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"state-{len(values['history'])}.npz"
        with (self.folder / f".{name}").open("wb") as file:
            np.savez(file, **arrays)
        os.replace(self.folder / f".{name}", self.folder / name)
        # The JSON names its arrays: both are of one epoch, even after a kill.
        values = {"identity": self.identity, "state": name, **values}
        write_json(self.folder / "progress.json", values, indent=None)
        for old in self.folder.glob("*state-*.npz"):
            if old.name != name:
                old.unlink(missing_ok=True)
        self._held = None
        self._next = time.monotonic() + COST * (time.monotonic() - started)

    def load(self, model: Any) -> Progress:
        """Put the saved state into a compiled model of the same head and return its progress."""
        values = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))
        if values.get("identity", "") != self.identity:
            raise ConfigError(
                f"{self.folder} holds the state of another run: start over with --overwrite"
            )
        model.optimizer.build(model.trainable_variables)
        with np.load(self.folder / values["state"], allow_pickle=False) as arrays:
            variables, saved = _variables(model), _arrays(arrays, "variable_")
            if [v.shape for v in saved] != [tuple(v.shape) for v in variables]:
                raise ConfigError(
                    f"{self.folder} holds the state of another head: resume with the settings that "
                    "began it, or start over with --overwrite"
                )
            for variable, value in zip(variables, saved, strict=True):
                variable.assign(value)
            best = _arrays(arrays, "best_")
        return Progress(
            history=[EpochReport(**_with_nan(report)) for report in values["history"]],
            best_loss=float("inf") if values["best_loss"] is None else values["best_loss"],
            best_epoch=values["best_epoch"],
            best_weights=best,
            lr=values["lr"],
            choice=values.get("choice", {}),
        )

    def remove(self) -> None:
        """Delete the saved state: the training is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _with_nan(report: Mapping[str, Any]) -> dict[str, Any]:
    """An epoch's figures with null, which JSON has for NaN, as NaN."""
    return {name: float("nan") if value is None else value for name, value in report.items()}


def _variables(model: Any) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _arrays(file: Any, prefix: str) -> list[Array]:
    return [file[f"{prefix}{i}"] for i in range(sum(n.startswith(prefix) for n in file.files))]
