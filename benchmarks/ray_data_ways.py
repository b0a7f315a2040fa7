"""The ways that `benchmarks.ray_data` compares: commands, processes, and what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import store
from benchmarks.watched import Ended, Strike, watched
from pipeline import engine
from pipeline.features.backbones import resolve_weights
from pipeline.features.backbones.openvino_engine import cached_model
from pipeline.homes import cache_folder
from pipeline.spec import Spec

ROOT = Path(__file__).resolve().parents[1]
JOB = Path(__file__).with_name("ray_data_job.py")
VARIABLE = "BENCH_RAY_PYTHON"
PACKAGES = (
    "ray[data]==2.60.0",
    "pyarrow==26.0.1",
    "openvino==2026.4.1",
    "opencv-python-headless==5.0.0.93",
    "numpy==2.4.6",
)
"""What the kept figures were measured with."""
WAYS = {
    "ours": "ours",
    "tuned": "Ray Data, as well as one can",
    "plain": "Ray Data, as its guides write it",
}
PRECISIONS = {"bfloat16": "bf16", "float32": "f32", "float16": "f16"}
SUFFIX = ".mp4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a comparison works. python: Ray's. weights: as `features --weights` takes them."""

    folder: Path
    python: str
    weights: str
    precision: str
    model: Path

    @classmethod
    def prepared(cls, folder: Path, python: str, weights: str) -> Bench:
        """With the CNN exported, so that every way reads the same file."""
        resolved = resolve_weights(weights, "inception_v3")
        precision = engine.auto_precision()
        model = cached_model(Spec(weights=resolved.hash, precision=precision), resolved)
        return cls(folder=folder, python=python, weights=weights, precision=precision, model=model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One way over a folder of clips, into `out`. more: further words of its command."""

    way: str
    videos: Path
    out: Path
    more: tuple[str, ...] = ()


def ray_python(named: str, *, make: bool) -> str:
    """The Python of an environment with Ray: the one that is named, or one in the cache folder.

    make: install it there if it is missing. "" if there is none.
    """
    if named:
        return named
    folder = cache_folder() / "ray-data"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists() and make:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
        done.touch()
    return str(python) if done.exists() else ""


def command(bench: Bench, job: Job) -> list[str]:
    """The command of a way."""
    if job.way == "ours":
        return [
            *(sys.executable, "-m", "flows", "features", "--json"),
            *("--videos", str(job.videos), "--store", str(job.out)),
            *("--weights", bench.weights, "--precision", bench.precision, *job.more),
        ]
    listing = bench.folder / "listing.txt"
    listing.write_text("\n".join(str(path) for path in clips_in(job.videos)))
    return [
        *(bench.python, "-P", str(JOB), job.way, "--listing", str(listing)),
        *("--model", str(bench.model), "--precision", PRECISIONS[bench.precision]),
        *("--out", str(job.out), "--course", str(bench.folder / "course"), *job.more),
    ]


def clips_in(videos: Path) -> list[Path]:
    """All clips of a folder, in order."""
    return sorted(videos.rglob(f"*{SUFFIX}"))


def environment(bench: Bench) -> dict[str, str]:
    """What every way is given."""
    kept = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return {
        **kept,
        "PREFECT_HOME": str(bench.folder / "prefect"),
        # Prefect's own server gives up after 20 s where the machine is busy; that is not asked here.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "NO_COLOR": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        # Ray's workers are nice by 15, and would get little of a machine that has other work.
        "RAY_worker_niceness": "0",
    }


def roles(way: str) -> dict[str, Callable[[str], bool]]:
    """What a command line says of its process: it has the CNN, it decodes, it is the command itself."""
    if way == "ours":
        return {
            "model": lambda words: "multiprocessing.spawn" in words,
            "decoder": lambda words: "decoding.child" in words,
            "command": lambda words: " flows features " in words,
        }
    return {
        "model": lambda words: words.startswith("ray::MapWorker") and "Model" in words,
        "decoder": lambda words: words.startswith("ray::Map(decode_one)"),
        "command": lambda words: JOB.name in words,
    }


def run(bench: Bench, job: Job, strike: Strike | None = None) -> dict[str, Any]:
    """Run a job to its end; its costs, its course, and what it has left in `out`."""
    course = bench.folder / "course"
    course.unlink(missing_ok=True)
    ended = watched(
        command(bench, job), env=environment(bench), roles=roles(job.way), strike=strike
    )
    if os.environ.get("BENCH_VERBOSE"):
        print(ended.out, ended.err, sep="\n", file=sys.stderr)
    elif ended.status:
        print(ended.err[-2000:], file=sys.stderr)
    curve = _our_course(ended) if job.way == "ours" else _their_course(ended, course)
    return {
        "status": ended.status,
        "wall_s": ended.wall_s,
        "cpu_s": ended.cpu_s,
        "peak_mib": ended.peak_mib,
        "role_cpu_s": ended.role_cpu_s,
        "killed": ended.killed,
        "left_behind": ended.left,
        "load": os.getloadavg()[0],
        **of_course(curve),
        "rows": rows_of(job),
    }


def _our_course(ended: Ended) -> list[tuple[float, int]]:
    """(seconds since the command was given, frames so far), from the run's summary."""
    try:
        summary = json.loads(ended.out.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return []
    before = ended.wall_s - summary.get("seconds", 0.0)
    return [(before + seconds, frames) for seconds, frames in summary.get("throughput", [])]


def _their_course(ended: Ended, course: Path) -> list[tuple[float, int]]:
    """The same, from the lines that the model writes."""
    frames, curve = 0, []
    for line in course.read_text().splitlines() if course.exists() else []:
        moment, count = line.split()
        frames += int(count)
        curve.append((float(moment) - ended.began, frames))
    return curve


def of_course(course: list[tuple[float, int]]) -> dict[str, float]:
    """Frames computed, when the first had come, and frames/s from then on until the last."""
    course = [point for point in course if point[1]]
    if not course:
        return {"frames": 0, "first_s": 0.0, "steady_fps": 0.0}
    first, frames = course[0], course[-1][1]
    last = next(point for point in course if point[1] == frames)
    seconds = last[0] - first[0]
    steady = (frames - first[1]) / seconds if seconds > 0 else 0.0
    return {"frames": frames, "first_s": first[0], "steady_fps": steady}


def rows_of(job: Job) -> dict[str, int]:
    """Rows in the output, clips among them, how many of those are good, and how many say why not."""
    if job.way == "ours":
        counts = store.open(str(job.out)).counts() if store.exists(str(job.out)) else {}
        good, errors = counts.get("ready", 0), counts.get("failed", 0)
        return {"rows": good + errors, "clips": good + errors, "good": good, "errors": errors}
    table = _parquet(job.out, ["path", "count"])
    return {
        "rows": len(table),
        "clips": table["path"].nunique(),
        "good": table[table["count"] > 0]["path"].nunique(),
        "errors": table[table["count"] == 0]["path"].nunique(),
    }


def features_of(job: Job) -> dict[str, np.ndarray]:
    """(n, 2048) float32 of every good clip, by its file's name."""
    if job.way == "ours":
        opened = store.open(str(job.out))
        names = opened.table().query("state == 'ready'")["video_id"]
        sequences = opened.load(names.index)
        return {
            Path(name).name: np.asarray(features[mask], np.float32)
            for name, features, mask in zip(names, sequences.features, sequences.mask, strict=True)
        }
    table = _parquet(job.out, ["path", "count", "features"])
    return {
        Path(path).name: np.stack(list(features)).reshape(-1, 2048)[: int(count)].astype(np.float32)
        for path, count, features in zip(
            table["path"], table["count"], table["features"], strict=True
        )
        if count
    }


def _parquet(folder: Path, columns: list[str]) -> pd.DataFrame:
    """The table of a folder of Parquet files; no rows where there is none."""
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
    none = pd.DataFrame({name: [] for name in columns})
    return pd.concat([none, *(pd.read_parquet(file, columns=columns) for file in files)])


def agreement(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    """Cosines of the vectors of the same step of the same clip: the mean and the least."""
    cosines = []
    for name in sorted(one.keys() & other.keys()):
        a, b = one[name], other[name]
        if a.shape == b.shape:
            lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            cosines.append((a * b).sum(1) / np.maximum(lengths, 1e-12))
    steps = np.concatenate(cosines) if cosines else np.zeros(1)
    return {"clips": len(cosines), "mean": float(steps.mean()), "least": float(steps.min())}
