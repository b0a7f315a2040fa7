"""How soon the small commands answer, and how soon a run gives out its first batch.

Each command runs in a process of its own, some rounds in turn; beside this checkout another one
(`--against FOLDER`, an earlier commit's worktree) takes its turns. CPU seconds are those of the
process and of all that it waited for: on a busy machine they say more than the clock. `features` runs
without a Prefect server of the user's: `idle` finds nothing to do, `first batch` is the time until
workers have been given one.

    python -m benchmarks.commands [--rounds 3] [--against FOLDER]
"""

from __future__ import annotations

import argparse
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

import store

ROOT = Path(__file__).resolve().parents[1]
FEATURES = ("features", "--backbone", "frames", "--frames", "4")
COMMANDS = {
    "help": ("--help",),
    "heads": ("heads",),
    "show": ("show", "--store", "demo.zarr"),
    "compare": ("compare",),
    "features, idle": (*FEATURES, "--store", "demo.zarr"),
    "features, first batch": (*FEATURES, "--store", "new.zarr"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", default="", metavar="FOLDER")
    arguments = parser.parse_args()
    checkouts = {"this": ROOT}
    if arguments.against:
        checkouts["other"] = Path(arguments.against).resolve()
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
        environment |= {"PREFECT_HOME": f"{folder}/prefect", "NO_COLOR": "1"}
        _make_store_and_run(Path(folder), environment)
        print(shown(measured(checkouts, Path(folder), environment, arguments.rounds)))


Figures = dict[tuple[str, str], list[tuple[float, float]]]
"""(command, checkout) → (seconds, CPU seconds) of each round."""


def measured(
    checkouts: Mapping[str, Path], folder: Path, environment: Mapping[str, str], rounds: int
) -> Figures:
    """Every command `rounds` times in every checkout, in turn; a round before them warms up."""
    figures: Figures = {(name, which): [] for name in COMMANDS for which in checkouts}
    for number in range(rounds + 1):
        for name, words in COMMANDS.items():
            for which, root in checkouts.items():
                figure = _timed(words, folder, {**environment, "PYTHONPATH": str(root)})
                if number:
                    figures[name, which].append(figure)
    return figures


def shown(figures: Figures) -> str:
    """A Markdown table: medians, and the ratio to the other checkout where there is one."""
    lines = [
        "| command | seconds | CPU seconds | other: seconds | CPU seconds | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in COMMANDS:
        cells = [name]
        medians = []
        for which in ("this", "other"):
            rounds = figures.get((name, which), [])
            medians.append([statistics.median(values) for values in zip(*rounds, strict=True)])
            cells += [f"{value:.2f}" for value in medians[-1]] or ["", ""]
        cells.append(f"{medians[1][1] / medians[0][1]:.1f}" if medians[1] else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _timed(
    words: tuple[str, ...], folder: Path, environment: Mapping[str, str]
) -> tuple[float, float]:
    """Seconds and CPU seconds of a command, or until it has given out its first batch."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds = 0.0
    if "new.zarr" in words:
        while not seconds and process.poll() is None:
            time.sleep(0.05)
            if store.exists(str(folder / "new.zarr")):
                holder = store.holder(str(folder / "new.zarr"))
                seconds = time.perf_counter() - began if holder and holder.batches else 0.0
        process.send_signal(signal.SIGINT)
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0
    shutil.rmtree(folder / "new.zarr", ignore_errors=True)
    return seconds or time.perf_counter() - began, used.ru_utime + used.ru_stime


def _make_store_and_run(folder: Path, environment: Mapping[str, str]) -> None:
    """Make `demo.zarr` of the built-in clips as small pictures, and train a run in `runs` on it."""
    train = ("train", "--store", "demo.zarr", "--head", "early_fusion", "--epochs", "1")
    for words in ((*FEATURES, "--store", "demo.zarr"), train):
        subprocess.run(
            [sys.executable, "-m", "flows", *words],
            cwd=folder,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            check=True,
        )


if __name__ == "__main__":
    main()
