"""What it costs to decode in child processes rather than in this one, in CPU seconds.

Both ways read the same clips and copy the frames into a batch; they alternate, `--pairs` times.
CPU seconds are those of this process and of all its children, their start included. The share is
of a whole run: decoding plus the CNN, whose CPU milliseconds a frame are measured first.

    python -m benchmarks.isolation [--videos FOLDER] [--pairs 5]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.alternating import save
from benchmarks.engine import cnn_cpu_ms
from pipeline.features.catalog import discover
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding import FramePlan, read_clip
from pipeline.features.demo import write_demo_clips

REAL = Path(__file__).resolve().parents[2] / "shared" / "clips" / "fight"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", default=str(REAL) if REAL.is_dir() else "")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cnn-ms", type=float, default=0.0, help="0: measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos = arguments.videos
        if not videos:
            videos = f"{scratch}/clips"
            write_demo_clips(Path(videos))
        report = measure(discover(videos), arguments.pairs, arguments.cnn_ms or cnn_cpu_ms())
    save("isolation", report)
    print(shown(report))


def shown(figures: dict[str, Any]) -> str:
    """What child processes cost, of a whole run's CPU seconds."""
    shares = figures["shares"]
    return (
        f"{figures['clips']} clips, {len(shares)} pairs, {figures['cnn_ms']:.0f} CPU ms of CNN a frame: "
        f"decoding in children costs {statistics.median(shares):+.2%} of a whole run's CPU seconds "
        f"({min(shares):+.2%} to {max(shares):+.2%})"
    )


def measure(clips: pd.DataFrame, pairs: int, cnn_ms: float) -> dict[str, Any]:
    """Run the pairs, print a line each, return the figures."""
    print("pair   in this process    in children      more   of a whole run  (CPU, wall s)")
    shares, frames = [], 0
    for pair in range(pairs):
        ways = [in_this_process, in_children]
        spent = {}
        for way in ways if pair % 2 == 0 else ways[::-1]:
            before, began = cpu_s(), time.perf_counter()
            frames = way(clips)
            spent[way] = cpu_s() - before, time.perf_counter() - began
        (here, here_wall), (there, there_wall) = spent[in_this_process], spent[in_children]
        shares.append((there - here) / (here + frames * cnn_ms / 1000))
        print(
            f"{pair + 1:4}   {here:6.2f} ({here_wall:6.2f})   {there:6.2f} ({there_wall:6.2f})"
            f"   {there - here:+6.2f}   {shares[-1]:+.2%}"
        )
    return {"clips": len(clips), "frames": frames, "cnn_ms": cnn_ms, "shares": shares}


def in_this_process(clips: pd.DataFrame) -> int:
    """Read every clip on threads of this process; the number of frames."""
    plan = FramePlan()
    batch = np.empty(plan.frames_shape, dtype=np.uint8)

    def read(path: str) -> np.ndarray:
        return read_clip(path, plan).frames

    count = 0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for frames in threads.map(read, clips["path"]):
            np.copyto(batch[: len(frames)], frames)
            count += len(frames)
    return count


def in_children(clips: pd.DataFrame) -> int:
    """Read every clip in a decoder pool; the number of frames."""
    plan = FramePlan()
    batch = np.empty(plan.frames_shape, dtype=np.uint8)
    count = 0
    with DecoderPool(plan) as pool:
        futures = [
            pool.submit(*clip) for clip in zip(clips["path"], clips["size_bytes"], strict=True)
        ]
        for future in futures:
            clip = future.result()
            np.copyto(batch[: len(clip)], clip.frames)
            count += len(clip)
            clip.release()
    return count


def cpu_s() -> float:
    """CPU seconds so far of this process and of the children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
