"""A run from clips to a store, as a user starts it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterName,
    LogFilter,
    LogFilterFlowRunId,
)

import store
from tests.flows import running

FRAMES = ("--backbone", "frames", "--frames", "4", "--batch", "4")


def test_a_run_makes_every_clip_and_a_second_finds_nothing_to_do(prefect_api, clips, tmp_path):
    shutil.copytree(clips, tmp_path / "clips")
    (tmp_path / "clips" / "Walk" / "broken.mp4").write_bytes(b"no clip")
    words = ("features", "--videos", "clips", "--store", "every.zarr", *FRAMES, "--json")
    first = running.run(*words, cwd=tmp_path)
    assert first.status == 0, first.err
    assert (first.json["outcome"], first.json["ready"], first.json["failed"]) == ("done", 12, 1)
    made = store.open(str(tmp_path / "every.zarr"))
    assert made.counts() == {"pending": 0, "ready": 12, "failed": 1, "gone": 0}
    assert made.classes == ["Jump", "Walk"]
    ready = np.flatnonzero(made.table()["status"] == store.READY)
    assert (np.diff(made.steps_of(ready)[0], axis=1) > 0).all()
    assert store.verify(made.url).ok
    said = log_lines(tmp_path / "every.zarr")
    assert any(line.startswith("Walk/broken.mp4 failed (row ") for line in said), said
    assert any("Jump/v_Jump_g01_c01.mp4 and 3 more: 4 ready" in line for line in said), said
    # A proxy that nobody answers at, and no word of what is not to be asked there.
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    nowhere |= {"no_proxy": "", "NO_PROXY": ""}
    again = running.run(*words, cwd=tmp_path, env=nowhere)
    assert again.status == 0, again.err
    assert again.json["outcome"] == "nothing to do"
    assert again.json["planned"] == 0


def log_lines(url: Path) -> list[str]:
    """What the run that made this store has logged on its page, by whichever process."""
    with SyncPrefectClient(running.api_url()) as client:
        named = FlowRunFilter(name=FlowRunFilterName(like_=url.name))
        (made,) = client.read_flow_runs(flow_run_filter=named, limit=1)
        mine = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[made.id]))
        return [line.message for line in client.read_logs(log_filter=mine)]
