"""Programs that end when the process that started them ends, however that happens.

`python -m flows.server.guard PARENT_PID PROGRAM ARG…` asks the kernel (Linux) for a SIGTERM at the
parent's death, then becomes the program. So even a SIGKILL of a run leaves no server behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1


def start(program: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program of Python's that ends with this process; `options` are those of `Popen`."""
    guard = [sys.executable, "-m", "flows.server.guard", str(os.getpid())]
    return subprocess.Popen([*guard, *program], stdin=subprocess.DEVNULL, **options)


def stop(process: subprocess.Popen[bytes], within_s: float) -> None:
    """End a process by SIGTERM, or if it has not ended in time by SIGKILL."""
    process.terminate()
    try:
        process.wait(timeout=within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main(arguments: list[str]) -> None:
    """Become `arguments[1:]`, tied to the life of the process `arguments[0]`."""
    parent, program = int(arguments[0]), arguments[1:]
    # A terminal's Ctrl-C goes to every process of the group; the parent decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we could ask
        sys.exit(1)
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
