"""Which process a run is of: nothing is said of processes that cannot be seen from here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flows.server import processes


def test_a_process_that_ended_is_gone_and_one_that_lives_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        labels = processes.identity(process.pid)
        assert not processes.has_gone(labels)
    assert processes.has_gone(labels)


@pytest.mark.parametrize(("machine_id", "gone"), [("0123abcd", True), ("", False)])
def test_another_boot_is_of_this_machine_only_where_the_machine_has_an_id(
    monkeypatch: pytest.MonkeyPatch, machine_id: str, gone: bool
) -> None:
    machine = {"host": f"worker/{machine_id}", "boot": "one", "processes": "pid:[1]"}
    monkeypatch.setattr(processes, "_machine", lambda: machine)
    labels = processes.identity()
    monkeypatch.setattr(processes, "_machine", lambda: machine | {"boot": "two"})
    assert processes.has_gone(labels) == gone
