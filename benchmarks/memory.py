"""Resident memory of a run and of its workers over 1,000 clips: it must not grow with the clips.

Copies of a few short clips go through the `frames` backbone, so that the machinery is what is
measured. Once a second the flow's process, every worker and every decoder are read; printed is the
curve by clips done. Ends with status 1 where the flow or a worker holds more than 10 % more at the
end than after the first 200 clips.

    python -m benchmarks.memory [--clips 1000]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.alternating import save
from pipeline.features.demo import write_demo_clips

ROOT = Path(__file__).resolve().parents[1]
SETTLED = 200
ALLOWED = 1.10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos = copies(Path(scratch), arguments.clips)
        curve = watch(videos, Path(scratch), ["--frames", "8"])
    print("clips    flow MiB   worker MiB   decoders MiB")
    for point in thinned(curve):
        print("{clips:5} {flow:11.0f} {worker:12.0f} {decoders:14.0f}".format(**point))
    settled = next(point for point in curve if point["clips"] >= SETTLED)
    shares = {name: curve[-1][name] / settled[name] for name in ("flow", "worker")}
    figures = {"clips": arguments.clips, "shares": shares}
    save("memory", figures)
    print(shown(figures))
    return 0 if max(shares.values()) <= ALLOWED else 1


def shown(figures: dict[str, Any]) -> str:
    """How much each process has grown since the run had settled."""
    grown = ", ".join(f"the {name} {share - 1:+.1%}" for name, share in figures["shares"].items())
    return f"memory at clip {figures['clips']:,}, beside clip {SETTLED}: {grown}"


def copies(scratch: Path, count: int) -> Path:
    """A folder with `count` copies of a few short clips."""
    write_demo_clips(scratch / "originals")
    originals = sorted((scratch / "originals").rglob("*.mp4"))[:6]
    for number in range(count):
        path = originals[number % len(originals)]
        target = (
            scratch / "clips" / path.parent.name / f"v_{path.parent.name}_g01_c{number:04d}.mp4"
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return scratch / "clips"


def watch(videos: Path, scratch: Path, further: list[str]) -> list[dict[str, float]]:
    """Run `features` and return what was seen: clips done, MiB of flow, worker and decoders.

    further: words of the command
    """
    words = ["features", "--videos", str(videos), "--store", str(scratch / "s.zarr")]
    words += ["--backbone", "frames", "--batch", "20", *further]
    log = (scratch / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", *words],
        cwd=scratch,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    curve = []
    while process.poll() is None:
        point = look(psutil.Process(process.pid))
        point["clips"] = done(scratch / "s.zarr")
        if point["worker"] and point["clips"]:
            curve.append(point)
        time.sleep(1)
    log.seek(0)
    if process.returncode:
        sys.exit(log.read())
    return curve


def look(flow: psutil.Process) -> dict[str, float]:
    """MiB resident now; the largest of several workers, the sum of all decoders."""
    found = {"flow": 0.0, "worker": 0.0, "decoders": 0.0}
    try:
        found["flow"] = flow.memory_info().rss / 2**20
        for child in flow.children(recursive=True):
            words, size = " ".join(child.cmdline()), child.memory_info().rss / 2**20
            if "multiprocessing.spawn" in words:
                found["worker"] = max(found["worker"], size)
            elif "decoding.child" in words:
                found["decoders"] += size
    except psutil.Error:  # it ended while we looked
        pass
    return found


def done(store: Path) -> int:
    """Clips whose chunk is written."""
    chunks = [p for p in (store / "features").glob("c.*") if re.fullmatch(r"c\.\d+[\d.]*", p.name)]
    return 20 * len(chunks)


def thinned(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """About twenty points of the curve, the last one among them."""
    step = max(1, len(curve) // 20)
    return [*curve[:-1:step], curve[-1]]


if __name__ == "__main__":
    sys.exit(main())
