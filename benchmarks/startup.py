"""From the command to the first frames at the CNN: what a run spends before it works.

`features` on the built-in clips, InceptionV3 with random weights, warm caches, no Prefect server of
the user's: a run starts a temporary one, a Dask worker, decoders, and loads the CNN. Each round is a
run into a new store, stopped once its first frames have reached the CNN. Marks are written by a
`sitecustomize` that wraps a few functions of every process of the run; the code itself is unchanged,
so that an earlier commit's worktree (`--against FOLDER`) takes its turns.

    python -m benchmarks.startup [--rounds 5] [--against FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.alternating import ROOT, save

_LIMIT_S = 180.0
_SITE = """
import importlib.abc, importlib.machinery, os, sys, time

FOLDER = os.environ["STARTUP_MARKS"]
WATCHED = {
    "flows.server.lifetime": [("", "_spawn", "server spawned", "start")],
    "flows.extract.flow": [("", "_features", "flow begun", "start")],
    "flows.extract.passes": [("", "extract", "cluster asked for", "start")],
    "flows.extract.dispatch": [("Dispatch", "submit", "first batch given out", "start")],
    "flows.extract.batches": [("", "extract_batch", "a worker works on it", "start")],
    "pipeline.features.backbones": [("", "load", "the CNN is loaded", "end")],
    "pipeline.features.filling": [("CnnThreads", "_take", "first frames at the CNN", "end"),
                                  ("CnnThreads", "_frames_read", "first frames at the CNN", "start"),
                                  ("", "_frames_of", "first frames at the CNN", "start")],
}

def mark(name):
    path = os.path.join(FOLDER, name)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    with open(path + ".tmp", "w") as file:
        file.write(repr(time.time()))
    os.replace(path + ".tmp", path + ".at")

def wrap(owner, function, name, when):
    inner = getattr(owner, function)
    def marked(*values, **named):
        if when == "start":
            mark(name)
        result = inner(*values, **named)
        if when == "end":
            mark(name)
        return result
    setattr(owner, function, marked)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in WATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None:
            return None
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            for owner, function, what, when in WATCHED[name]:
                owned = getattr(module, owner) if owner else module
                if hasattr(owned, function):
                    wrap(owned, function, what, when)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""

MARKS = (
    "server spawned",
    "flow begun",
    "cluster asked for",
    "first batch given out",
    "the CNN is loaded",
    "a worker works on it",
    "first frames at the CNN",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", default="", metavar="FOLDER", help="an earlier worktree")
    parser.add_argument("--out", default="startup", help="the file of results; empty for none")
    arguments = parser.parse_args()
    roots = {"now": ROOT}
    if arguments.against:
        roots["before"] = Path(arguments.against).resolve()
    with tempfile.TemporaryDirectory(prefix="bench-startup-") as scratch:
        figures = measured(roots, Path(scratch), arguments.rounds)
    if arguments.out:
        save(arguments.out, figures)
    print(shown(figures))
    print(json.dumps({name: median_of(figures[name], MARKS[-1]) for name in roots}))


def measured(roots: Mapping[str, Path], folder: Path, rounds: int) -> dict[str, Any]:
    """The rounds of every worktree, in turn; one before them fills the caches."""
    site = site_of(folder)
    figures: dict[str, Any] = {"rounds": rounds, **{name: [] for name in roots}}
    for number in range(rounds + 1):
        for name, root in roots.items():
            result = one_run(root, folder, site)
            if number:
                figures[name].append(result)
                print(json.dumps({name: result}), file=sys.stderr, flush=True)
    return figures


def site_of(folder: Path) -> Path:
    """A folder for `PYTHONPATH`, by which every process writes its marks into `STARTUP_MARKS`."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE)
    return site


def seconds_since(began: float, marks: Path) -> dict[str, float]:
    """Seconds from then until each mark that was reached."""
    return {
        name: round(float(path.read_text()) - began, 3)
        for name in MARKS
        if (path := marks / f"{name}.at").exists()
    }


def one_run(root: Path, folder: Path, site: Path) -> dict[str, float]:
    """Seconds from the command until each mark, and the CPU seconds of all its processes."""
    marks = folder / "marks"
    shutil.rmtree(marks, ignore_errors=True)
    marks.mkdir()
    environment = {name: text for name, text in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {
        "PREFECT_HOME": f"{folder}/prefect",
        "PIXELS_ONCE_CACHE": f"{folder}/cache",
        "PYTHONPATH": f"{site}{os.pathsep}{root}",
        "STARTUP_MARKS": str(marks),
        "NO_COLOR": "1",
    }
    words = ["features", "--store", "new.zarr", "--weights", "random"]
    began, load = time.time(), os.getloadavg()[0]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", *words],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    last = marks / f"{MARKS[-1]}.at"
    while not last.exists() and process.poll() is None and time.time() - began < _LIMIT_S:
        time.sleep(0.02)
    if process.poll() is None:
        for _ in range(2):  # once lets the clips in hand be finished, twice stops at once
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
    try:
        _, _, used = os.wait4(process.pid, 0)
    finally:
        process.returncode = 0
    shutil.rmtree(folder / "new.zarr", ignore_errors=True)
    if not last.exists():
        raise SystemExit(f"no frame reached the CNN:\n{(folder / 'log').read_text()[-2000:]}")
    return {
        **seconds_since(began, marks),
        "load": load,
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
    }


def median_of(rounds: list[dict[str, float]], mark: str) -> float | None:
    """The median over the rounds that have this mark; None where none has."""
    values = [result[mark] for result in rounds if mark in result]
    return round(statistics.median(values), 2) if values else None


def shown(figures: dict[str, Any]) -> str:
    """A Markdown table: median seconds until each mark, before and now, with their range."""
    names = [name for name in ("before", "now") if name in figures]
    lines = [
        f"| seconds from the command until | {' | '.join(names)} |",
        f"| --- |{' ---: |' * len(names)}",
    ]
    for mark in (*MARKS, "cpu_s"):
        cells = []
        for name in names:
            values = [result[mark] for result in figures[name] if mark in result]
            cells.append(
                f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"
                if values
                else "–"
            )
        lines.append(f"| {mark.replace('cpu_s', 'CPU seconds')} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
