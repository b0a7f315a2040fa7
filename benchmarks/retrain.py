"""Where the seconds of a retraining go: `train --head gru` on 1,000 clips, from start to last line.

One run in a process of its own, on a store of random features (their values do not change the cost). The
parts are those of the command in their order; what is inside another part is taken out of it. Seconds of
the clock and of the processor: on a busy machine the latter say more.

    python -m benchmarks.retrain [--clips 1000] [--epochs 20] [--head gru] [--preset wide]
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from benchmarks.alternating import ROOT, save

STEPS, CHANNELS, CLASSES = 40, 2048, 10
PARTS = {
    "Python, imports, settings": (),
    "reading the store": ("flows.train.runs:shared.load_stores",),
    "Keras and the backend": ("pipeline.heads.training:engine.prepare",),
    "splits, identity": ("pipeline.heads.training:plan_training",),
    "statistics, building the head": ("pipeline.heads.fitting:_prepared",),
    "first epoch, which traces": ("pipeline.heads.epochs:_train_epoch",),
    "the other epochs": (),
    "validation": ("pipeline.heads.epochs:_validate",),
    "the frame average beside it": ("pipeline.heads.evaluation:baselines",),
    "predictions, tables, leak check": ("pipeline.heads.training:evaluate_run",),
    "saving the model": ("pipeline.heads.run_folder:save_model",),
    "plots": ("pipeline.heads.training:draw_plots",),
    "the rest": (),
}
"""Part → the functions that it is spent in, `module:name`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--head", default="gru")
    parser.add_argument("--preset", default="")
    parser.add_argument("--in-process", default="", metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.in_process:
        print(json.dumps(_timed(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        _write_store(Path(folder) / "clips.zarr", arguments.clips)
        environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
        environment |= {"PREFECT_HOME": f"{folder}/prefect", "NO_COLOR": "1"}
        words = ["-m", "benchmarks.retrain", *sys.argv[1:], "--in-process", folder]
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE
        )
    figures = vars(arguments) | {"parts": json.loads(done.stdout.decode().splitlines()[-1])}
    del figures["in_process"]
    save("retrain", figures)
    print(shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """The parts with their seconds, and the sum."""
    preset = f" --preset {figures['preset']}" if figures["preset"] else ""
    size = f"{figures['clips']:,} clips, {figures['epochs']} epochs"
    lines = [
        f"`train --head {figures['head']}{preset}` on {size}",
        "",
        "| part | seconds | CPU seconds |",
        "| --- | ---: | ---: |",
    ]
    parts = figures["parts"]
    lines += [f"| {name} | {parts[name][0]:.1f} | {parts[name][1]:.1f} |" for name in PARTS]
    wall, cpu = (sum(values[i] for values in parts.values()) for i in (0, 1))
    return "\n".join([*lines, f"| all | {wall:.1f} | {cpu:.1f} |"])


def _timed(arguments: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Run the command here: part → (seconds, CPU seconds), what is inside another part taken out."""
    process = psutil.Process()
    began = time.time() - process.create_time()
    own = process.cpu_times()
    spent = {name: [0.0, 0.0] for name in PARTS}
    spent["Python, imports, settings"] = [began, own.user + own.system]
    stack: list[list[float]] = []

    @contextmanager
    def timing(name: str) -> Iterator[None]:
        start = time.perf_counter(), time.process_time()
        stack.append([0.0, 0.0])
        try:
            yield
        finally:
            whole = time.perf_counter() - start[0], time.process_time() - start[1]
            inner = stack.pop()
            for i in (0, 1):
                spent[name][i] += whole[i] - inner[i]
                if stack:
                    stack[-1][i] += whole[i]

    with timing("Python, imports, settings"):
        from flows.cli.main import main as command

        for name, places in PARTS.items():
            for place in places:
                _wrap(place, name, timing)
    words = [
        "--store",
        f"{arguments.in_process}/clips.zarr",
        "--runs",
        f"{arguments.in_process}/runs",
    ]
    words += ["--head", arguments.head, "--epochs", str(arguments.epochs)]
    words += ["--patience", str(arguments.epochs), "--json"]
    words += ["--preset", arguments.preset] if arguments.preset else []
    with timing("the rest"):
        status = command(["train", *words])
    assert status == 0
    return {name: (values[0], values[1]) for name, values in spent.items()}


def _wrap(place: str, part: str, timing: Callable[[str], Any]) -> None:
    module_name, _, name = place.partition(":")
    holder: Any = importlib.import_module(module_name)
    *path, name = name.split(".")
    for step in path:
        holder = getattr(holder, step)
    plain, calls = getattr(holder, name), [0]

    @functools.wraps(plain)
    def timed(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        later = part.startswith("first epoch") and calls[0] > 1
        with timing("the other epochs" if later else part):
            return plain(*arguments, **options)

    setattr(holder, name, timed)


def _write_store(url: Path, clips: int) -> None:
    import store
    from pipeline.spec import Sampling, Spec

    spec = Spec(sampling=Sampling(steps=STEPS), shape=(CHANNELS,), weights="random:0")
    layout = store.Layout(steps=STEPS, shape=(CHANNELS,), batch=64)
    store.create(
        str(url), layout=layout, spec=spec.to_dict(), fingerprint=spec.fingerprint, software={}
    )
    rng = np.random.default_rng(0)
    number = np.arange(clips)
    table = pd.DataFrame(
        {
            "video_id": [f"clip-{n:05d}.mp4" for n in number],
            "label": [f"class {n % CLASSES}" for n in number],
            "group": [f"g{n // CLASSES % 50:02d}" for n in number],
        }
    )
    with store.Writer.acquire(str(url), owner="benchmark") as writer:
        writer.append(table)
        for batch in range(-(-clips // 64)):
            rows = np.array(writer.rows_of(batch))
            values = rng.random((len(rows), STEPS, CHANNELS), np.float32)
            values[..., 0] += rows[:, None] % CLASSES
            features = values.astype(np.float16)
            digests = store.write_batch(str(url), batch, features, token=writer.token)
            writer.set(rows, digest=digests)
            index = np.broadcast_to(np.arange(STEPS, dtype=np.int32), (len(rows), STEPS))
            writer.put_steps(rows, np.ones(index.shape, bool), index, index / np.float32(25))
            writer.mark(rows, store.READY)
        writer.flush()


if __name__ == "__main__":
    main()
