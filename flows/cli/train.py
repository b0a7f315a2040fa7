"""`pixels-once train`: store → a trained head in RUNS/NAME/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.terminal import print_json, print_over_seeds, print_table, suggest
from flows.notices import notice
from flows.server.lifetime import prefect_server
from flows.settings.training import TrainSettings as Settings
from flows.stopping import stopped_status

if TYPE_CHECKING:
    from flows.train.shared import Made

EXAMPLES = """
pixels-once train --store clips.zarr --head gru
pixels-once train --store clips.zarr --head lstm --units 512 --name wide --overwrite
pixels-once train --store clips.zarr --head gru --seeds 3
pixels-once train --store matches.zarr --head segmenter --annotations matches.csv
"""


def run(settings: Settings, *, json: bool) -> int:
    with prefect_server(optional=True) as server:
        from flows.train.runs import over_seeds, run_training_flow, run_trainings

        made = run_trainings(settings) if server is None else run_training_flow(settings)
    folder, metrics = made[-1].folder, made[-1].metrics
    runs = [{"run": str(each.folder), **each.metrics} for each in made]
    seeds = over_seeds(made) if settings.seeds > 1 else None
    if json and settings.seeds == 1:
        print_json(runs[0])
    elif json:
        print_json({"runs": runs, "over_seeds": None if seeds is None else seeds.to_dict()})
    elif settings.seeds == 1:
        print_metrics(folder, metrics)
    else:
        print_runs(made, settings)
        print_over_seeds([] if seeds is None else [seeds])
        suggest("compare", "--runs", settings.runs)
    if metrics["stopped"]:
        notice(f"stopped: {folder} holds the best head so far, --resume goes on")
        return stopped_status(metrics.get("stopped_by", ""))
    return 0


def print_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """The figures of a run as a table, and what to do next."""
    if metrics.get("labels") == "steps":
        print_step_metrics(folder, metrics)
        return
    rows = [
        (part, *(f"{values[name]:.3f}" for name in ("top1", "top5", "loss")), values["clips"])
        for part in ("test", "validation")
        if (values := metrics.get(part)) and values["clips"]
    ]
    print_table(str(folder), ("", "top-1", "top-5", "loss", "clips"), rows)
    print(_interval(metrics["test"]))
    baseline = metrics["baseline"]
    from pipeline.heads.leaks import leak_sentence, recorded_leaks

    baselines = " · ".join(
        f"{name.replace('_', ' ')} {value['top1'] if isinstance(value, dict) else value:.3f}"
        for name, value in baseline.items()
    )
    print(f"baselines: {baselines}")
    if leaks := recorded_leaks(folder):
        print(leak_sentence(leaks))
    print(
        f"{metrics['seconds']:.0f} s at {metrics['clips_per_second']:,.0f} clips/s; plots and "
        f"predictions in {folder}/"
    )
    if chosen := metrics.get("chosen"):
        tried = " · ".join(f"{each['head']} {each['top1']:.3f}" for each in chosen["tried"])
        print(
            f"head chosen: {chosen['head']}, by top-1 on {chosen['clips']} training clips in "
            f"{chosen['folds']} inner folds ({tried})"
        )
    if streams := metrics.get("streams"):
        each = " · ".join(
            f"{stream['name']} {stream['top1']:.3f} "
            + (f"(weight {stream['weight']:.2f})" if stream["weight"] else "(left out)")
            for stream in streams
        )
        print(f"test top-1 of each stream alone, and its weight by inner folds: {each}")
    for sentence in metrics.get("advice", []):
        print(sentence)
    suggest("predict", "--run", folder, "--video", "CLIP")


def print_step_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """The figures of a head that labels every step, as published, and what to do next."""
    from pipeline.heads.steps.measures import STEP_FIGURES

    names = [name for name in STEP_FIGURES if name in metrics["test"]]
    print_table(
        str(folder),
        ("", *(STEP_FIGURES[name] for name in names), "videos", "steps"),
        [
            (
                part,
                *(
                    "–" if (figure := metrics[part][name]) is None else f"{figure:.3f}"
                    for name in names
                ),
                metrics[part]["videos"],
                f"{metrics[part]['steps']:,}",
            )
            for part in ("test", "validation")
        ],
    )
    interval = _interval(metrics["test"]).replace("the test's top-1", "the test's right steps")
    print(interval)
    if metrics["baseline"]:
        print(f"baselines: {' · '.join(f'{k} {v:.3f}' for k, v in metrics['baseline'].items())}")
    print(
        f"{metrics['seconds']:.0f} s at {metrics['clips_per_second']:,.0f} steps/s; strips, plots and "
        f"predictions in {folder}/"
    )
    suggest("predict", "--timeline", "--run", folder, "--video", "VIDEO")


def print_runs(made: Sequence[Made], settings: Settings) -> None:
    print_table(
        f"{len(made)} of {settings.seeds} runs in {settings.runs}/",
        ("run", "top-1", "top-5", "loss", "validation top-1", "seconds", ""),
        [
            (
                each.folder.name,
                *(f"{each.metrics['test'][name]:.3f}" for name in ("top1", "top5", "loss")),
                f"{each.metrics['validation']['top1']:.3f}",
                f"{each.metrics['seconds']:.0f}",
                "stopped" if each.metrics["stopped"] else "was finished already" * each.skipped,
            )
            for each in made
        ],
    )


def _interval(test: dict[str, Any]) -> str:
    """What the interval of the test's top-1 is, or why there is none."""
    groups = f"{test['groups']} test group{'s' * (test['groups'] != 1)}"
    if test["top1_interval"] is None:
        return f"no confidence interval: it needs at least 5 test groups, and there are {groups}"
    low, high = test["top1_interval"]
    what = f"95 % confidence interval of the test's top-1, bootstrap over {groups}"
    return f"{what}: {low:.3f} to {high:.3f}"
