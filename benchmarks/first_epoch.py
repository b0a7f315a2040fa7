"""What a head's first epoch costs beyond its later ones: tracing and compiling, by head and backend.

Made-up features of 300 clips (their values do not change the cost); every head in a process of its
own, so nothing is compiled already. `overhead_s` is the first epoch, with its validation, less the
median of the later ones; building the head is apart in `build_s`. CPU seconds of the process stand
beside: on a busy machine they say more than the clock.

With `--against FOLDER` (the worktree of an earlier commit) every head is measured there as well, in
turn, as `before`.

The figures of heads that are not measured now stay as they were.

    python -m benchmarks.first_epoch [--backends jax,tensorflow] [--heads lstm,gru:wide] [--warm]
        [--rounds 1] [--against FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternating import ROOT, kept, save
from pipeline import engine

CLASSES = 10
SHAPES = {"features": (40, (2048,)), "frames": (20, (64, 64, 3))}
HEADS = (
    *("lstm", "lstm:small", "gru", "gru:wide", "bilstm", "stacked", "mlp", "frame_average"),
    *("late_fusion", "early_fusion", "attention", "transformer", "tcn"),
    *("lrcn", "convlstm", "conv3d"),
)
"""Every head of the zoo, and presets (after a colon) that are wider or narrower."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backends", default="jax,tensorflow")
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=float, default=180.0, help="seconds for one head")
    parser.add_argument(
        "--warm", action="store_true", help="twice, the cache kept: report the second"
    )
    parser.add_argument("--against", default="", metavar="FOLDER", help="an earlier worktree")
    parser.add_argument("--out", default="first_epoch", help="the file of results; empty for none")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.one, arguments.clips, arguments.epochs)))
        return
    roots = {"now": ROOT}
    if arguments.against:
        roots["before"] = Path(arguments.against).resolve()
    rows = []
    for backend in arguments.backends.split(","):
        for head in arguments.heads.split(","):
            rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in roots}
            for _ in range(arguments.rounds):
                for name, root in roots.items():
                    rounds[name].append(
                        apart(
                            backend,
                            head,
                            clips=arguments.clips,
                            epochs=arguments.epochs,
                            limit=arguments.limit,
                            warm=arguments.warm,
                            root=root,
                        )
                    )
            row = {"backend": backend, "head": head}
            row |= {name: medians(results) for name, results in rounds.items()}
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    figures = {"clips": arguments.clips, "rounds": arguments.rounds, "heads": rows}
    if arguments.out:
        save(
            arguments.out, figures | {"heads": _beside(rows, kept(arguments.out).get("heads", []))}
        )
    print(shown(figures))


def _beside(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These rows among those of heads that were measured before, in the order of the zoo."""
    known = {(row["backend"], row["head"]): row for row in [*others, *rows]}
    order = {head: number for number, head in enumerate(HEADS)}
    return sorted(known.values(), key=lambda row: (row["backend"], order.get(row["head"], 99)))


COLUMNS = ("first_s", "later_s", "overhead_s", "overhead_cpu_s", "clips_per_second")


def shown(figures: dict[str, Any]) -> str:
    """A Markdown table of the figures; those of the earlier worktree in brackets."""
    lines = [
        "| backend | head | first epoch s | later epochs s | overhead s | overhead, CPU s | clips/s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in figures["heads"]:
        now, before = row["now"], row.get("before", {})
        cells = [row["backend"], row["head"]]
        for name in COLUMNS:
            cell = _number(now[name]) if name in now else now["error"]
            if before:
                cell += f" ({_number(before[name]) if name in before else before['error']})"
            cells.append(cell)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def medians(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of every figure over the rounds, or the first round's error."""
    if failed := next((result for result in results if "error" in result), None):
        return failed
    return {
        name: statistics.median(result[name] for result in results)
        if isinstance(value, float)
        else value
        for name, value in results[0].items()
    }


def apart(
    backend: str,
    head: str,
    *,
    clips: int,
    epochs: int,
    limit: float,
    warm: bool = False,
    root: Path = ROOT,
) -> dict[str, Any]:
    """The figures of one head in a process of its own, its caches in a folder of their own.

    limit: seconds after which it is given up. warm: do it twice, and report the second. root: the
    worktree whose code is measured, by this file.
    """
    # -P: this file's folder has a `store` of its own.
    command = [sys.executable, "-P", __file__, "--one", head]
    command += ["--clips", str(clips), "--epochs", str(epochs)]
    with tempfile.TemporaryDirectory() as cache:
        around = os.environ | {
            "KERAS_BACKEND": backend,
            "PIXELS_ONCE_CACHE": cache,
            "PYTHONPATH": str(root),
        }
        for _ in range(2 if warm else 1):
            try:
                done = subprocess.run(
                    command, env=around, capture_output=True, text=True, timeout=limit, check=False
                )
            except subprocess.TimeoutExpired:
                return {"error": f"not done in {limit:.0f} s"}
            if done.returncode:
                return {"error": (done.stderr.strip().splitlines() or ["?"])[-1][:200]}
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def measured(head: str, count: int, epochs: int) -> dict[str, Any]:
    """Build and train one head in this process; its seconds by epoch."""
    name, _, preset = head.partition(":")
    engine.prepare()
    from pipeline.heads.compiling import compiled_head
    from pipeline.heads.config import TrainConfig
    from pipeline.heads.epochs import Callbacks, Fit, Progress, fit_head
    from pipeline.heads.plan import resolve
    from pipeline.heads.splits import Split
    from pipeline.heads.statistics import Statistics, channels_of
    from pipeline.heads.zoo import head_kind

    steps, shape = SHAPES[head_kind(name).reads[0]]
    clips = made_up_clips(count, steps, shape)
    train, validation = np.split(np.arange(count), [count * 4 // 5])
    split = Split(train=train, validation=validation, test=train[:0], how="stratified", seed=0)
    # By name: with few clips the default is another head (not in versions before there was one).
    standard = "standard" if "standard" in head_kind(name).presets else ""
    options = {"preset": preset or standard} if preset or standard else {}
    config = TrainConfig(
        head=name,
        options=options,
        epochs=epochs,
        patience=epochs,
        precision=os.environ.get("FE_PRECISION", "auto"),
    )
    settings = resolve(config, [split])
    began = time.perf_counter()
    neutral = Statistics.neutral(channels_of(shape))
    fit = Fit(
        model=compiled_head(clips, settings, neutral),
        clips=clips,
        split=split,
        settings=settings,
        statistics=neutral,
    )
    build_s = time.perf_counter() - began
    clocks = (time.perf_counter, time.process_time)
    ends = [[clock() for clock in clocks]]
    watch = Callbacks(on_epoch=lambda report: ends.append([clock() for clock in clocks]))
    fit_head(fit, Progress(), watch)
    seconds, cpu = np.diff(np.array(ends), axis=0).T
    later = float(np.median(seconds[1:]))
    return {
        "device": engine.device(),
        "batch": settings.train_batch,
        "build_s": build_s,
        "first_s": float(seconds[0]),
        "later_s": later,
        "overhead_s": float(seconds[0]) - later,
        "first_cpu_s": float(cpu[0]),
        "later_cpu_s": float(np.median(cpu[1:])),
        "overhead_cpu_s": float(cpu[0] - np.median(cpu[1:])),
        "clips_per_second": len(train) / later,
    }


def made_up_clips(count: int, steps: int, shape: tuple[int, ...]) -> Any:
    """`count` clips of random features in memory, `CLASSES` classes, some with padding."""
    import pandas as pd

    from pipeline.heads.clips import Clips

    rng = np.random.default_rng(0)
    kind = np.float16 if len(shape) == 1 else np.uint8
    features = rng.random((count, steps, *shape), np.float32) * (1 if kind == np.float16 else 255)
    lengths = rng.integers(steps // 2, steps + 1, count)
    rows = np.arange(count)
    return Clips(
        source=None,  # type: ignore[arg-type]  # in memory: nothing is asked of a source
        features=features.astype(kind),
        mask=np.arange(steps)[None] < lengths[:, None],
        labels=rows % CLASSES,
        rows=rows,
        digests=rows.astype(np.uint32),
        table=pd.DataFrame({"video_id": [f"{row}.mp4" for row in rows]}),
        classes=tuple(str(number) for number in range(CLASSES)),
        fingerprint="0" * 64,
        spec={},
        steps=steps,
        shape=shape,
        left_out={},
    )


if __name__ == "__main__":
    main()
