"""`pixels-once train`: store → a trained head in RUNS/NAME/."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from flows.server import prefect_server
from flows.settings import TrainSettings
from flows.terminal import print_json, print_table, suggest


def run(settings: TrainSettings, *, json: bool) -> int:
    """Train, and print the test figures beside the baselines."""
    with prefect_server(optional=True) as server:
        from flows.training import run_training, run_training_flow

        if server is None:
            folder, metrics = run_training(settings)
        else:
            print(f"watch: {server.page}", file=sys.stderr)
            folder, metrics = run_training_flow(settings)
    if json:
        print_json({"run": str(folder), **metrics})
    else:
        print_metrics(folder, metrics)
    if metrics["stopped"]:
        print(f"stopped: {folder} holds the best head so far, --resume goes on", file=sys.stderr)
        return 143 if metrics.get("stopped_by") == "SIGTERM" else 130
    return 0


def print_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """The figures of a run as a table, and what to do next."""
    rows = [
        (
            part,
            f"{values['top1']:.3f}",
            f"{values['top5']:.3f}",
            f"{values['loss']:.3f}",
            values["clips"],
        )
        for part in ("test", "validation")
        if (values := metrics.get(part)) and values["clips"]
    ]
    print_table(str(folder), ("", "top-1", "top-5", "loss", "clips"), rows)
    print(_interval(metrics["test"]))
    baseline = metrics["baseline"]
    said = " · ".join(
        f"{name.replace('_', ' ')} {value['top1'] if isinstance(value, dict) else value:.3f}"
        for name, value in baseline.items()
    )
    print(f"baselines: {said}")
    print(
        f"{metrics['seconds']:.0f} s at {metrics['clips_per_second']:,.0f} clips/s; plots and "
        f"predictions in {folder}/"
    )
    suggest("predict", "--run", folder, "--video", "CLIP")


def _interval(test: dict[str, Any]) -> str:
    """What the interval of the test's top-1 is, or why there is none."""
    groups = f"{test['groups']} test group{'s' * (test['groups'] != 1)}"
    if test["top1_interval"] is None:
        return f"no interval: {groups} say nothing of others; from five on there is one"
    low, high = test["top1_interval"]
    return f"95 % interval of the test's top-1 over {groups}: {low:.3f} to {high:.3f}"
