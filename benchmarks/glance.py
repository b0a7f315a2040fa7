"""What the benchmarks found, a row each: the table of the README and of the performance page.

Rows are of whole runs: one with `--only`, or of fewer ways, has no peer to stand beside.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import endtoend, engine, results_page
from benchmarks.alternating import kept, rates, ratio


def glance() -> list[str]:
    """The table's lines, from the figures that were kept."""
    return [
        "| | ours | beside | `python -m benchmarks.` |",
        "| --- | --- | --- | --- |",
        *_stage_one(),
        *_stage_two(),
        *_store(),
    ]


def _stage_one() -> list[str]:
    rows = []
    if figures := kept("endtoend"):
        ways = figures["ways"]
        rows.append(
            f"| stage one, clips to store | {_median(ways, 'ours'):.0f} frames/s | a loop of `predict` "
            f"per frame: {_median(ways, 'tutorial'):.1f} ({ratio(ways, 'ours', 'tutorial'):.1f} ×); "
            f"decode, then `tf.function`: {_median(ways, 'plain'):.1f} "
            f"({ratio(ways, 'ours', 'plain'):.1f} ×); decoding alone, then the "
            f"CNN alone: ours takes {endtoend.of_sum(ways):.2f} of that time | `endtoend` |"
        )
    if figures := kept("engine"):
        ways = figures["ways"]
        best, ours = engine.best_float32(ways), engine.ours_of(ways)
        precision = "bfloat16" if ours == "ours" else "float32"
        bare = f"; OpenVINO without our code: {_median(ways, 'bare'):.0f}" if "bare" in ways else ""
        rows.append(
            f"| the CNN alone | {_median(ways, ours):.0f} frames/s in {precision} | TensorFlow's best "
            f"float32: {_median(ways, best):.0f} ({ratio(ways, ours, best):.1f} ×){bare} | `engine` |"
        )
    if figures := kept("seeking"):
        rows.append(
            f"| 40 frames of a clip of {figures['frames']:,} | "
            f"{statistics.median(figures['ratios']):.0%} of the CPU time of reading it through | "
            f"{'the same' if figures['same'] else 'other'} frames, pixel for pixel | `seeking` |"
        )
    if nothing := kept("fixed").get("nothing"):
        seconds = statistics.median(one["wall_s"] for one in nothing["rounds"]["ours"])
        rows.append(
            f"| a run that finds {nothing['clips']:,} clips done | {seconds:.0f} s | importing Prefect, "
            f"Dask and Zarr and running an empty flow: ours takes {nothing['medians']['wall_s']:.2f} "
            "of that, and each starts a temporary server | `fixed` |"
        )
    if clips := kept("fixed").get("clips"):
        rows.append(
            f"| Prefect, Dask and commits | {clips['share_of_cnn']:.1%} of a batch's CNN time | | "
            "`fixed` |"
        )
    return rows


def _stage_two() -> list[str]:
    rows = []
    figures = kept("training")
    if set(figures.get("ways", ())) >= {"ours", "default", "keras32"}:
        ways = figures["ways"]
        rows.append(
            f"| training an LSTM of {figures['units']} | {_median(ways, 'ours'):.1f} clips/s | Keras' "
            f"default `fit`: {_median(ways, 'default'):.1f} ({ratio(ways, 'ours', 'default'):.1f} ×); "
            f"Keras' layer at our batch: {_median(ways, 'keras32'):.1f} "
            f"({ratio(ways, 'ours', 'keras32'):.1f} ×) | `training` |"
        )
    if figures := kept("epoch"):
        ways = figures["ways"]
        rows.append(
            f"| an epoch of the GRU from the store | {_median(ways, 'ours'):,.0f} clips/s | a `.npy` per "
            f"clip and a generator: {_median(ways, 'npy'):.0f} ({ratio(ways, 'ours', 'npy'):.1f} ×) | "
            "`epoch` |"
        )
    if figures := kept("heads").get("demo"):
        best, plain = results_page.best_and_plain(figures["lines"])
        rows.append(
            "| built-in clips, in pairs that differ only in the order of time | "
            f"{best['top1']:.2f} top-1 by {results_page.name_of(best)}, chosen on validation | an "
            f"average over frames: {plain['top1']:.2f} | `results_page` |"
        )
    return rows


def _store() -> list[str]:
    rows = []
    if figures := kept("rows"):
        steps = {
            step: statistics.median(one["wall_s"] for one in rounds)
            for step, rounds in figures["steps"].items()
        }
        rows.append(
            f"| a store of {figures['rows']:,} rows | opens in {steps['open']:.1f} s, its table in "
            f"{steps['table']:.0f} s | a run is planned in {steps['plan']:.0f} s | `rows` |"
        )
    if figures := kept("similar"):
        rows.append(
            f"| the nearest of {figures['clips']:,} clips | "
            f"{statistics.median(figures['seconds']):.0f} s, exactly | | `similar` |"
        )
    if figures := kept("fuzz"):
        states = figures["states"]
        rows.append(
            f"| {figures['clips']} broken clips | {states.get('ready', 0)} ready, "
            f"{states.get('failed', 0)} failed with a reason | "
            f"{'; '.join(figures['faults']) or 'the run ends by itself'} | `fuzz` |"
        )
    if figures := kept("memory"):
        rows.append(
            f"| {figures['clips']:,} clips in one run | memory since clip 200: a worker's "
            f"{figures['shares']['worker'] - 1:+.1%}, the flow's {figures['shares']['flow'] - 1:+.1%} "
            "| | `memory` |"
        )
    return rows


def _median(ways: dict[str, Any], way: str) -> float:
    return statistics.median(rates(ways, way))
