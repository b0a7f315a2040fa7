"""The nearest of a million clips, exactly: the search behind `similar`, on vectors from a file.

Random vectors of InceptionV3's width in a file as `similar` keeps them (4 GB of float16 at a
million). The file is in the page cache, as it is at the second search of a day.

    python -m benchmarks.similar [--clips 1000000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.alternating import save
from pipeline.heads.neighbours import nearest
from pipeline.heads.statistics import Statistics

CHANNELS = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    some = random.random((1000, CHANNELS), np.float32).astype(np.float16)
    with tempfile.TemporaryDirectory() as folder:
        vectors = np.lib.format.open_memmap(
            f"{folder}/vectors.npy", "w+", np.float16, (arguments.clips, CHANNELS)
        )
        for start in range(0, arguments.clips, len(some)):
            part = vectors[start : start + len(some)]
            # Shifted copies: every row is another vector, and a million are written in seconds.
            part[:] = np.roll(some[: len(part)], start // len(some), axis=1)
        scaling = Statistics.of(some)
        seconds = []
        for number in range(arguments.rounds):
            wanted = arguments.clips * (2 * number + 1) // (2 * arguments.rounds)
            began = time.perf_counter()
            places, _ = nearest(
                vectors, np.asarray(vectors[wanted], np.float32), count=5, scaling=scaling
            )
            seconds.append(round(time.perf_counter() - began, 2))
            assert places[0] == wanted
    report = {"clips": arguments.clips, "seconds": seconds}
    save("similar", report)
    print(shown(report))


def shown(figures: dict[str, Any]) -> str:
    """How long one exact search takes."""
    seconds = figures["seconds"]
    return (
        f"the five nearest of {figures['clips']:,} clips by {CHANNELS} features are found in "
        f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"
    )


if __name__ == "__main__":
    main()
