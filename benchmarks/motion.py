"""What a step of `motion` costs beside one of InceptionV3, on the same cores.

Demo clips, for motion cut to 16:9 as most clips are (the cost goes with the pixels); weights of
InceptionV3 are random, which changes no cost. Each way has a process of its own with all cores and as
many callers as it wants.

    python -m benchmarks.motion [--rounds 5] [--seconds 4]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternating import compare, cpu_ratio, ratio, save, serve, table
from pipeline import engine
from pipeline.features.backbones import describe, load, resolve_weights
from pipeline.features.decoding.reading import read_clip
from pipeline.features.decoding.values import FramePlan
from pipeline.features.demo import write_demo_clips
from pipeline.spec import Precision, Spec

WAYS = {"inception_v3": "InceptionV3 at its fastest precision", "motion": "motion"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--way", choices=WAYS)
    arguments = parser.parse_args()
    if arguments.way:
        serve(lambda: _prepare(arguments.way, arguments.seconds))
        return
    seconds = ["--seconds", str(arguments.seconds)]
    figures = {"ways": compare(__file__, WAYS, seconds, arguments.rounds)}
    save("motion", figures)
    print(shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """The table, and what share of InceptionV3's time a step of motion takes."""
    report = figures["ways"]
    wall = ratio(report, "inception_v3", "motion")
    cpu = cpu_ratio(report, "inception_v3", "motion")
    said = (
        f"a step of motion takes {wall:.0%} of the wall time of one of InceptionV3, and {cpu:.0%} of "
        "its CPU time"
    )
    return f"{table(report, WAYS, 'steps/s', 'motion')}\n\n{said}"


def _prepare(name: str, seconds: float) -> Callable[[], dict[str, float]]:
    kind, weights = describe(name), resolve_weights("random:0", name)
    precision: Precision = "float32"
    if kind.has_precisions and "bfloat16" in engine.precisions():
        precision = "bfloat16"
    spec = Spec(
        backbone=name,
        weights=weights.hash,
        size=kind.size,
        shape=kind.shape,
        fit=kind.fit,
        window=kind.window,
        gap_s=kind.gap_s,
        precision=precision,
        aspect="display",
    )
    backbone = load(spec, weights)
    batches = [_batch_of(clip, backbone.batch) for clip in _demo_frames(spec)]

    def one_round() -> dict[str, float]:
        began, steps = time.perf_counter(), 0
        with ThreadPoolExecutor(backbone.concurrency) as callers:
            for number in itertools.count():
                several = [batches[(number + i) % len(batches)] for i in range(8)]
                steps += sum(map(len, callers.map(lambda batch: backbone(*batch), several)))
                if time.perf_counter() - began > seconds:
                    break
        return {"rate": steps / (time.perf_counter() - began)}

    one_round()
    return one_round


def _demo_frames(spec: Spec) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        write_demo_clips(clips, clips_per_class=1)
        return [read_clip(str(path), FramePlan.of(spec)) for path in sorted(clips.glob("*/*"))]


def _batch_of(clip: Any, batch: int) -> tuple[Any, ...]:
    """What a backbone is called with: all steps of a clip, or as many frames of it as it takes."""
    if clip.windows is None:
        return (np.resize(clip.frames, (batch, *clip.frames.shape[1:])),)
    rows = clip.frames.shape[2] * 9 // 16
    return clip.frames[clip.windows][:, :, :rows], clip.gaps_s


if __name__ == "__main__":
    main()
