"""What the flow itself costs a clip, and how many it manages a second: tasks that return at once.

A whole run of `features` at its default settings (a temporary Prefect server, a local worker with two
batches at a time), on one short clip under many names, whose worker neither decodes nor computes.
CPU seconds are those of the flow's process, which has Dask's scheduler in it.

    python -m benchmarks.scheduling [--clips 50000] [--profile FILE]

The last line is one JSON object: flow_ms_per_clip (CPU, from the listing to the last commit),
clips_per_second (of the loop that gives batches out and commits them), and tasks.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.alternating import save
from pipeline.features.demo import write_demo_clips


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=50_000)
    parser.add_argument("--out", default="scheduling", help="the file of results; empty for none")
    parser.add_argument("--profile", default="", help="write a cProfile of the loop there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measured(Path(scratch), arguments.clips, arguments.profile)
    if arguments.out:
        save(arguments.out, figures)
    print(shown(figures))
    loop = figures["parts"]["loop"]
    last = {
        "clips": figures["clips"],
        "tasks": figures["tasks"],
        "flow_ms_per_clip": round(figures["flow_ms_per_clip"], 4),
        "loop_ms_per_clip": round(loop["cpu_s"] / figures["clips"] * 1000, 4),
        "clips_per_second": round(figures["clips"] / loop["wall_s"]),
    }
    print(json.dumps(last))


def shown(figures: dict[str, Any]) -> str:
    """CPU and wall seconds of each part of the run, and per clip."""
    lines = ["| part | wall s | flow's CPU s | CPU ms a clip |", "| --- | ---: | ---: | ---: |"]
    for name, part in figures["parts"].items():
        a_clip = part["cpu_s"] / figures["clips"] * 1000
        lines.append(f"| {name} | {part['wall_s']:.1f} | {part['cpu_s']:.1f} | {a_clip:.3f} |")
    return "\n".join(lines)


def measured(folder: Path, clips: int, profile: str = "") -> dict[str, Any]:
    """One run over so many names of a clip: seconds by part, tasks, milliseconds a clip."""
    os.environ["PREFECT_HOME"] = str(folder / "home")
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    link_clips(folder / "clips", clips)
    from flows.server.home import quiet_prefect
    from flows.server.lifetime import prefect_server

    quiet_prefect()
    parts: dict[str, dict[str, float]] = {}
    with prefect_server():
        from flows.extract import cluster, dispatch, flow, loop
        from flows.settings.features import FeaturesSettings

        _preload_instant(cluster)
        tasks = _counted(dispatch.Dispatch, "submit")
        _timed(parts, flow, "list_clips", "listing")
        _timed(parts, flow, "listings_for", "listing")
        _timed(parts, flow, "prepare_all", "plan")
        _timed(parts, loop.BatchLoop, "run", "loop", profile)
        summary = flow.features(
            FeaturesSettings(
                videos=str(folder / "clips"),
                store=str(folder / "clips.zarr"),
                weights="random:0",
                previews=False,
            )
        )
    if summary.ready != clips:
        raise SystemExit(f"{summary.ready} clips are ready of {clips}: the run is no measure")
    spent = sum(part["cpu_s"] for part in parts.values())
    return {
        "clips": clips,
        "tasks": tasks[0],
        "flow_ms_per_clip": spent / clips * 1000,
        "parts": parts,
    }


def link_clips(folder: Path, clips: int) -> None:
    """One short clip under so many names, a hundred classes of them."""
    made = folder.parent / "made"
    write_demo_clips(made, clips_per_class=1)
    source = min(made.rglob("*.mp4"), key=lambda path: path.stat().st_size)
    copies: list[Path] = []
    for number in range(clips):
        name = folder / f"class{number % 100:02d}" / f"clip{number:07d}.mp4"
        if number < 100:
            name.parent.mkdir(parents=True)
        if number % 30_000 == 0:  # a file system has a limit on the names of one file
            copies.append(folder.parent / f"source{len(copies)}.mp4")
            copies[-1].write_bytes(source.read_bytes())
        os.link(copies[-1], name)


def _preload_instant(cluster: Any) -> None:
    make = cluster.local_cluster

    def local_cluster(*arguments: Any, preload: Any = (), **options: Any) -> Any:
        return make(*arguments, preload=[*preload, "benchmarks.instant"], **options)

    cluster.local_cluster = local_cluster


def _counted(owner: Any, name: str) -> list[int]:
    """The number of calls of a method, from now on."""
    calls, method = [0], getattr(owner, name)

    def counting(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        return method(*arguments, **options)

    setattr(owner, name, counting)
    return calls


def _timed(
    parts: dict[str, dict[str, float]], owner: Any, name: str, part: str, profile: str = ""
) -> None:
    """Add up the seconds of a function's calls, its process' CPU and the wall's."""
    function: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        spent = parts.setdefault(part, {"wall_s": 0.0, "cpu_s": 0.0})
        wall, cpu = time.perf_counter(), time.process_time()
        profiler = cProfile.Profile() if profile else None
        try:
            if profiler is None:
                return function(*arguments, **options)
            return profiler.runcall(function, *arguments, **options)
        finally:
            spent["wall_s"] += time.perf_counter() - wall
            spent["cpu_s"] += time.process_time() - cpu
            if profiler is not None:
                with suppress(OSError):
                    profiler.dump_stats(profile)

    setattr(owner, name, timed)


if __name__ == "__main__":
    main()
