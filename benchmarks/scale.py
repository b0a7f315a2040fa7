"""What 10 thousand, 1 million and 100 million clips cost: `python -m benchmarks.scale [--measure]`.

`--measure` takes the per-clip costs on this machine into `results/scale.json` (CPU seconds, so that
a busy machine does not disturb them; wall seconds of a Prefect task on Dask); without it the table of
docs/scale.md is printed from there.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import alternating

RESULTS = alternating.RESULTS / "scale.json"
SCHEDULING = alternating.RESULTS / "scheduling.json"  # of benchmarks.scheduling
THREADS = 16  # batches in work at once, for the number of tasks
CLIPS = (10_000, 1_000_000, 100_000_000)
GPUS = (1, 8, 64)
STEPS, CHANNELS, BATCH, COMMIT_ROWS, COLUMNS = 40, 2048, 64, 4096, 22

# An assumption, of a whole run: below what results/gpu.json has for the CNN alone and for the decoders
# alone on a machine with an H100. Change it to the frames/s in the summary of a run of yours.
ASSUMED_GPU_FRAMES_PER_S = 3_000.0
TASKS = 60


def measure() -> dict[str, Any]:
    """CPU seconds to decode a clip, bytes of a clip, bytes of a stored row, and commit's seconds."""
    from pipeline.features.decoding import FramePlan, read_clip
    from pipeline.features.demo import write_demo_clips
    from pipeline.spec import Sampling

    with tempfile.TemporaryDirectory() as folder:
        write_demo_clips(Path(folder) / "clips", clips_per_class=2)
        paths = sorted(Path(folder, "clips").rglob("*.mp4"))
        plan = FramePlan(
            sampling=Sampling(), fit="crop", interpolation="linear", size=299, view="plain"
        )
        read_clip(str(paths[0]), plan)
        began = time.process_time()
        for path in paths:
            read_clip(str(path), plan)
        decode_s = (time.process_time() - began) / len(paths)
        clip_bytes = sum(path.stat().st_size for path in paths) // len(paths)
        stored = _stored(str(Path(folder) / "s.zarr"))
    return {
        "clips": "the built-in demo clips",
        "clip_bytes": clip_bytes,
        "decode_cpu_s": round(decode_s, 4),
        **stored,
        "task_s": round(_task_s(), 3),
    }


def _stored(url: str) -> dict[str, Any]:
    """Bytes of a row in a store at `url`, and CPU seconds to write a chunk and to commit its rows."""
    import numpy as np
    import pandas as pd

    import store

    layout = store.Layout(steps=STEPS, shape=(CHANNELS,), batch=BATCH)
    store.create(url, layout=layout, spec={}, fingerprint="0" * 64, software={})
    with store.Writer.acquire(url, owner="benchmark") as writer:
        rows = writer.append(
            pd.DataFrame({"video_id": [f"Class/v_Class_g01_c{n}.mp4" for n in range(COMMIT_ROWS)]})
        )
        rng = np.random.default_rng(0)
        chunk = rng.random((BATCH, STEPS, CHANNELS), np.float32).astype(np.float16)
        began = time.process_time()
        store.write_batch(url, 0, chunk, token=writer.token)
        write_s = time.process_time() - began
        mask = np.ones((COMMIT_ROWS, STEPS), bool)
        steps = np.sort(rng.integers(0, 400, (COMMIT_ROWS, STEPS)).astype(np.int32))
        writer.put_steps(rows, mask, steps, (steps / 29.97).astype(np.float32))
        hashes = [rng.bytes(32).hex() for _ in range(COMMIT_ROWS)]
        sizes = rng.integers(1e5, 1e7, COMMIT_ROWS)
        writer.set(rows, sha256=hashes, size_bytes=sizes, mtime_ns=sizes * 10**9 + sizes)
        writer.set(rows, digest=rng.integers(0, 2**32, COMMIT_ROWS).astype(np.uint32))
        writer.mark(rows, store.READY)
        began = time.process_time()
        writer.flush()
        commit_s = time.process_time() - began
    features = sum(f.stat().st_size for f in Path(url, "features").rglob("*") if f.is_file())
    small = sum(
        f.stat().st_size
        for f in Path(url).rglob("*")
        if f.is_file() and "features" not in f.relative_to(url).parts
    )
    return {
        "row_bytes": features // BATCH,
        "small_bytes_per_row": small // COMMIT_ROWS,
        "write_cpu_s_per_batch": round(write_s, 4),
        "commit_cpu_s_per_4096_rows": round(commit_s, 4),
    }


def _task_s() -> float:
    """Wall seconds of Prefect and Dask per task: empty tasks, four in work at once as in a run."""
    from flows.server.home import quiet_prefect
    from flows.server.lifetime import prefect_server

    quiet_prefect()
    with prefect_server():
        import distributed
        from prefect import flow, task
        from prefect_dask import DaskTaskRunner

        @task
        def nothing(number: int) -> int:
            return number

        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster:

            @flow(task_runner=DaskTaskRunner(address=cluster.scheduler_address))
            def all_of_them() -> float:
                nothing.submit(0).result()  # the worker loads Prefect
                began, waiting = time.perf_counter(), []
                for number in range(TASKS):
                    waiting.append(nothing.submit(number))
                    if len(waiting) == 4:
                        waiting.pop(0).result()
                for future in waiting:
                    future.result()
                return (time.perf_counter() - began) / TASKS

            return all_of_them()


def shown(costs: dict[str, Any]) -> str:
    """The table in docs/scale.md."""
    lines = [
        "| clips | batches | Prefect tasks | objects | features | small columns | store requests |"
        " scheduling | decoding, cores to keep one GPU busy | 1 GPU | 8 GPUs | 64 GPUs |",
        "|" + " --- |" * 12,
    ]
    gpu_clips_per_s = ASSUMED_GPU_FRAMES_PER_S / STEPS
    cores = gpu_clips_per_s * costs["decode_cpu_s"]
    for clips in CLIPS:
        batches = -(-clips // BATCH)
        groups = -(-clips // COMMIT_ROWS)
        tasks = _tasks(batches)
        scheduling_s = tasks * costs["task_s"] + clips * costs["flow_ms_per_clip"] / 1000
        # Per batch: the array's metadata, the lease's listing and object, the chunk. Per 4096 rows
        # and column: one object, written as often as its rows arrive in another commit (twice).
        requests = batches * 4 + groups * COLUMNS * 2
        cells = [
            f"{clips:,}",
            f"{batches:,}",
            f"{tasks:,}",
            f"{batches + groups * COLUMNS:,}",
            _bytes(clips * costs["row_bytes"]),
            _bytes(clips * costs["small_bytes_per_row"]),
            f"{requests:,}",
            _hours(scheduling_s / 3600),
            f"{cores:.1f}",
        ]
        for gpus in GPUS:
            # One flow hands out the batches: its own work is the floor, whatever the GPUs do.
            work = clips / (gpu_clips_per_s * gpus)
            cells.append(_hours(max(work, scheduling_s) / 3600))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _tasks(batches: int) -> int:
    """How many tasks a run of so many batches gives out."""
    from flows.extract.tasks import batches_per_task

    left, tasks = batches, 0
    while left > 0:
        left -= batches_per_task(batches, left, THREADS)
        tasks += 1
    return tasks


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit != "TiB" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.1f} min"
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.0f} days"


def main() -> None:
    """Measure if asked to, then print."""
    if "--measure" in sys.argv:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    costs = json.loads(RESULTS.read_text(encoding="utf-8"))
    scheduling = json.loads(SCHEDULING.read_text(encoding="utf-8"))
    costs["flow_ms_per_clip"] = round(scheduling["flow_ms_per_clip"], 4)
    print(json.dumps(costs))
    print(shown(costs))


if __name__ == "__main__":
    main()
