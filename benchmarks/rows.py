"""A store of a million rows: open it, show its table, plan a run in which nothing has changed.

The rows are written synthetically, their features left out (a chunk that was never written takes no
bytes). Each step has a process of its own, which reports its seconds and its peak memory; the plan is
the command `features --dry-run` on a manifest that gives sizes and times.

    python -m benchmarks.rows [--rows 1000000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import store
from benchmarks.alternating import cpu_s, peak_mib, save

STEPS = {
    "open": "open the store",
    "table": "open it and make its table",
    "plan": "plan a run, nothing changed",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("folder", nargs="?", default="")
    arguments = parser.parse_args()
    if arguments.step:
        step = {"open": _open, "table": _table, "plan": _plan}[arguments.step]
        print(json.dumps(_measured(step, Path(arguments.folder))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or scratch
        began = time.perf_counter()
        if not arguments.folder or not (Path(folder) / "many.zarr").exists():
            write(Path(folder), arguments.rows)
        write_s = time.perf_counter() - began
        found = {step: [_run(step, folder) for _ in range(arguments.rounds)] for step in STEPS}
    figures = {"rows": arguments.rows, "write_s": write_s, "steps": found}
    save("rows", figures)
    print(shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """Seconds and memory of every step."""
    lines = [
        f"{figures['rows']:,} rows",
        "",
        "| step | seconds (median, range) | CPU s | peak MiB |",
        "| --- | ---: | ---: | ---: |",
    ]
    for step, rounds in figures["steps"].items():
        wall = [one["wall_s"] for one in rounds]
        cpu = statistics.median(one["cpu_s"] for one in rounds)
        peak = max(one["peak_mib"] for one in rounds)
        lines.append(
            f"| {STEPS[step]} | {statistics.median(wall):.1f} ({min(wall):.1f}–{max(wall):.1f}) "
            f"| {cpu:.1f} | {peak:,.0f} |"
        )
    return "\n".join(lines)


def write(folder: Path, rows: int) -> None:
    """A store in which all rows are ready, and the manifest that it was made from."""
    from flows.extract.request import stage_of
    from flows.settings.features import FeaturesSettings

    numbers = np.arange(rows)
    labels = np.array([f"Class{n:03d}" for n in range(101)], object)[numbers % 101]
    ids = [
        f"{label}/v_{label}_g{n % 25 + 1:02d}_c{n:07d}.mp4"
        for n, label in zip(numbers.tolist(), labels.tolist(), strict=True)
    ]
    clips = pd.DataFrame(
        {
            "path": ids,
            "label": labels,
            "size_bytes": 100_000 + numbers % 997,
            "mtime_ns": 1_700_000_000_000_000_000 + numbers,
        }
    )
    clips.to_csv(folder / "manifest.csv", index=False)
    url = str(folder / "many.zarr")
    settings = FeaturesSettings(videos="manifest.csv", store=url, weights="random")
    spec, stage, _ = stage_of(settings, None)
    layout = store.Layout(steps=spec.sampling.steps, shape=spec.shape, dtype=spec.dtype)
    store.create(url, layout=layout, spec=spec.to_dict(), fingerprint=spec.fingerprint, software={})
    clips["group"] = [f"g{n % 25 + 1:02d}" for n in numbers.tolist()]
    with store.Writer.acquire(url, owner="benchmark") as writer:
        added = writer.append(clips.rename(columns={"path": "video_id"}))
        writer.set(
            added,
            sha256=[f"{n:064x}" for n in numbers.tolist()],
            decoder="opencv",
            frames_decoded=100,
            digest=numbers.astype(np.uint32),
        )
        writer.mark(added, store.READY)
        writer.set_attributes(classes=sorted(set(labels)), first_stage={"weights": stage.weights})
        writer.flush()


def _run(step: str, folder: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.rows", "--step", step, folder]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    print(f"  {step}: {answer}", file=sys.stderr)
    return answer


def _measured(step: Callable[[Path], None], folder: Path) -> dict[str, float]:
    cpu, began = cpu_s(), time.perf_counter()
    step(folder)
    return {
        "wall_s": time.perf_counter() - began,
        "cpu_s": cpu_s() - cpu,
        "peak_mib": peak_mib(),
    }


def _open(folder: Path) -> None:
    repr(store.open(str(folder / "many.zarr")))


def _table(folder: Path) -> None:
    assert len(store.open(str(folder / "many.zarr")).table())


def _plan(folder: Path) -> None:
    from flows.extract.listing import find_clips
    from flows.extract.request import checked, stage_of
    from flows.extract.setup import dry_run
    from flows.settings.features import FeaturesSettings

    settings = FeaturesSettings(
        videos=str(folder / "manifest.csv"), store=str(folder / "many.zarr"), dry_run=True
    )
    settings = checked(settings)
    listed = find_clips(settings, None)
    existing = store.open(settings.store)
    spec, _, _ = stage_of(settings, existing)
    summary = dry_run(settings, listed, existing, spec)
    assert (summary.clips, summary.planned) == (len(listed[0]), 0), summary


if __name__ == "__main__":
    main()
