"""Segments of a long video beside the truth: demo clips that no head has seen, put one after another.

Every clip is one event, cut hard against the next; the classes come in a seeded order. Given is the
overlap (intersection over union of time) of the labels and of the kinds of motion, whose two
directions differ only in the order of time, with windows that end at cuts and with windows that do
not. The run is one of a head on the demo clips: `make demo` trains one.

    python -m benchmarks.timeline [--run runs/demo-lstm] [--clips 60]
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternating import save
from pipeline.features.demo import ACTIONS, RATE, render_clip, write_clip
from pipeline.predict.timeline import Segment, segments

SEED = 1  # the built-in clips are of seed 0
WAYS = {"cuts": "windows that end at cuts", "through": "windows through cuts"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="runs/demo-lstm")
    parser.add_argument("--clips", type=int, default=60)
    arguments = parser.parse_args()
    # Not at the top: the pages of the documentation read this module and need no Keras.
    from pipeline import engine

    engine.prepare()
    from pipeline.features.stage import load_stored
    from pipeline.heads.saved import load_run
    from pipeline.predict.sliding import make_timeline

    run = load_run(Path(arguments.run))
    first_stage, notes = load_stored(run.spec, run.first_stage, owner=str(run.folder))
    print("\n".join(notes), file=sys.stderr)
    report: dict[str, Any] = {"run": run.folder.name, "clips": arguments.clips}
    with tempfile.TemporaryDirectory() as scratch, first_stage:
        video = Path(scratch) / "stitched.mp4"
        true = stitch(video, arguments.clips)
        for way in WAYS:
            found = make_timeline(run, first_stage.backbone, str(video), cuts=way == "cuts")
            parts = segments(found)
            report[way] = {
                "labels": overlap(parts, true),
                "kinds": overlap(kinds(parts), kinds(true)),
                "windows": len(found.times),
                "frames": found.frames,
                "decoded": found.decoded,
                "seconds": found.duration_s,
            }
    save("timeline", report)
    print(shown(report))


def shown(figures: dict[str, Any]) -> str:
    """The overlap of every label and kind, by the way of windowing."""
    ours = figures["cuts"]
    lines = [
        f"head {figures['run']}, {figures['clips']} clips in {ours['seconds']:.0f} s, "
        f"{ours['decoded']:,} frames, {ours['frames']:,} of them computed, each once, for "
        f"{ours['windows']} windows",
        "",
        f"| overlap with the truth | {' | '.join(WAYS.values())} |",
        "| --- | ---: | ---: |",
    ]
    for kind in ("labels", "kinds"):
        for label in ours[kind]:
            cells = " | ".join(f"{figures[way][kind].get(label, 0):.2f}" for way in WAYS)
            lines.append(f"| {label} | {cells} |")
    return "\n".join(lines)


def stitch(path: Path, clips: int) -> list[Segment]:
    """Write the video, and return what happens in it when."""
    drawn = np.random.default_rng(SEED)
    parts, frames, start = [], [], 0.0
    for number in range(clips):
        action = str(drawn.choice(list(ACTIONS)))
        picture = render_clip(action, group=number % 10 + 1, clip=number, seed=SEED)
        end = start + len(picture) / RATE
        parts.append(Segment(start_s=start, end_s=end, label=action, probability=1))
        frames.append(picture)
        start = end
    write_clip(path, np.concatenate(frames))
    return parts


def kinds(parts: Sequence[Segment]) -> list[Segment]:
    """The same stretches named by what changes, whatever the direction of time."""
    return [replace(part, label=ACTIONS[part.label][0]) for part in parts]


def overlap(predicted: Sequence[Segment], true: Sequence[Segment]) -> dict[str, float]:
    """Intersection over union of the time that each label has in two segmentations of one video.

    >>> predicted = [Segment(start_s=0, end_s=4, label="a", probability=1)]
    >>> overlap(predicted, [Segment(start_s=2, end_s=4, label="a", probability=1)])
    {'a': 0.5}
    """
    edges = sorted({edge for part in (*predicted, *true) for edge in (part.start_s, part.end_s)})
    shared: dict[str, float] = {}
    either: dict[str, float] = {}
    for start, end in itertools.pairwise(edges):
        middle = (start + end) / 2
        labels = [
            {part.label for part in parts if part.start_s <= middle < part.end_s}
            for parts in (predicted, true)
        ]
        for label in labels[0] | labels[1]:
            either[label] = either.get(label, 0.0) + end - start
            if label in labels[0] & labels[1]:
                shared[label] = shared.get(label, 0.0) + end - start
    return {label: shared.get(label, 0.0) / either[label] for label in sorted(either)}


if __name__ == "__main__":
    main()
