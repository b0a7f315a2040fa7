"""What a run listens on: this machine's loopback, and nothing else, in all of its processes."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.faults.breaking import command_line, family, features, workers
from tests.flows import running
from tests.waiting import wait_until


def listening(pid: int) -> dict[str, set[str]]:
    """Addresses that a process and its descendants accept connections or datagrams at, by command."""
    found: dict[str, set[str]] = {}
    for process in family(pid):
        try:
            sockets = process.net_connections(kind="inet")
            name = " ".join(process.cmdline())[:160]
        except psutil.Error:
            continue
        for socket in sockets:
            bound = socket.status == psutil.CONN_LISTEN or (not socket.raddr and socket.laddr)
            if bound and socket.laddr:
                found.setdefault(name, set()).add(socket.laddr.ip)
    return found


@pytest.mark.skipif(os.name != "posix", reason="reads the process table")
@pytest.mark.long
def test_a_run_listens_on_loopback_only(prefect_api: str, clips: Path, tmp_path: Path) -> None:
    url = tmp_path / "s.zarr"
    # Every decoder hangs, so that the run stays as it is; a temporary server of its own is part of it.
    env = {"PIXELS_ONCE_FAULTS": json.dumps({"*": "hang"}), "PREFECT_API_URL": ""}
    process = features(clips, url, "--workers", "2", env=env)
    try:
        wait_until(
            lambda: (
                len([w for w in workers(process.pid) if w.net_connections(kind="inet")]) >= 2
                and any("decoding.child" in command_line(p) for p in family(process.pid))
            ),
            process,
        )
        found = listening(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        running.finish(process)
    assert len(found) >= 3, found  # the flow with its scheduler, the server, the workers
    outside = {
        name: ips
        for name, ips in found.items()
        if any(not ipaddress.ip_address(ip).is_loopback for ip in ips)
    }
    assert not outside
