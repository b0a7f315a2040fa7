"""Nothing of ours or of what we depend on talks to the network by itself."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_ADDRESS = re.compile(
    r'sin6?_port=htons\((?P<port>\d+)\).*?inet_(?:addr\(|pton\(AF_INET6, )"(?P<host>[^"]+)"'
)
_HERE = re.compile(r"127\.|::1$|::ffff:127\.|0\.0\.0\.0$|::$")  # the last two mean this host

_EXPORT = """
import atexit, os, sys
calls = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        calls.append((event, arguments[-1] if event == "socket.connect" else arguments[:2]))
sys.addaudithook(hook)
atexit.register(lambda: print(calls, os.path.exists(os.path.expanduser("~/intel"))))
from pipeline.heads.export import export_run
from pipeline.openvino_runtime import openvino
from tests.heads.test_export import run_of
export_run(run_of("gru"), sys.argv[1], format="openvino")
read = openvino().Core().read_model(sys.argv[1])
assert sorted(entry.any_name for entry in read.inputs) == ["features", "mask"]
"""


def environment(home: Path) -> dict[str, str]:
    """A user's first day: an empty home, and no variable that would keep a package quiet."""
    kept = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
    }


@pytest.mark.long
def test_an_export_to_openvino_is_kept_from_reporting(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("tensorflow")
    done = subprocess.run(
        [sys.executable, "-c", _EXPORT, str(tmp_path / "model.xml")],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "[] False"


class Recorder:
    """Runs commands under `strace`, which sees every process that they start, in any language.

    They run on a terminal: some packages report only what a person does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *program: str, env: dict[str, str]) -> tuple[int, str, set[str]]:
        """Exit status, output, and the foreign addresses that the whole tree tried to reach."""
        log = self.folder / "strace.log"
        calls = "trace=connect,sendto,sendmsg,sendmmsg"
        options = ["-f", "--seccomp-bpf", "-qq", "-s", "0", "-e", calls, "-e", "signal=none"]
        terminal, ours = pty.openpty()
        process = subprocess.Popen(
            ["strace", *options, "-o", str(log), *program],
            env=env,
            cwd=self.folder,
            stdin=ours,
            stdout=ours,
            stderr=ours,
        )
        os.close(ours)
        said = b""
        with contextlib.suppress(OSError):  # a terminal's end is an error on Linux
            while part := os.read(terminal, 1 << 16):
                said += part
        os.close(terminal)
        lines = log.read_text(errors="replace").splitlines()
        found = {f"{m['host']}:{m['port']}" for line in lines for m in _ADDRESS.finditer(line)}
        foreign = {address for address in found if not _HERE.match(address.rsplit(":", 1)[0])}
        return process.wait(), said.decode(errors="replace"), foreign


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    can = shutil.which("strace") and subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-o", os.devnull, "true"], capture_output=True
    )
    if not can or can.returncode:
        pytest.skip("strace is not installed, or may not trace here")
    return Recorder(tmp_path)


def test_the_recorder_sees_a_grandchild_that_speaks_to_another_host(
    recorder: Recorder, tmp_path: Path
) -> None:
    # 192.0.2.1 is nobody's: a datagram socket may be connected to it without sending anything.
    speak = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {speak!r}])"
    _, _, found = recorder.run(sys.executable, "-c", code, env=environment(tmp_path))
    assert found == {"192.0.2.1:9"}


_COMMANDS = (
    "features --backbone mobilenet --weights random --store s.zarr",
    "train --store s.zarr --head gru --units 8 --epochs 1 --name a",
    "predict --run runs/a --video demo-clips",
    "export --run runs/a --format openvino",
    "report --store s.zarr --runs runs",
    "similar --store s.zarr",
    "verify --store s.zarr --sample 2",
    "doctor --weights random",
    "scan --videos demo-clips",
    "compare",
    "show --store s.zarr",
)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_first_day_opens_no_connection_to_another_host(
    recorder: Recorder, tmp_path: Path
) -> None:
    for words in _COMMANDS:
        status, said, found = recorder.run(
            sys.executable, "-m", "flows", *words.split(), env=environment(tmp_path)
        )
        assert status == 0, f"{words}: {said[-2000:]}"
        assert not found, f"{words} reached for {found}"
    assert not (tmp_path / "intel").exists()
