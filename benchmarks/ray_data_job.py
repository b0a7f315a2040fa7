"""Clips to features in Parquet on Ray Data, for `benchmarks.ray_data`: run where Ray is installed.

    python -P ray_data_job.py WAY --listing FILE --model FILE --out FOLDER --course FILE

Imports nothing of ours. `plain` is written as Ray Data's guides of batch inference write such a job: a
function that decodes, a class that holds the model, an actor of it, Parquet. `tuned` is what somebody who
knows Ray Data makes of it: decoding as tasks of its own beside the actor, OpenVINO's asynchronous
queue, a clip that cannot be read as a row with an error, and Ray Data's job-level checkpoints.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

STEPS, SIZE, WIDTH = 40, 299, 2048
Batch = dict[str, np.ndarray]


def read_frames(path: str) -> np.ndarray:
    """The middle frames of 40 equal segments, cropped to a square: (n ≤ 40, 299, 299, 3) uint8 RGB."""
    capture, pictures = cv2.VideoCapture(path), []
    while (frame := capture.read())[0]:
        pictures.append(frame[1])
    if not pictures:
        raise ValueError(f"no frame can be read from {path}")
    wanted = [int((step + 0.5) * len(pictures) / STEPS) for step in range(STEPS)]
    if len(pictures) <= STEPS:
        wanted = list(range(len(pictures)))
    frames = np.empty((len(wanted), SIZE, SIZE, 3), np.uint8)
    for place, number in enumerate(wanted):
        picture = pictures[number]
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        square = picture[top : top + side, left : left + side]
        square = cv2.resize(square, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        frames[place] = cv2.cvtColor(square, cv2.COLOR_BGR2RGB)
    return frames


def decode(batch: Batch) -> Batch:
    """The frames of a batch of paths, each clip's padded to 40."""
    frames = np.zeros((len(batch["path"]), STEPS, SIZE, SIZE, 3), np.uint8)
    count = np.zeros(len(frames), np.int32)
    for row, path in enumerate(batch["path"]):
        found = read_frames(path)
        count[row] = len(found)
        frames[row, : len(found)] = found
    return {"path": batch["path"], "frames": frames, "count": count}


class Model:
    """The CNN, compiled once per actor; called with a batch of clips."""

    def __init__(self, xml: str, precision: str, course: str) -> None:
        import openvino as ov

        core = ov.Core()
        hints = {"INFERENCE_PRECISION_HINT": precision}
        self.model = core.compile_model(core.read_model(xml), "CPU", hints)
        self.course = course

    def __call__(self, batch: Batch) -> Batch:
        features = np.zeros((len(batch["path"]), STEPS, WIDTH), np.float16)
        for row, (frames, count) in enumerate(zip(batch["frames"], batch["count"], strict=True)):
            features[row, :count] = self.model(frames[:count])[0]
        note(self.course, int(batch["count"].sum()))
        return {"path": batch["path"], "count": batch["count"], "features": features}


def note(course: str, frames: int) -> None:
    """A line in the file that the benchmark reads its rates from: when, and how many frames."""
    with Path(course).open("a") as file:
        file.write(f"{time.time()} {frames}\n")


def plain(arguments: argparse.Namespace) -> None:
    """As the guides write it."""
    import ray

    paths = Path(arguments.listing).read_text().splitlines()
    (
        ray.data.from_items([{"path": path} for path in paths])
        .map_batches(decode, batch_size=4)
        .map_batches(
            Model,
            fn_constructor_args=(arguments.model, arguments.precision, arguments.course),
            batch_size=4,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        .write_parquet(arguments.out)
    )


def decode_one(row: dict[str, Any]) -> dict[str, Any]:
    """The frames of one clip; of one that cannot be read none, and why."""
    frames, error = np.zeros((STEPS, SIZE, SIZE, 3), np.uint8), ""
    count = 0
    try:
        found = read_frames(row["path"])
        count = len(found)
        frames[:count] = found
    except Exception as problem:  # whatever a decoder raises becomes the row's error
        error = str(problem)
    return {"path": row["path"], "frames": frames, "count": count, "error": error}


class QueuedModel:
    """The CNN for throughput: a stream per core, batches of 8 frames across clips, none waited for."""

    batch = 8

    def __init__(self, xml: str, precision: str, course: str) -> None:
        import openvino as ov

        core = ov.Core()
        model = core.read_model(xml)
        model.reshape([self.batch, SIZE, SIZE, 3])
        hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT"}
        # Decoders share the cores: pinned streams would wait behind them.
        compiled = core.compile_model(model, "CPU", {**hints, "ENABLE_CPU_PINNING": False})
        self.queue = ov.AsyncInferQueue(compiled)
        self.queue.set_callback(self._take)
        self.course = course

    def __call__(self, batch: Batch) -> Batch:
        count = batch["count"]
        frames = np.concatenate([f[:n] for f, n in zip(batch["frames"], count, strict=True)])
        self.flat = np.zeros((len(frames), WIDTH), np.float16)
        for start in range(0, len(frames), self.batch):
            part = frames[start : start + self.batch]
            if len(part) < self.batch:
                rest = np.zeros((self.batch - len(part), *part.shape[1:]), np.uint8)
                part = np.concatenate([part, rest])
            self.queue.start_async([part], start)
        self.queue.wait_all()
        features = np.zeros((len(count), STEPS, WIDTH), np.float16)
        features[np.arange(STEPS) < count[:, None]] = self.flat
        note(self.course, len(frames))
        kept = {name: batch[name] for name in ("path", "count", "error")}
        return {**kept, "features": features}

    def _take(self, request: Any, start: int) -> None:
        here = self.flat[start : start + self.batch]
        here[:] = request.get_output_tensor().data[: len(here)]


def tuned(arguments: argparse.Namespace) -> None:
    """As well as one can: what Ray Data can be told, told."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray
    from ray.data.checkpoint import CheckpointConfig

    paths = Path(arguments.listing).read_text().splitlines()
    # Checkpoints want a source that is read: a file of paths instead of `from_items`.
    table = f"{arguments.listing}.parquet"
    pq.write_table(pa.table({"path": paths}), table)
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column="path",
        checkpoint_path=f"{arguments.out}.checkpoint",
        delete_checkpoint_on_success=False,  # the next run asks it what is done
    )
    (
        ray.data.read_parquet(table, override_num_blocks=len(paths))
        .repartition(target_num_rows_per_block=4)
        .map(decode_one, num_cpus=0.5, concurrency=2)
        .map_batches(
            QueuedModel,
            fn_constructor_args=(arguments.model, arguments.precision, arguments.course),
            batch_size=4,
            compute=ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=4),
        )
        .write_parquet(arguments.out)
    )


WAYS = {"plain": plain, "tuned": tuned}
CPUS = {"plain": None, "tuned": 4}
"""None: as many as the machine has. With two, a `tuned` job that goes on from checkpoints hangs: the
actor with the model and the one that drops finished rows have them, and no task ever gets one."""


def main() -> None:
    """Run one way, on a Ray of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    for name in ("listing", "model", "out", "course"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--errored-blocks", type=int, default=0, help="-1: any number")
    arguments = parser.parse_args()
    import ray

    ray.init(include_dashboard=False, num_cpus=CPUS[arguments.way])
    ray.data.DataContext.get_current().max_errored_blocks = arguments.errored_blocks
    WAYS[arguments.way](arguments)


if __name__ == "__main__":
    main()
