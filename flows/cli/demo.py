"""`pixels-once demo`: features, a head and a prediction on the built-in clips."""

from __future__ import annotations

import contextlib
import io
import json as json_format
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.cli import features as features_command
from flows.cli import predict as predict_command
from flows.cli import train as train_command
from flows.cli.terminal import print_json
from flows.notices import notice
from flows.settings.features import FeaturesSettings
from flows.settings.resolve import LARGEST_SEED, setting
from flows.settings.training import TrainSettings

EXAMPLES = "pixels-once demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Extracts, trains and predicts on the built-in clips in one command."""

    store: str = setting("demo.zarr", "the demo's store", metavar="PATH")
    weights: str = setting(
        "", "as for features; random ones if ImageNet's cannot be downloaded", metavar="WEIGHTS"
    )
    runs: str = setting("runs", "folder of all runs", metavar="DIR")
    units: int = setting(64, "width of the demo's LSTM", least=1)
    seed: int = setting(0, "seed of the split and the training", most=LARGEST_SEED)


def run(settings: Settings, *, json: bool) -> int:
    name = "demo-lstm"
    run_folder = Path(settings.runs) / name
    train = TrainSettings(
        store=settings.store,
        head="lstm",
        units=str(settings.units),
        seed=settings.seed,
        runs=settings.runs,
        name=name,
        overwrite=True,
        epochs=100,
        patience=20,
    )

    def features_step() -> int:
        notice("\n1 of 3 · features: six actions, of which pairs differ only in the order of time")
        features = FeaturesSettings(store=settings.store, weights=settings.weights)
        return features_command.run(features, json=json)

    def train_step() -> int:
        notice("\n2 of 3 · train: an LSTM that reads the 40 steps in their order")
        return train_command.run(train, json=json)

    def predict_step() -> int:
        from flows.extract.request import DEMO_CLIPS

        notice("\n3 of 3 · predict: a clip that the head has not been trained on")
        config = json_format.loads((run_folder / "config.json").read_text())
        clip = Path(DEMO_CLIPS) / config["split"]["test"]["video_ids"][0]
        return predict_command.run(
            predict_command.Settings(run=str(run_folder), video=str(clip), top=3), json=json
        )

    results: dict[str, Any] = {}
    status = 0
    for step in (features_step, train_step, predict_step):
        output = io.StringIO()
        with contextlib.redirect_stdout(output) if json else contextlib.nullcontext():
            status = step()
        if json:
            results[step.__name__.removesuffix("_step")] = json_format.loads(output.getvalue())
        if status:
            break
    if json:
        print_json(results)
    return status
