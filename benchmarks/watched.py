"""Runs a command, counts what all of its processes spend, and kills one of them in mid-run if asked."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
SUBREAPER = 36  # prctl: orphans below this process become its children
LOOK_S = 0.2
MEMORY_EVERY = 5
"""Looks from one sum of all memory to the next, which takes milliseconds a process."""
PATIENCE_S = 30.0
"""How long what a command leaves behind may take to end before it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A SIGKILL in mid-run.

    victims: the role of a process that is to die. clock, after_cpu_s: once a process of this role has
    spent so much CPU time, the next victim that is seen dies. CPU time says how far a run is, however
    busy the machine.
    """

    victims: str
    clock: str
    after_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended.

    cpu_s: of all processes, as last seen: not all of Ray's hand theirs on to a parent. peak_mib: the
    largest sum of PSS that was seen, in which memory that processes share counts once. role_cpu_s:
    of the process of each role that spent most. killed: processes that were struck. left: command
    lines of those that outlived the command for `PATIENCE_S`.
    """

    status: int
    began: float
    wall_s: float
    cpu_s: float
    peak_mib: float
    role_cpu_s: dict[str, float]
    killed: int
    left: list[str]
    out: str
    err: str


def watched(
    command: list[str],
    *,
    env: Mapping[str, str],
    roles: Mapping[str, Callable[[str], bool]],
    strike: Strike | None = None,
    limit_s: float = 900.0,
) -> Ended:
    """Run a command to its end, and all that it has started.

    roles: whether a process, by its command line, has a role. Raises `SystemExit` if the command takes
    longer than `limit_s`.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began, clock = time.time(), time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=err)
        peak, killed, looks = 0.0, 0, 0
        cpu: dict[psutil.Process, float] = {}
        spent = dict.fromkeys(roles, 0.0)
        while process.poll() is None:
            seen = dict(_family())
            if looks % MEMORY_EVERY == 0:
                peak = max(peak, _pss_mib(list(seen)))
            looks += 1
            cpu |= {one: _cpu_s(one, cpu.get(one, 0.0)) for one in seen}
            cast = {
                role: [one for one, words in seen.items() if plays(words)]
                for role, plays in roles.items()
            }
            for role, players in cast.items():
                spent[role] = max([spent[role], *(cpu[one] for one in players)])
            if strike and not killed and spent[strike.clock] >= strike.after_cpu_s:
                killed = _kill(cast[strike.victims])
            if time.perf_counter() - clock > limit_s:
                _end_all()
                raise SystemExit(f"did not end within {limit_s:.0f} s: {' '.join(command[:4])} …")
            time.sleep(LOOK_S)
        wall = time.perf_counter() - clock
        left = _end_all()
        out.seek(0)
        err.seek(0)
        return Ended(
            status=process.returncode,
            began=began,
            wall_s=wall,
            cpu_s=sum(cpu.values()),
            peak_mib=peak,
            role_cpu_s=spent,
            killed=killed,
            left=left,
            out=out.read(),
            err=err.read(),
        )


def _family() -> Iterator[tuple[psutil.Process, str]]:
    """Everything below this process, with its command line."""
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            yield one, " ".join(one.cmdline())


def _pss_mib(processes: list[psutil.Process]) -> float:
    total = 0
    for one in processes:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return total / 1024


def _cpu_s(process: psutil.Process, before: float) -> float:
    """CPU seconds of a process so far; as before where it has just ended."""
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return max(before, float(times.user + times.system))
    return before


def _kill(processes: list[psutil.Process]) -> int:
    """Kill the first of them that is still there."""
    for one in processes:
        with contextlib.suppress(psutil.Error):
            one.kill()
            return 1
    return 0


def _end_all() -> list[str]:
    """Wait for all that is left below this process, then kill it; what had to be killed."""
    deadline = time.perf_counter() + PATIENCE_S
    while _alive() and time.perf_counter() < deadline:
        time.sleep(LOOK_S)
    left = [words for _, words in _family() if words]
    for one in _alive():
        with contextlib.suppress(psutil.Error):
            one.kill()
    while _alive():
        time.sleep(LOOK_S)
    return left


def _alive() -> list[psutil.Process]:
    """Living processes below this one; of those that have ended, its own children are waited for."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
            elif one.ppid() == os.getpid():
                os.waitpid(one.pid, os.WNOHANG)
    return found
