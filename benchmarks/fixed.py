"""What a run costs besides its clips: with nothing to do, and per clip from 100 to 3,000 clips.

`nothing` is a run that finds 1,000 clips done, beside the bare imports and an empty Prefect flow, in
turn, each with a temporary server of its own in a home that is warm. `clips` runs 100, 1,000 and
3,000 short clips through the `frames` backbone: from one size to the next is what a clip costs, free
of start-up, and what it has over the extractor's alone is orchestration (Prefect, Dask, commit).
CPU seconds count every process of a run.

    python -m benchmarks.fixed [--rounds 5] [--clips 100,1000,3000] [--cnn-ms 0]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import store
from benchmarks.alternating import cpu_s, save
from benchmarks.engine import cnn_cpu_ms
from pipeline.features.catalog import discover
from pipeline.features.demo import write_demo_clips

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = "import prefect, dask, zarr"
FLOW = "from prefect import flow\n@flow\ndef empty():\n    pass\nempty()"
SUBREAPER = 36  # prctl: orphans below this process become its children
WAYS = {
    "imports": f"`{IMPORTS}`",
    "empty flow": "an empty Prefect flow",
    "ours": "ours, nothing to do",
}
FRAMES = ["--backbone", "frames", "--frames", "4"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", default="100,1000,3000")
    parser.add_argument("--done", type=int, default=1000)
    parser.add_argument("--cnn-ms", type=float, default=0.0, help="CPU ms a frame; 0: measured")
    parser.add_argument("--only", choices=("nothing", "clips"), default="")
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    sizes = sorted({int(size) for size in arguments.clips.split(",")})
    if len(sizes) < 2:
        parser.error("--clips wants two sizes or more: what a clip costs is a difference")
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["PREFECT_HOME"] = str(folder / "home")
        os.environ.pop("PREFECT_API_URL", None)
        # Prefect's own server gives up after 20 s where the machine is busy; that is not asked here.
        os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
        if arguments.only != "clips":
            report["nothing"] = nothing_to_do(folder, arguments.done, arguments.rounds)
        if arguments.only != "nothing":
            report["clips"] = per_clip(
                folder, sizes, arguments.cnn_ms or cnn_cpu_ms(), arguments.rounds
            )
    save("fixed", report)
    print(shown(report))


def shown(figures: dict[str, Any]) -> str:
    """A run with nothing to do, then what a clip costs from size to size."""
    parts = []
    if nothing := figures.get("nothing"):
        lines = ["| what | wall s | range | CPU s |", "| --- | ---: | ---: | ---: |"]
        for way, values in nothing["rounds"].items():
            wall, cpu = ([one[kind] for one in values] for kind in ("wall_s", "cpu_s"))
            lines.append(
                f"| {WAYS[way]} | {statistics.median(wall):.1f} | {min(wall):.1f}–{max(wall):.1f} "
                f"| {statistics.median(cpu):.1f} |"
            )
        parts += [
            "\n".join(lines),
            f"a run that finds {nothing['clips']:,} clips done takes "
            f"{nothing['medians']['wall_s']:.2f} times the imports and an empty flow together",
        ]
    if clips := figures.get("clips"):
        lines = [
            "| clips | wall s | CPU s | CPU ms for each further clip |",
            "| ---: | ---: | ---: | ---: |",
        ]
        for size, rounds in clips["runs"].items():
            wall, cpu = (statistics.median(one[k] for one in rounds) for k in ("wall_s", "cpu_s"))
            cost = clips["ms_per_clip"].get(size, {}).get("cpu_s")
            lines.append(
                f"| {int(size):,} | {wall:.1f} | {cpu:.1f} | {f'{cost:.1f}' if cost else '–'} |"
            )
        costs = [cost["cpu_s"] for cost in clips["ms_per_clip"].values()]
        parts += [
            "\n".join(lines),
            f"beyond the last size but one, a clip costs {costs[-1] / costs[0]:.2f} of what it costs "
            f"up to the second; orchestration is {clips['orchestration_cpu_s_per_batch']:.2f} CPU s a "
            f"batch of 64, {clips['share_of_cnn']:.1%} of its CNN time "
            f"({clips['cnn_ms']:.0f} CPU ms a frame)",
        ]
    return "\n\n".join(parts)


def nothing_to_do(folder: Path, clips: int, rounds: int) -> dict[str, Any]:
    """A run on clips that are done, beside imports + an empty flow, in turn."""
    videos, url = folder / "done", str(folder / "done.zarr")
    link_clips(videos, clips)
    store_of_done(videos, url)
    ways = {
        "imports": [sys.executable, "-c", IMPORTS],
        "empty flow": [sys.executable, "-c", FLOW],
        "ours": [*_features(videos, url)],
    }
    for command in ways.values():  # a cold home and cold caches are not what is asked
        spent(command)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways) if number % 2 == 0 else list(ways)[::-1]:
            found[way].append(spent(ways[way]))
    ratios = {
        kind: [
            ours[kind] / (imports[kind] + empty[kind])
            for imports, empty, ours in zip(*found.values(), strict=True)
        ]
        for kind in ("wall_s", "cpu_s")
    }
    medians = {kind: statistics.median(values) for kind, values in ratios.items()}
    return {"clips": clips, "rounds": found, "ratios": ratios, "medians": medians}


def per_clip(folder: Path, sizes: list[int], cnn_ms: float, rounds: int) -> dict[str, Any]:
    """Runs of several sizes with the `frames` backbone: what a clip costs from size to size.

    The difference of two runs that have started all they need holds no start-up, whatever it is.
    """
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    link_clips(folder / "first", 1)
    spent([*_features(folder / "first", str(folder / "first.zarr")), *FRAMES])  # warms the home
    for size in sizes:
        link_clips(folder / f"clips-{size}", size)
    for number in range(rounds):
        for size in sizes if number % 2 == 0 else sizes[::-1]:
            url = folder / f"clips-{size}-{number}.zarr"
            runs[size].append(spent([*_features(folder / f"clips-{size}", str(url)), *FRAMES]))
            print(f"  {size} clips: {runs[size][-1]}", file=sys.stderr)
            shutil.rmtree(url)
    alone = extractor_alone(folder / f"clips-{sizes[-1]}")
    costs = ms_per_clip(runs)
    batch_cpu = 64 * (costs[sizes[-1]]["cpu_s"] / 1000 - alone)
    share = batch_cpu / (64 * 40 * cnn_ms / 1000)
    return {
        # Keys as JSON will have them, so that what was kept is shown as it was at first.
        "runs": {str(size): found for size, found in runs.items()},
        "ms_per_clip": {str(size): cost for size, cost in costs.items()},
        "extractor_alone_s_per_clip": alone,
        "orchestration_cpu_s_per_batch": batch_cpu,
        "share_of_cnn": share,
        "cnn_ms": cnn_ms,
    }


def ms_per_clip(runs: dict[int, list[dict[str, float]]]) -> dict[int, dict[str, float]]:
    """By size, what each clip beyond the next smaller size costs: the median over the rounds.

    Runs of one round stand next to each other in time, so that a machine that slows down for a
    minute slows both.
    """
    return {
        size: {
            kind: statistics.median(
                (more[kind] - less[kind]) / (size - before) * 1000
                for less, more in zip(runs[before], runs[size], strict=True)
            )
            for kind in runs[size][0]
        }
        for before, size in itertools.pairwise(sorted(runs))
    }


def extractor_alone(videos: Path) -> float:
    """CPU seconds per clip of decoding, extraction and hashing, without flow, workers or commits."""
    from flows.extract.request import stage_of
    from flows.settings.features import FeaturesSettings
    from pipeline.features.extraction import ClipSource
    from pipeline.features.stage import FirstStage

    clips = discover(str(videos))
    settings = FeaturesSettings(videos=str(videos), store="unused", backbone="frames", frames=4)
    _, stage, _ = stage_of(settings, None)
    sources = [
        ClipSource(path=path, size_bytes=size)
        for path, size in zip(clips["path"], clips["size_bytes"], strict=True)
    ]
    with FirstStage.load(stage) as first:
        first.extractor.extract(sources[:8])
        began = cpu_s()
        for start in range(0, len(sources), 64):
            first.extractor.extract(sources[start : start + 64])
        return (cpu_s() - began) / len(sources)


def link_clips(folder: Path, count: int) -> None:
    """One small generated clip under `count` names, in ten classes."""
    seed = folder.parent / "one"
    if not seed.is_dir():
        write_demo_clips(seed, clips_per_class=1)
    clip = sorted(seed.glob("*/*"))[0]
    for number in range(count):
        label = f"Class{number % 10}"
        (folder / label).mkdir(parents=True, exist_ok=True)
        os.link(clip, folder / label / f"v_{label}_g{number % 25 + 1:02d}_c{number:05d}.mp4")


def store_of_done(videos: Path, url: str) -> None:
    """A store in which every clip of the folder is ready."""
    from flows.extract.request import stage_of
    from flows.settings.features import FeaturesSettings

    spec, stage, _ = stage_of(
        FeaturesSettings(videos=str(videos), store=url, weights="random"), None
    )
    layout = store.Layout(steps=spec.sampling.steps, shape=spec.shape, dtype=spec.dtype)
    store.create(url, layout=layout, spec=spec.to_dict(), fingerprint=spec.fingerprint, software={})
    clips = discover(str(videos))
    with store.Writer.acquire(url, owner="benchmark") as writer:
        rows = writer.append(clips.drop(columns="path"))
        writer.set(rows, frames_decoded=np.full(len(rows), 4))
        writer.mark(rows, store.READY)
        writer.set_attributes(
            classes=sorted(set(clips["label"])), first_stage={"weights": stage.weights}
        )
        writer.flush()


def spent(command: list[str]) -> dict[str, float]:
    """Wall and CPU seconds of a command with all that it starts."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
        check=True,
    )
    wall = time.perf_counter() - began
    # Decoders whose worker has gone are ours now; only who is waited for is counted.
    with contextlib.suppress(ChildProcessError):
        while time.perf_counter() - began < wall + 10:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "cpu_s": cpu}


def _features(videos: Path, url: str) -> list[str]:
    return [sys.executable, "-m", "flows", "features", "--videos", str(videos), "--store", url]


if __name__ == "__main__":
    main()
