"""Heads that label every step on long videos whose truth is known: demo clips stitched end to end.

Training, validation and test videos are of different groups of looks. Every clip is one event, cut hard
against the next; the two directions of each kind of motion differ in the order of time alone. No cut is
detected. Of each head those options are chosen that have the highest overlap (intersection over union of
the steps, averaged over labels) on the validation videos, mean over the seeds; the test videos are of
groups that neither training, nor validation, nor the choice of any default has seen. Given are the chosen
options' figures on them, mean over the seeds, with the lowest and the highest. The last line is JSON.

    python -m benchmarks.steps [--weights inception.h5] [--heads segmenter,mstcn] [--store steps.zarr]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternating import save
from pipeline.features.demo import ACTIONS, RATE, render_clip, write_clip

SEED = 3
PARTS = {"train": (range(1, 7), 18), "val": (range(7, 9), 4), "test": (range(11, 13), 6)}
"""Part → (its groups, how many videos)."""
CLIPS = 16
FPS = 6
GOALS = {"overlap": 0.80, "f1@50": 0.85}
FIGURES = (*GOALS, "frame_accuracy", "edit", "f1@10", "f1@25", "map")
CANDIDATES = {
    "segmenter": ("",),
    "mstcn": (
        *("", "patience=15", "input_dropout=0", "input_dropout=0.6"),
        "epochs=100,patience=40,preset=published",
    ),
}
"""Head → options and training settings among which the validation videos choose; "" are its defaults."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="random", help="InceptionV3's weights")
    parser.add_argument("--heads", default="segmenter,mstcn")
    parser.add_argument(
        "--store", default="", help="keep the store and the runs there; reused if whole"
    )
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.store).parent if arguments.store else Path(scratch)
        url = Path(arguments.store) if arguments.store else folder / "steps.zarr"
        videos = url.with_suffix("") / "videos"
        if not url.exists():
            truth = stitched(videos)
            extract(videos, url, arguments.weights)
            print(f"{len(truth)} videos", file=sys.stderr)
        report = measured(url, videos / "annotations.csv", arguments)
    save("steps", report)
    print(shown(report))
    print(json.dumps(report))


def stitched(folder: Path) -> list[str]:
    """Write the long videos, `annotations.csv` and `videos.csv`; returns the videos' names."""
    drawn = np.random.default_rng(SEED)
    annotations, manifest = ["path,start,end,label"], ["path,split,group"]
    names = []
    folder.mkdir(parents=True, exist_ok=True)
    for part, (groups, count) in PARTS.items():
        for number in range(count):
            group = groups[number % len(groups)]
            name = f"{part}-{number:02d}.mp4"
            frames = []
            for clip in range(CLIPS):
                action = str(drawn.choice(list(ACTIONS)))
                picture = render_clip(action, group=group, clip=100 * number + clip, seed=SEED)
                start = sum(map(len, frames)) / RATE
                end = start + len(picture) / RATE
                annotations.append(f"{name},{start:.4f},{end:.4f},{action}")
                frames.append(picture)
            write_clip(folder / name, np.concatenate(frames))
            manifest.append(f"{name},{part},g{group}")
            names.append(name)
    (folder / "annotations.csv").write_text("\n".join(annotations) + "\n")
    (folder / "videos.csv").write_text("\n".join(manifest) + "\n")
    return names


def extract(videos: Path, url: Path, weights: str) -> None:
    """The features of the videos, by the command."""
    words = ["features", "--videos", str(videos / "videos.csv"), "--store", str(url)]
    words += ["--weights", weights, "--sampling", f"fps={FPS}", "--long", "split"]
    subprocess.run([sys.executable, "-m", "flows", *words], check=True)


def measured(url: Path, annotations: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Of each head the figures of every candidate's trainings, a seed each."""
    from flows.train.annotated import annotated_videos
    from pipeline import engine

    engine.prepare()
    clips = annotated_videos(str(url), str(annotations))
    report: dict[str, Any] = {
        "videos": len(clips),
        "steps": sum(map(len, clips.videos)),
        "weights": str(clips.spec.get("weights", ""))[:12],
        "goals": GOALS,
        "heads": {},
    }
    runs = url.with_suffix("") / "runs"
    for head in arguments.heads.split(","):
        report["heads"][head] = {
            options: [trained(clips, head, options, seed, runs) for seed in range(arguments.seeds)]
            for options in CANDIDATES[head]
        }
    return report


def trained(clips: Any, head: str, options: str, seed: int, runs: Path) -> dict[str, Any]:
    """The figures of one training, from its run where that is finished."""
    from flows.train.shared import parse_options
    from pipeline.heads.config import TrainConfig
    from pipeline.heads.run_folder import read_metrics
    from pipeline.heads.training import train

    folder = runs / f"{head}-{options or 'defaults'}-{seed}"
    if (folder / "metrics.json").exists():
        metrics = read_metrics(folder)
    else:
        own = parse_options(options)
        settings = {name: int(own.pop(name)) for name in ("epochs", "patience") if name in own}
        config = TrainConfig(head=head, seed=seed, split="given", options=own)
        config = replace(config, **settings)
        metrics = train(clips, config, folder, overwrite=True, on_epoch=_print)
    return {
        **{
            part: {name: metrics[part][name] for name in FIGURES} for part in ("validation", "test")
        },
        "seconds": metrics["seconds"],
        "epoch": metrics["best_epoch"],
    }


def chosen(candidates: dict[str, list[dict[str, Any]]]) -> str:
    """The options with the highest mean overlap on the validation videos; the test has no say."""
    return max(candidates, key=lambda options: np.mean(_over_seeds(candidates, options, "overlap")))


def _over_seeds(
    candidates: dict[str, list[dict[str, Any]]], options: str, name: str, part: str = "validation"
) -> list[float]:
    return [run[part][name] for run in candidates[options]]


def _print(report: Any) -> None:
    print(
        f"epoch {report.epoch} loss {report.loss:.3f} accuracy {report.top1:.3f} validation "
        f"{report.val_loss:.3f} {report.val_top1:.3f} {report.seconds:.1f} s",
        file=sys.stderr,
    )


def shown(figures: dict[str, Any]) -> str:
    """The figures of each head beside the goals, and what its options were chosen among."""
    heads = figures["heads"]
    best = {head: chosen(candidates) for head, candidates in heads.items()}
    seeds = min(len(runs) for candidates in heads.values() for runs in candidates.values())
    names = " | ".join(f"{head}, {best[head] or 'defaults'}" for head in heads)
    lines = [
        f"{figures['videos']} stitched videos, {figures['steps']:,} steps; test videos of other groups, "
        f"mean over {seeds} seeds",
        "",
        f"| of the test videos | goal | {names} |",
        f"| --- | ---: |{' ---: |' * len(heads)}",
    ]
    for name in FIGURES:
        goal = f"≥ {figures['goals'][name]:.2f}" if name in figures["goals"] else ""
        cells = [_cell(_over_seeds(heads[head], best[head], name, "test")) for head in heads]
        lines.append(f"| {name.replace('_', ' ')} | {goal} | {' | '.join(cells)} |")
    lines += [
        "",
        "| options | overlap on the validation videos | F1@50 there |",
        "| --- | ---: | ---: |",
    ]
    for head, candidates in heads.items():
        for options in candidates:
            cells = [_cell(_over_seeds(candidates, options, name)) for name in GOALS]
            mark = " (chosen)" if options == best[head] and len(candidates) > 1 else ""
            lines.append(f"| {head}, {options or 'defaults'}{mark} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
