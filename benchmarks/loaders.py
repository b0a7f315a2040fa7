"""The loaders for PyTorch and TensorFlow beside `batches`, which they are made of.

Every way streams the ready rows of one store of random features, shuffled, in batches of 32, and touches
each batch; an epoch each in turn, the files in the page cache. `DataLoader` with workers keeps them from
epoch to epoch (`persistent_workers`), so that their start is not counted. Ways whose framework is not
installed are left out.

    python -m benchmarks.loaders [--rows 2048] [--rounds 5]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import store
from benchmarks.alternating import save
from benchmarks.exchange import make_store

SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "clips.zarr"
        make_store(path, arguments.rows, 40, 2048)
        ways = _ways(store.open(path))
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(-1, arguments.rounds):  # one to warm up
            order = list(ways) if number % 2 == 0 else list(ways)[::-1]
            for way in order:
                began = time.perf_counter()
                seen = ways[way](number + 1)
                rate = seen / (time.perf_counter() - began)
                assert seen == arguments.rows, f"{way} had {seen} rows"
                if number >= 0:
                    rates[way].append(rate)
            print(f"  round {number + 1} of {arguments.rounds}", file=sys.stderr)
    report = {"rows": arguments.rows, "batch": SIZE, "rows_per_s": rates}
    save("loaders", report)
    print(shown(report))


def shown(report: dict[str, Any]) -> str:
    """The table: rows a second, and the ratio to `batches` in the same round."""
    lines = [
        f"{report['rows']:,} rows of 40 × 2048 float16, in batches of {report['batch']}.",
        "",
        "| way | rows/s | × `batches` |",
        "| --- | ---: | ---: |",
    ]
    rates = report["rows_per_s"]
    for way, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates["`batches`"], strict=True))
        lines.append(f"| {way} | {statistics.median(values):,.0f} | {ratio:.2f} |")
    return "\n".join(lines)


def _ways(clips: store.Store) -> dict[str, Callable[[int], int]]:
    """Each way as a function that streams the epoch of a number and returns its rows."""

    def batches(epoch: int) -> int:
        return sum(
            _touched(part.features) for part in clips.batches(size=SIZE, shuffle=True, epoch=epoch)
        )

    ways: dict[str, Callable[[int], int]] = {"`batches`": batches}
    if importlib.util.find_spec("torch"):
        from torch.utils.data import DataLoader

        for workers in (0, 2):
            dataset = clips.torch_dataset(size=SIZE)
            loader = DataLoader(
                dataset,
                batch_size=None,
                num_workers=workers,
                persistent_workers=workers > 0,
                multiprocessing_context="fork" if workers else None,
            )

            def torch_epoch(epoch: int, dataset: Any = dataset, loader: Any = loader) -> int:
                dataset.set_epoch(epoch)
                return sum(_touched(batch["features"].numpy()) for batch in loader)

            ways[f"`torch_dataset`, {workers or 'no'} workers"] = torch_epoch
    if importlib.util.find_spec("tensorflow"):
        dataset = clips.tf_dataset(size=SIZE)
        ways["`tf_dataset`"] = lambda epoch: sum(
            _touched(batch["features"]) for batch in dataset.as_numpy_iterator()
        )
    return ways


def _touched(features: np.ndarray) -> int:
    """The rows of a batch, of which every page was read."""
    features.reshape(-1).view(np.uint8)[::4096].max()
    return len(features)


if __name__ == "__main__":
    main()
