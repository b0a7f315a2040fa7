"""`pixels-once demo`: features, a head and a prediction on the built-in clips."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from flows.commands import features as features_command
from flows.commands import predict as predict_command
from flows.commands import train as train_command
from flows.settings import DemoSettings, FeaturesSettings, PredictSettings, TrainSettings


def run(settings: DemoSettings, *, json: bool) -> int:
    """Extract, train an LSTM, and ask it about one clip of each action."""
    _say("1 of 3 · features: six actions, of which pairs differ only in the order of time")
    status = features_command.run(
        FeaturesSettings(store=settings.store, weights=settings.weights), json=False
    )
    if status:
        return status
    _say("2 of 3 · train: an LSTM that reads the 40 steps in their order")
    name = "demo-lstm"
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
    status = train_command.run(train, json=json)
    if status:
        return status
    _say("3 of 3 · predict: a clip that the head has not been trained on")
    run_folder = Path(settings.runs) / name
    clip = _test_clip(run_folder)
    return predict_command.run(
        replace(PredictSettings(), run=str(run_folder), video=str(clip), top=3), json=json
    )


def _test_clip(folder: Path) -> Path:
    import json as json_format

    from flows.preparing import DEMO_CLIPS

    config = json_format.loads((folder / "config.json").read_text())
    return Path(DEMO_CLIPS) / str(config["split"]["test"]["video_ids"][0])


def _say(text: str) -> None:
    print(f"\n{text}", file=sys.stderr)
