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
        if (values := metrics.get(part))
    ]
    print_table(str(folder), ("", "top-1", "top-5", "loss", "clips"), rows)
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
