"""Compares ways of doing one thing: each in a process of its own, one round each in turn.

A process waits, idle, while the others have their round, so all meet the same machine; what they
need to start is not part of a round. Rates are medians over the rounds, with their range. CPU
seconds, those of the process and all its children, stand beside the wall's: where other programs
share the machine, they say more.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(os.environ.get("BENCH_RESULTS") or ROOT / "benchmarks" / "results")


def serve(prepare: Callable[[], Callable[[], dict[str, float]]]) -> None:
    """The child's side: prepare, then one round per line of standard input, answered as JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # Whatever a library prints goes to standard error.
    os.dup2(2, 1)
    began = time.perf_counter()
    one_round = prepare()
    print(json.dumps({"start_s": time.perf_counter() - began}), file=answers)
    for _ in sys.stdin:
        cpu, wall = cpu_s(), time.perf_counter()
        answer = one_round()
        spent = {"cpu_s": cpu_s() - cpu, "wall_s": time.perf_counter() - wall}
        print(json.dumps({**spent, "load": os.getloadavg()[0], **answer}), file=answers)


def cpu_s() -> float:
    """CPU seconds so far of this process, its children that live and those that have ended."""
    process = psutil.Process()
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def peak_mib() -> float:
    """This program's peak; `ru_maxrss` would begin with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def compare(
    script: str,
    ways: Mapping[str, str],
    arguments: list[str],
    rounds: int,
    programs: Mapping[str, list[str]] | None = None,
) -> dict[str, Any]:
    """Run every way `rounds` times in turn; the answers by way, start-up first in `start_s`.

    programs: commands of ways that another program than `script` serves, as `serve` does.
    """
    children = {}
    report: dict[str, Any] = {}
    for way in ways:
        # As a module: a script's own folder would come first, and has a store.py of its own.
        command = [
            sys.executable,
            "-m",
            f"benchmarks.{Path(script).stem}",
            "--way",
            way,
            *arguments,
        ]
        child = subprocess.Popen(
            (programs or {}).get(way, command),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not os.environ.get("BENCH_VERBOSE") else None,
            text=True,
        )
        # One after the other: start-up is measured too.
        report[way] = {"start_s": _answer(way, child)["start_s"], "rounds": []}
        children[way] = child
        print(f"  {way}: started in {report[way]['start_s']:.1f} s", file=sys.stderr)
    for number in range(rounds):
        order = list(ways) if number % 2 == 0 else list(ways)[::-1]
        for way in order:
            child = children[way]
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
            report[way]["rounds"].append(_answer(way, child))
        if (number + 1) % max(1, rounds // 20) == 0:
            print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    for child in children.values():
        assert child.stdin is not None
        child.stdin.close()
        child.wait(60)
    return report


def _answer(way: str, child: subprocess.Popen[str]) -> dict[str, float]:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise SystemExit(
            f"{way} ended with status {child.wait()}: set BENCH_VERBOSE=1 to see what it said"
        )
    answer: dict[str, float] = json.loads(line)
    return answer


def rates(report: Mapping[str, Any], way: str, name: str = "rate") -> list[float]:
    """One way's figures over the rounds."""
    return [answer[name] for answer in report[way]["rounds"]]


def table(report: Mapping[str, Any], ways: Mapping[str, str], unit: str, ours: str) -> str:
    """A Markdown table: median, range, start-up, and how much faster `ours` was, round by round."""
    lines = [
        f"| way | {unit} | range | ours is × | by CPU time × | start s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way, text in ways.items():
        if way not in report:
            continue
        values = rates(report, way)
        lines.append(
            f"| {text} | {statistics.median(values):.1f} | {min(values):.1f}–{max(values):.1f} "
            f"| {ratio(report, ours, way):.2f} | {cpu_ratio(report, ours, way):.2f} "
            f"| {report[way]['start_s']:.1f} |"
        )
    return "\n".join(lines)


def ratio(report: Mapping[str, Any], one: str, other: str) -> float:
    """The median over the rounds of one way's rate over another's in the same round."""
    pairs = zip(rates(report, one), rates(report, other), strict=True)
    return statistics.median(a / b for a, b in pairs)


def cpu_ratio(report: Mapping[str, Any], one: str, other: str) -> float:
    """The same by CPU time: work per CPU second of one way over another's."""
    pairs = zip(_by_cpu(report, one), _by_cpu(report, other), strict=True)
    return statistics.median(a / b for a, b in pairs)


def _by_cpu(report: Mapping[str, Any], way: str) -> list[float]:
    return [a["rate"] * a["wall_s"] / a["cpu_s"] for a in report[way]["rounds"]]


def save(name: str, report: Mapping[str, Any]) -> None:
    """Write `results/NAME.json`, with the machine and the versions beside the figures.

    Every benchmark has a `shown(report)` that makes Markdown of what was kept, for the terminal and
    for `docs/performance.md` alike.
    """
    from pipeline import engine
    from pipeline.features.backbones.openvino_engine import openvino_software

    machine = {
        "cores": engine.cores(),
        "cpu": next(
            (
                line.split(":", 1)[1].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.processor(),
        ),
        "python": platform.python_version(),
        "load_15_min": os.getloadavg()[2],
        **engine.software(),
        **openvino_software(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine, **report}, indent=1) + "\n")
    print(f"written to {path}", file=sys.stderr)


def kept(name: str) -> dict[str, Any]:
    """What a benchmark has left in its file; empty where it was never run."""
    path = RESULTS / f"{name}.json"
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return figures
