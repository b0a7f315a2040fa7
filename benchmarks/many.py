"""A hundred thousand clips in one run: its memory, its cost from first to last, and a kill halfway.

Six short clips under many names (hard links) go through `features` with a backbone that costs nothing,
so that the machinery is what is measured: listing, hashing, decoding in child
processes, chunks, commits, Prefect. Every second the flow's process, its workers and decoders are read:
memory, and the CPU seconds of them all with Prefect's server. Then a second run of the same clips is
killed (SIGKILL, every process) when half are done, and run again: its store must be the first one's,
byte by byte in the features, value by value in the table.

    python -m benchmarks.many [--clips 100000]

Ends with status 1 where the flow or a worker holds 10 % more at the end than after a tenth of the clips,
where a clip of the last third costs 10 % more than one of the first, or the stores differ. (Tenths are
shown, too: on a machine with neighbours they go up and down.) The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

import store
from benchmarks.alternating import save
from benchmarks.memory import ALLOWED, ROOT, look
from pipeline.features.backbones.family import Backbone
from pipeline.features.demo import ACTIONS, render_clip, write_clip
from pipeline.spec import Spec

CLASSES, BATCH, PARTS = 100, 64, 10
EVEN = 0.10  # what a clip of the last third may cost more than one of the first
MOST_LINKS = 50_000  # of one file; a common file system allows 65,000


class Thumbs(Backbone):
    """Some pixels of every frame: features that tell clips and steps apart, and cost nothing."""

    def features_of(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return frames[:, ::15, ::15].reshape(len(frames), -1).astype(np.float32)


def thumbs() -> Backbone:
    """What `--backbone benchmarks.many:thumbs` loads."""
    spec = Spec(backbone="thumbs", size=60, shape=(48,), weights="none")
    return Thumbs(spec, engine="numpy", batch=256, concurrency=2, software={})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=100_000)
    clips = parser.parse_args().clips
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        link_clips(folder / "clips", clips)
        whole = Run.of(folder, "whole")
        curve = whole.watched()
        killed = Run.of(folder, "killed")
        killed.watched(until=clips // 2)
        left = killed.done()
        killed.watched()
        differing = differences(whole.store, killed.store)
        figures = {
            "clips": clips,
            "wall_s": curve[-1]["seconds"],
            "curve": thinned(curve, clips),
            "database_mib": whole.database_mib(),
            "killed_at": left,
            "differences": differing,
        }
    figures |= judged(figures["curve"])
    save("many", figures)
    print(shown(figures))
    print(json.dumps({k: v for k, v in figures.items() if k != "curve"}))
    return 0 if figures["holds"] and not figures["differences"] else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The command into a store of its own, with a Prefect of its own."""

    videos: Path
    store: Path
    home: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> Run:
        return cls(
            videos=folder / "clips", store=folder / f"{name}.zarr", home=folder / f"home-{name}"
        )

    def watched(self, until: int = sys.maxsize) -> list[dict[str, float]]:
        """Run it to its end, or kill all of it once so many clips are done; what was seen by then."""
        words = ["--videos", str(self.videos), "--store", str(self.store), "--batch", str(BATCH)]
        words += ["--backbone", "benchmarks.many:thumbs"]
        kept = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        kept |= {"PREFECT_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        kept.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
        began, curve, spent = time.perf_counter(), [], dict[psutil.Process, float]()
        with tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows", "features", *words],
                cwd=ROOT,
                env=kept,
                stdout=subprocess.DEVNULL,
                stderr=err,
                start_new_session=True,
            )
            flow = psutil.Process(process.pid)
            while process.poll() is None:
                seen: dict[str, float] = look(flow)
                seen |= {"cpu_s": cpu_s(flow, spent), "seconds": time.perf_counter() - began}
                seen["clips"] = self.done()
                if seen["worker"] and seen["clips"]:
                    curve.append(seen)
                if seen["clips"] >= until:
                    kill_all(flow)
                    process.wait()
                    return curve
                time.sleep(1)
            err.seek(0)
            if process.returncode or until < sys.maxsize:
                sys.exit(f"ended with {process.returncode} at {self.done()}:\n{err.read()[-4000:]}")
        curve[-1]["clips"] = self.done()
        return curve

    def done(self) -> int:
        """Clips whose chunk is written."""
        with suppress(FileNotFoundError):
            names = os.listdir(self.store / "features")
            return BATCH * sum(n.startswith("c.") and not n.endswith(".partial") for n in names)
        return 0

    def database_mib(self) -> float:
        """Of Prefect's database, with its journal."""
        return sum(p.stat().st_size for p in self.home.glob("prefect.db*")) / 2**20


def link_clips(folder: Path, clips: int) -> None:
    """Six clips of 3 s under so many names, in a folder per class."""
    originals = []
    for number, action in enumerate(sorted(ACTIONS)[:6]):
        path = folder.parent / "originals" / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_clip(path, np.ascontiguousarray(render_clip(action, group=1, clip=1)[:, ::2, ::2]))
        originals.append(path)
    for number in range(CLASSES):
        (folder / f"class{number:02d}").mkdir(parents=True)
    for number in range(clips):
        kind, turn = number % len(originals), number // len(originals)
        source = originals[kind].with_name(f"{kind}-{turn // MOST_LINKS}.mp4")
        if turn % MOST_LINKS == 0:
            shutil.copy(originals[kind], source)
        (folder / f"class{number % CLASSES:02d}" / f"clip{number:07d}.mp4").hardlink_to(source)


def cpu_s(flow: psutil.Process, spent: dict[psutil.Process, float]) -> float:
    """CPU seconds of a process and all below it, those that have ended as they were seen last."""
    with suppress(psutil.Error):
        for one in (flow, *flow.children(recursive=True)):
            with suppress(psutil.Error):
                times = one.cpu_times()
                spent[one] = max(spent.get(one, 0.0), times.user + times.system)
    return sum(spent.values())


def kill_all(flow: psutil.Process) -> None:
    """SIGKILL for a process and all below it."""
    family = [flow]
    with suppress(psutil.Error):
        family += flow.children(recursive=True)
    for one in family:
        with suppress(psutil.Error):
            one.send_signal(signal.SIGKILL)
    psutil.wait_procs(family[1:], timeout=30)


def differences(one: Path, other: Path) -> list[str]:
    """In what two stores of the same clips differ; at most five are named."""
    table, others = (store.open(str(path)).table() for path in (one, other))
    found = [f"column {name}" for name in table.columns if not table[name].equals(others[name])]
    names, other_names = (sorted(os.listdir(path / "features")) for path in (one, other))
    found += ["names of chunks"] * (names != other_names)
    _, unlike, missing = filecmp.cmpfiles(
        one / "features", other / "features", names, shallow=False
    )
    return [*found, *unlike, *missing][:5]


def thinned(curve: list[dict[str, float]], clips: int) -> list[dict[str, float]]:
    """What was seen first at or after each tenth of the clips."""
    dues = [clips * part // PARTS for part in range(1, PARTS)]
    places = {next(i for i, point in enumerate(curve) if point["clips"] >= due) for due in dues}
    return [curve[i] for i in sorted(places | {len(curve) - 1})]


def judged(curve: list[dict[str, float]]) -> dict[str, Any]:
    """Growth after the first tenth, the cost of each tenth, and whether all is within bounds."""
    growth = {
        who: max(point[who] for point in curve[1:]) / curve[0][who] for who in ("flow", "worker")
    }
    costs = [
        (after["cpu_s"] - before["cpu_s"]) / (after["clips"] - before["clips"]) * 1000
        for before, after in pairwise(curve)
    ]
    mean, third = statistics.mean(costs), max(1, len(costs) // 3)
    spread = {"lowest": min(costs) / mean, "highest": max(costs) / mean}
    drift = statistics.mean(costs[-third:]) / statistics.mean(costs[:third]) - 1
    return {
        "growth": growth,
        "cpu_ms_a_clip": mean,
        "cost": spread,
        "drift": drift,
        "holds": max(growth.values()) <= ALLOWED and drift <= EVEN,
    }


def shown(figures: dict[str, Any]) -> str:
    """The curve as a table, and what it comes to."""
    lines = [
        "| clips | wall s | CPU s of all | flow MiB | worker MiB | decoders MiB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    cells = "| {clips:,.0f} | {seconds:.0f} | {cpu_s:.0f} | {flow:.0f} | {worker:.0f} | {decoders:.0f} |"
    lines += [cells.format(**point) for point in figures["curve"]]
    grown = ", ".join(f"{who} {share - 1:+.1%}" for who, share in figures["growth"].items())
    same = (
        "the same store" if not figures["differences"] else f"it differs: {figures['differences']}"
    )
    low, high = figures["cost"]["lowest"], figures["cost"]["highest"]
    lines += [
        "",
        f"{figures['clips']:,} clips in {figures['wall_s']:.0f} s. Memory at most, beside that after a "
        f"tenth: {grown}. A clip costs {figures['cpu_ms_a_clip']:.2f} ms of CPU in all, the tenths "
        f"{low:.2f} to {high:.2f} times that, the last third {figures['drift']:+.1%} beside the first. "
        f"Prefect's database: {figures['database_mib']:.1f} MiB. "
        f"Killed at {figures['killed_at']:,} and run again: {same}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
