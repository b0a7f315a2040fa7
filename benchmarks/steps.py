"""Heads that label every step on long videos whose truth is known: demo clips stitched end to end.

Training, validation and test videos are of different groups of looks. Every clip is one event, cut hard
against the next; the two directions of each kind of motion differ in the order of time alone. No cut is
detected. Given is, of the test videos, the overlap (intersection over union of the steps) averaged over
labels, and F1@50. The last line is JSON.

    python -m benchmarks.steps [--weights inception.h5] [--heads segmenter,mstcn] [--store steps.zarr]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternating import save
from pipeline.features.demo import ACTIONS, RATE, render_clip, write_clip

SEED = 3
PARTS = {"train": (range(1, 7), 18), "val": (range(7, 9), 4), "test": (range(9, 11), 6)}
"""Part → (its groups, how many videos)."""
CLIPS = 16
FPS = 6
GOALS = {"overlap": 0.80, "f1@50": 0.85}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="random", help="InceptionV3's weights")
    parser.add_argument("--heads", default="segmenter,mstcn")
    parser.add_argument(
        "--store", default="", help="keep the store and the runs there; reused if whole"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--options", default="", help="of the head, for trials")
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
    """Each head's figures over the seeds, on the test videos."""
    from flows.train.annotated import annotated_videos
    from flows.train.shared import parse_options
    from pipeline import engine
    from pipeline.heads.config import TrainConfig
    from pipeline.heads.training import train

    engine.prepare()
    clips = annotated_videos(str(url), str(annotations))
    report: dict[str, Any] = {
        "videos": len(clips),
        "steps": sum(map(len, clips.videos)),
        "weights": str(clips.spec.get("weights", ""))[:12],
        "goals": GOALS,
        "heads": {},
    }
    for head in arguments.heads.split(","):
        found = []
        for seed in range(arguments.seeds):
            options = parse_options(arguments.options)
            config = TrainConfig(head=head, seed=seed, split="given", options=options)
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                metrics = train(clips, config, Path(folder) / head, on_epoch=_print)
            names = (*GOALS, "frame_accuracy", "edit", "f1@10", "f1@25", "map")
            own = {name: metrics["test"][name] for name in names}
            found.append(
                own | {"seconds": time.perf_counter() - started, "epoch": metrics["best_epoch"]}
            )
        report["heads"][head] = {
            name: float(np.mean([each[name] for each in found])) for name in found[0]
        }
    return report


def _print(report: Any) -> None:
    print(
        f"epoch {report.epoch} loss {report.loss:.3f} accuracy {report.top1:.3f} validation "
        f"{report.val_loss:.3f} {report.val_top1:.3f} {report.seconds:.1f} s",
        file=sys.stderr,
    )


def shown(figures: dict[str, Any]) -> str:
    """The figures of each head beside the goals."""
    heads: dict[str, dict[str, float]] = figures["heads"]
    lines = [
        f"{figures['videos']} stitched videos, {figures['steps']:,} steps; test videos of other groups",
        "",
        f"| | goal | {' | '.join(heads)} |",
        f"| --- | ---: |{' ---: |' * len(heads)}",
    ]
    for name in next(iter(heads.values())):
        goal = f"≥ {figures['goals'][name]:.2f}" if name in figures["goals"] else ""
        whole = name in ("seconds", "epoch")
        cells = " | ".join(f"{own[name]:{'.0f' if whole else '.3f'}}" for own in heads.values())
        lines.append(f"| {name.replace('_', ' ')} | {goal} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
