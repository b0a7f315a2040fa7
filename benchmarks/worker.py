"""What a worker process itself spends on a clip: stage one with decoders and a CNN that cost nothing.

A Dask worker with two batches at a time, as a run has it, makes whole chunks: hand-over, copies,
batches, previews, hashing, chunk writes, events. Frames come from memory and the CNN returns zeros
at once, so all that is left is ours. CPU milliseconds of that process per clip, split by what they
were spent on (`thread_time` around each part; `rest` is what no part covers), and frames/s. Then
again before a CNN that waits as long as a card takes for its frames and uses no core.

    python -m benchmarks.worker [--batches 12] [--pace 15000]

The last line is one JSON object: ms_per_clip, frames_per_second, paced_ratio (of the pace: decoders
that cost nothing are no limit).
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.alternating import save
from pipeline.features.backbones import resolve_weights
from pipeline.features.decoders import AHEAD_BYTES, IN_PLACE_BYTES
from pipeline.features.decoding.slots import FrameSlots
from pipeline.features.decoding.values import ClipFrames, FramePlan
from pipeline.features.previews import preview_pictures
from pipeline.features.stage import Stage
from pipeline.spec import Spec

ROWS = 64
STEPS = 40
FILE_BYTES = 250_000
"""As large as a clip of a few seconds at 240p."""

PARTS = ("copies", "hashing", "events", "writes", "preview_writes")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, default=12, help="chunks of 64 clips")
    parser.add_argument("--pace", type=float, default=15_000.0, help="frames/s of the paced CNN")
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--out", default="worker", help="the file of results; empty for none")
    arguments = parser.parse_args()
    figures = measured(arguments.batches, arguments.pace, arguments.size)
    if arguments.out:
        save(arguments.out, figures)
    print(shown(figures))
    free, paced = figures["free"], figures["paced"]
    last = {
        "ms_per_clip": round(free["ms_per_clip"], 3),
        "frames_per_second": round(free["frames_per_second"]),
        "paced_ratio": round(paced["frames_per_second"] / figures["pace"], 3),
    }
    print(json.dumps(last))


def shown(figures: dict[str, Any]) -> str:
    """A Markdown table: milliseconds per clip by part, free and paced."""
    lines = ["| part | CPU ms per clip | before a paced CNN |", "| --- | ---: | ---: |"]
    free, paced = figures["free"], figures["paced"]
    for part in (*PARTS, "rest", "ms_per_clip"):
        name = "together" if part == "ms_per_clip" else part.replace("_", " ")
        lines.append(f"| {name} | {free[part]:.2f} | {paced[part]:.2f} |")
    rates = (
        f"{free['frames_per_second']:.0f} frames/s before a CNN that costs nothing, "
        f"{paced['frames_per_second']:.0f} before one of {figures['pace']:.0f}"
    )
    return "\n".join([*lines, "", rates])


def measured(batches: int, pace: float, size: int) -> dict[str, Any]:
    """The figures of both runs, on one worker process."""
    import dask
    import distributed

    from flows.extract.cluster import cluster_options

    options = cluster_options(1) | {"distributed.worker.daemon": False}
    with (
        tempfile.TemporaryDirectory(prefix="bench-worker-") as scratch,
        dask.config.set(options),
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            host="127.0.0.1",
            protocol="tcp://",
            dashboard_address=None,
            memory_limit=0,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        folder = Path(scratch)
        sources = folder / "clips"
        sources.mkdir()
        rng = np.random.default_rng(0)
        for number in range(ROWS):
            (sources / f"{number}.mp4").write_bytes(rng.bytes(FILE_BYTES))
        ways = {
            "free": _run(client, folder, "free", batches, 0.0, size),
            "paced": _run(client, folder, "paced", batches, pace, size),
        }
    return {"clips": batches * ROWS, "pace": pace, "size": size, **ways}


def _run(
    client: Any, folder: Path, name: str, batches: int, pace: float, size: int
) -> dict[str, float]:
    """CPU milliseconds per clip by part, and frames/s, of one run over all batches."""
    import store
    from flows.extract.batches import extract_batch, topic
    from flows.extract.cutting import batches_of

    spec = Spec(weights=resolve_weights("random", "inception_v3").hash, size=size)
    stage = Stage(spec=spec.to_dict(), weights="random", previews=True, timeout_s=60 + batches)
    url = str(folder / f"{name}.zarr")
    layout = store.Layout(steps=STEPS, shape=spec.shape, dtype=spec.dtype, batch=ROWS)
    store.create(url, layout=layout, spec=spec.to_dict(), fingerprint=spec.fingerprint, software={})
    told = 0

    def heard(event: Any) -> None:
        nonlocal told
        told += len(event[1].get("clips", ())) or 1

    with store.Writer.acquire(url, owner="benchmark") as writer:
        writer.keep_previews()
        count = (batches + 2) * ROWS
        rows = writer.append(pd.DataFrame({"video_id": [f"{n}.mp4" for n in range(count)]}))
        writer.flush()
        client.run(_install, stage, pace)
        client.subscribe_topic(topic(name), heard)
        made = list(
            batches_of(
                [int(row) for row in rows],
                writer,
                stage,
                lambda row: str(folder / "clips" / f"{row % ROWS}.mp4"),
                name,
            )
        )
        # Two batches first: imports, page faults, and threads that start.
        client.gather([client.submit(extract_batch, batch, pure=False) for batch in made[:2]])
        client.run(_reset)
        began = time.perf_counter()
        waiting = [client.submit(extract_batch, batch, pure=False) for batch in made[2:]]
        results = client.gather(waiting)
        wall = time.perf_counter() - began
        (spent,) = client.run(_spent).values()
        client.unsubscribe_topic(topic(name))
    frames = sum(int(result.mask.sum()) for result in results)
    clips = len(results) * ROWS
    if frames != clips * STEPS:
        raise SystemExit(f"{frames} frames were made of {clips * STEPS}: the run is no measure")
    by_part = {part: spent[part] / clips * 1000 for part in PARTS}
    total = spent["process"] / clips * 1000
    return {
        **by_part,
        "rest": total - sum(by_part.values()),
        "ms_per_clip": total,
        "frames_per_second": frames / wall,
        "told": float(told),
    }


class MemoryDecoders:
    """Decoders that have every clip's frames in memory already, its hash and its previews too.

    As many slots as a run has, lent as a run's are.
    """

    def __init__(self, plan: FramePlan) -> None:
        # Noise: a preview of it costs what one of a picture does, or more.
        rng = np.random.default_rng(0)
        smooth = rng.integers(0, 256, (8, 8, 3), np.uint8)
        side = -(-plan.size // 8)
        self._picture = smooth.repeat(side, 0).repeat(side, 1)[: plan.size, : plan.size]
        shape = plan.frames_shape
        slots = (AHEAD_BYTES + IN_PLACE_BYTES) // math.prod(shape)
        self._slots = FrameSlots([shape], slots=slots, processes=0)
        self._filled: set[int] = set()
        self._index = np.arange(shape[0], dtype=np.int32)
        # What children do beside decoding: they are asked for it where they can be.
        pictures = preview_pictures(np.broadcast_to(self._picture, shape))
        self._done: dict[str, Any] = {"sha256": "0" * 64, "previews": pictures}
        # Futures are resolved by threads of the pool, as they are where children decode.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="decoder")

    def submit(self, path: str, size_bytes: int = -1) -> Future[ClipFrames]:
        return self._threads.submit(self._read)

    def _read(self) -> ClipFrames:
        slot = self._slots.lend()
        assert slot is not None
        frames = self._slots.frames(slot)
        if slot not in self._filled:  # a run touches no more of them than it needs
            frames[:] = self._picture
            self._filled.add(slot)
        return ClipFrames(
            frames=frames,
            place=self._slots.place(slot),
            frame_index=self._index,
            timestamp=self._index.astype(np.float32),
            fps=25.0,
            width=320,
            height=240,
            frames_declared=len(self._index),
            frames_decoded=len(self._index),
            decoder="memory",
            **self._done,
            release=lambda: self._slots.take_back(slot),
        )

    def close(self) -> None:
        self._threads.shutdown()


_spent_s: dict[str, float] = {}
_process_began = 0.0


def _install(stage: Stage, pace: float) -> None:
    """Run in the worker: give it a first stage that costs nothing, and count what the parts spend."""
    import distributed

    import flows.extract.batches
    import store
    from benchmarks.null_cnn import NullCnn
    from pipeline.features import filling
    from pipeline.features.backbones.keras_engine import MOST, chosen, rate
    from pipeline.features.extraction import Extractor
    from pipeline.features.fetching import FetchingDecoders
    from pipeline.features.stage import FirstStage

    spec = Spec.from_dict(stage.spec)
    cnn = NullCnn(size=spec.size, frames_per_second=pace)
    if pace:  # as many callers as a backbone on a card would have
        cnn.concurrency = chosen({callers: rate(cnn, callers) for callers in range(1, MOST + 1)})
    pool: Any = MemoryDecoders(FramePlan.of(spec))
    if not _spent_s:
        if hasattr(filling.CnnThreads, "_gather"):
            _count(filling.CnnThreads, "_gather", "copies")
        _count(flows.extract.batches, "sha256_if_readable", "hashing")
        _count(distributed.Worker, "log_event", "events")
        _count(store, "write_batch", "writes")
        _count(store, "write_previews", "preview_writes")
    fetching = FetchingDecoders(pool)
    extractor = Extractor(spec, cnn, fetching)
    made = FirstStage(cnn, pool, fetching, extractor)
    flows.extract.batches._loaded[repr(stage)] = made
    _spent_s.update(dict.fromkeys(PARTS, 0.0))


def _count(owner: Any, name: str, part: str) -> None:
    """Add the CPU time that every call of `owner.name` takes in its thread to a part."""
    inner: Callable[..., Any] = getattr(owner, name)

    def counted(*values: Any, **named: Any) -> Any:
        began = time.thread_time()
        try:
            return inner(*values, **named)
        finally:
            _spent_s[part] += time.thread_time() - began

    setattr(owner, name, counted)


def _reset() -> None:
    global _process_began
    _spent_s.update(dict.fromkeys(PARTS, 0.0))
    _process_began = time.process_time()


def _spent() -> dict[str, float]:
    return {**_spent_s, "process": time.process_time() - _process_began}


if __name__ == "__main__":
    from benchmarks.worker import main as run  # the worker imports it by this name

    run()
