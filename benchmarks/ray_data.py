"""`features` beside the same job in Ray Data: rates, memory, and what goes wrong.

The same clips, the same exported InceptionV3 on OpenVINO at the same precision, on all cores of this
machine: `benchmarks/ray_data_job.py` has the job as the guides of Ray Data write it, and as well as one
can. Runs alternate. Times are of whole commands; `steady` is from the first frames that the CNN has
done to the last. Memory is the largest sum of all processes' PSS. Then processes are killed once the
CNN has spent half of the CPU time that it takes undisturbed, and broken clips lie among the others.

Ray Data lives in an environment of its own: name its Python, or have one made in the cache folder
(1.1 GB). Without, nothing is measured, and this says so.

    python -m benchmarks.ray_data [--ray-python FILE | --make-environment] [--rounds 3] [--clips 32]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import ray_data_ways as ways
from benchmarks.alternating import kept, save
from benchmarks.beside_others import event_tables, rate_table
from benchmarks.ray_data_ways import WAYS, Bench, Job
from benchmarks.watched import Strike
from pipeline.features.demo import write_demo_clips

SHARED = Path(
    os.environ.get("PIXELS_ONCE_SHARED") or Path(__file__).resolve().parents[2] / "shared"
)
WEIGHTS = SHARED / "weights" / "inception_v3_notop.weights.h5"
SMALL_BATCH = ("--batch", "8")
STRUCK: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    *(("model", way, ()) for way in WAYS),
    ("model", "ours", SMALL_BATCH),
    ("decoder", "ours", ()),
    ("decoder", "tuned", ()),
    *(("command", way, ()) for way in WAYS),
    ("command", "ours", SMALL_BATCH),
)
"""(who is killed, way, further words): the plain job decodes where the CNN is."""
Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ray-python", default=os.environ.get(ways.VARIABLE, ""), metavar="FILE")
    parser.add_argument("--make-environment", action="store_true", help="install Ray if missing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--only", choices=("rates", "events"), default="")
    arguments = parser.parse_args()
    python = ways.ray_python(arguments.ray_python, make=arguments.make_environment)
    if not python:
        print(
            "skipped: no environment with Ray Data (--ray-python names one, --make-environment "
            "makes one)"
        )
        return
    with tempfile.TemporaryDirectory(prefix="ray-data-") as scratch:
        weights = str(WEIGHTS) if WEIGHTS.is_file() else "random"
        bench = Bench.prepared(Path(scratch), python, weights)
        clips = chosen(arguments.clips, Path(scratch))
        figures: Figures = {
            **kept("ray_data"),
            "clips": len(clips),
            "versions": versions(python),
            "precision": bench.precision,
        }
        if arguments.only != "events":
            figures |= rates(bench, clips, arguments.rounds)
            save("ray_data", _own(figures))
        if arguments.only != "rates":
            figures["events"] = events(bench, clips, figures["rounds"])
    save("ray_data", _own(figures))
    print(shown(figures))


def shown(figures: Figures) -> str:
    """The tables of `docs/beside-others.md`."""
    return "\n\n".join([rate_table(figures), *event_tables(figures)])


def _own(figures: Figures) -> Figures:
    """Without what `save` adds."""
    return {name: value for name, value in figures.items() if name != "machine"}


def versions(python: str) -> dict[str, str]:
    """What Ray's environment has."""
    names = ("ray", "pyarrow", "openvino", "opencv-python-headless", "numpy")
    program = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    )
    out = subprocess.run(
        [python, "-P", "-c", program, *names], check=True, capture_output=True, text=True
    ).stdout
    found: dict[str, str] = json.loads(out)
    return found


def chosen(count: int, scratch: Path) -> list[Path]:
    """Clips, evenly from the shared set of fights; generated ones where it is not here."""
    videos = SHARED / "clips" / "fight"
    if not videos.is_dir():
        videos = scratch / "generated"
        write_demo_clips(videos, clips_per_class=-(-count // 4))
    found = ways.clips_in(videos)
    count = min(count, len(found))
    return [found[number * len(found) // count] for number in range(count)]


def linked(folder: Path, clips: list[Path]) -> Path:
    """A folder with a link to each clip, in a folder per class."""
    for clip in clips:
        (folder / clip.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / clip.parent.name / clip.name).symlink_to(clip)
    return folder


def rates(bench: Bench, clips: list[Path], rounds: int) -> Figures:
    """Whole runs in turn, each followed by the same command again; then one clip is replaced."""
    videos = linked(bench.folder / "clips", clips)
    few = linked(bench.folder / "few", clips[:3])
    for way in WAYS:  # a cold home and cold files are not what is asked
        _told(bench, Job(way=way, videos=few, out=bench.folder / f"few-{way}"), "warm-up")
    found: dict[str, list[Figures]] = {way: [] for way in WAYS}
    again: dict[str, list[Figures]] = {way: [] for way in WAYS}
    jobs: dict[str, Job] = {}
    for number in range(rounds):
        for way in list(WAYS) if number % 2 == 0 else list(WAYS)[::-1]:
            job = Job(way=way, videos=videos, out=bench.folder / f"{way}-{number}")
            found[way].append(_told(bench, job, f"round {number + 1}"))
            jobs[way] = job
            # The plain job does all once more: once is enough to show it.
            if way != "plain" or number == rounds - 1:
                again[way].append(_told(bench, job, f"round {number + 1}, again"))
    features = {way: ways.features_of(job) for way, job in jobs.items()}
    agree = {way: ways.agreement(features["ours"], features[way]) for way in ("tuned", "plain")}
    replaced = next(videos.rglob(clips[0].name))
    replaced.unlink()
    replaced.symlink_to(clips[-1])
    changed = {way: _told(bench, jobs[way], "one clip replaced") for way in ("ours", "tuned")}
    return {"rounds": found, "again": again, "agreement": agree, "changed": changed}


def events(bench: Bench, clips: list[Path], rounds: dict[str, list[Figures]]) -> Figures:
    """What a killed process and broken clips cost each way."""
    videos = linked(bench.folder / "whole", clips)
    found: dict[str, Figures] = {"model": {}, "decoder": {}, "command": {}}
    for victims, way, more in STRUCK:
        job = Job(
            way=way, videos=videos, out=bench.folder / f"{victims}-{way}{len(more)}", more=more
        )
        # How far a run is, says who computes; a decoder is ahead of it.
        clock = "decoder" if victims == "decoder" else "model"
        half = statistics.median(one["role_cpu_s"][clock] for one in rounds[way]) / 2
        strike = Strike(victims=victims, clock=clock, after_cpu_s=half)
        first = _told(bench, job, f"{victims} killed", strike)
        name = f"{way}, batches of 8" if more else way
        found[victims][name] = first
        if victims == "command":
            next_one = _told(bench, job, "the next run")
            found[victims][name] = {"first": first, "next": next_one}
    found["broken"] = broken(bench, clips)
    return found


def broken(bench: Bench, clips: list[Path]) -> Figures:
    """An empty file and half a file among the clips."""
    videos = linked(bench.folder / "broken", clips)
    folder = videos / clips[0].parent.name
    (folder / "v_Broken_g98_c01.mp4").touch()
    whole = clips[0].read_bytes()
    (folder / "v_Broken_g99_c01.mp4").write_bytes(whole[: len(whole) // 2])
    jobs = {way: Job(way=way, videos=videos, out=bench.folder / f"broken-{way}") for way in WAYS}
    jobs["plain, max_errored_blocks"] = replace(
        jobs["plain"], out=bench.folder / "broken-errored", more=("--errored-blocks=-1",)
    )
    return {name: _told(bench, job, "broken clips") for name, job in jobs.items()}


def _told(bench: Bench, job: Job, what: str, strike: Strike | None = None) -> Figures:
    """A run, with a line on standard error."""
    figures = ways.run(bench, job, strike)
    print(
        f"  {job.way}, {what}: status {figures['status']}, {figures['wall_s']:.1f} s, "
        f"{figures['cpu_s']:.1f} CPU s, {figures['rows']}, steady {figures['steady_fps']:.0f}/s, "
        f"load {figures['load']:.1f}",
        file=sys.stderr,
    )
    return figures


if __name__ == "__main__":
    main()
