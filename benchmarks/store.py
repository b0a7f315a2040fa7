"""How features should lie on disk: chunks, shards, compression and readers at once, measured.

Features of real clips, repeated to `--rows`, written by zarr itself in every layout, on the disk of
the temporary folder, in turn. `load` reads everything, `epoch` reads it in shuffled order as training
does (whole chunks, mixed within eight), `rows` reads single rows at random. Then our own reader loads a
store of the chosen layout with 1 to 8 threads, digests checked, in turn with zarr itself, which reads the
same chunks with as many threads and checks nothing.

    python -m benchmarks.store [--rows 512] [--rounds 5]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from zarr.codecs import BloscCodec

# First of all: beside this file, `store` would be itself.
import store
from benchmarks.alternating import save
from benchmarks.features import real_features
from store import reader
from store.sequences import windows

BATCH = 64
BLOSC = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
LAYOUTS: dict[str, dict[str, Any]] = {
    "chunks of 64 (ours)": {"chunks": BATCH, "compressors": None},
    "chunks of 64, bitshuffle-zstd": {"chunks": BATCH, "compressors": BLOSC},
    "chunks of 16": {"chunks": 16, "compressors": None},
    "chunks of 1": {"chunks": 1, "compressors": None},
    "chunks of 1 in shards of 64": {"chunks": 1, "shards": BATCH, "compressors": None},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = store.open(real_features(folder)).load()
        chosen = np.arange(arguments.rows) % len(made)
        features = made.features[chosen]
        layouts: dict[str, list[dict[str, float]]] = {name: [] for name in LAYOUTS}
        for number in range(arguments.rounds):
            for name in list(LAYOUTS) if number % 2 == 0 else list(LAYOUTS)[::-1]:
                layouts[name].append(measured(folder / "array.zarr", features, LAYOUTS[name]))
            print(f"  round {number + 1} of {arguments.rounds}", file=sys.stderr)
        # A load takes milliseconds, and now and then the kernel clears huge pages first.
        threads = readers(folder, features, made.mask[chosen], 5 * arguments.rounds)
    figures = {"rows": arguments.rows, "layouts": layouts, "reader_threads": threads}
    save("store", figures)
    print(shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """Layouts side by side, then our reader by its threads."""
    lines = [
        f"{figures['rows']:,} rows of features",
        "",
        "| layout | size | write MB/s | load MB/s | shuffled epoch rows/s | random rows/s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, rounds in figures["layouts"].items():
        median = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        lines.append(
            f"| {name} | {median['share']:.0%} | {median['write']:,.0f} | {median['load']:,.0f} "
            f"| {median['epoch']:,.0f} | {median['rows']:,.0f} |"
        )
    lines += [
        "",
        "| threads | our reader, MB/s | raw Zarr, MB/s | ours is |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for count, rounds in figures["reader_threads"].items():
        ours, raw = ([one[name] for one in rounds] for name in ("ours", "raw"))
        ratio = statistics.median(a / b for a, b in zip(ours, raw, strict=True))
        lines.append(
            f"| {count} | {statistics.median(ours):,.0f} | {statistics.median(raw):,.0f} "
            f"| {ratio:.2f} × |"
        )
    return "\n".join(lines)


def measured(path: Path, features: np.ndarray, layout: dict[str, Any]) -> dict[str, float]:
    """One round of one layout: share of the bytes on disk, MB/s and rows/s."""
    shutil.rmtree(path, ignore_errors=True)
    inner = features.shape[1:]
    shards = layout.get("shards")
    array = zarr.create_array(
        str(path),
        shape=features.shape,
        chunks=(layout["chunks"], *inner),
        shards=(shards, *inner) if shards else None,
        dtype=features.dtype,
        compressors=layout["compressors"],
        fill_value=0,
    )
    batches = range(0, len(features), BATCH)

    def write() -> None:
        for start in batches:
            array[start : start + BATCH] = features[start : start + BATCH]

    def epoch() -> None:
        order = windows(np.arange(len(features)), BATCH, shuffle=True, seed=0, epoch=0)
        for rows in order:
            window = {
                n: array[n * BATCH : (n + 1) * BATCH] for n in np.unique(rows // BATCH).tolist()
            }
            np.stack([window[row // BATCH][row % BATCH] for row in rows.tolist()])

    some = np.random.default_rng(0).permutation(len(features))[:64].tolist()
    megabytes = features.nbytes / 1e6
    return {
        "write": megabytes / _seconds(write),
        "share": sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / features.nbytes,
        "load": megabytes / _seconds(lambda: _load(array, batches)),
        "epoch": len(features) / _seconds(epoch),
        "rows": len(some) / _seconds(lambda: [array[row] for row in some]),
    }


def readers(
    folder: Path, features: np.ndarray, mask: np.ndarray, rounds: int
) -> dict[int, list[dict[str, float]]]:
    """MB/s of `Store.load` on a store of these features, and of zarr on its array, by threads."""
    url = str(folder / "ours.zarr")
    layout = store.Layout(
        steps=features.shape[1], shape=features.shape[2:], dtype=str(features.dtype), batch=BATCH
    )
    store.create(url, layout=layout, spec={}, fingerprint="0" * 64, software={})
    with store.Writer.acquire(url, owner="benchmark") as writer:
        rows = writer.append(pd.DataFrame({"video_id": [f"{n}.mp4" for n in range(len(features))]}))
        for batch in range(-(-len(rows) // BATCH)):
            part = slice(batch * BATCH, (batch + 1) * BATCH)
            writer.set(
                rows[part], digest=store.write_batch(url, batch, features[part], token=writer.token)
            )
        writer.put_steps(rows, mask, np.zeros(mask.shape), np.zeros(mask.shape))
        writer.mark(rows, store.READY)
        writer.flush()
    opened = store.open(url)
    array = zarr.open_array(f"{url}/features", mode="r")
    batches = range(0, len(features), BATCH)
    ways = {"ours": opened.load, "raw": lambda: _load(array, batches)}
    found: dict[int, list[dict[str, float]]] = {1: [], 2: [], 4: [], 8: []}
    usual = reader._THREADS
    for number in range(rounds):
        for count, rates in found.items():
            reader._THREADS = count
            order = list(ways) if number % 2 == 0 else list(ways)[::-1]
            seconds = {way: _seconds(ways[way]) for way in order}
            rates.append({way: features.nbytes / 1e6 / s for way, s in seconds.items()})
    reader._THREADS = usual
    return found


def _load(array: Any, batches: range) -> None:
    with ThreadPoolExecutor(reader._THREADS) as threads:
        list(threads.map(lambda start: array[start : start + BATCH], batches))


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
