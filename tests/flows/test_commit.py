"""What the flow takes from a batch's result into the store, without a worker; where a cluster listens."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import numpy as np
import pytest

import store
from flows.extract import cluster
from flows.extract.artifacts import markdown
from flows.extract.batches import BatchResult
from flows.extract.commit import Committer, Totals
from flows.extract.dispatch import Task
from flows.extract.loop import BatchLoop
from flows.extract.progress import Progress
from flows.extract.summary import Summary, shown
from tests.store.stores import clips, create, features_of, filled

SPENT = ({"decode": 1.0, "cnn": 2.0}, {"decode": 4.0, "cnn": 2.5})


def result(rows: list[int], status: list[str], **more: Any) -> BatchResult:
    """The result of the first batch: of rows 0 to 3, those that were to be made."""
    made = np.array([state == "ready" for state in status])
    mask = made[:, None] & np.array([True, True, False])
    given: dict[str, Any] = {
        "number": 0,
        "first_row": 0,
        "rows": np.array(rows),
        "status": status,
        "reason": ["unreadable" if state == "failed" else "" for state in status],
        "detail": ["no decoder" if state == "failed" else "" for state in status],
        "mask": mask,
        "frame_index": np.where(mask, [0, 7, 0], -1),
        "timestamp": np.where(mask, [0, 0.5, 0], np.nan),
        "columns": {"sha256": [f"{row:064x}" for row in rows], "frames_decoded": [9] * len(rows)},
        "digests": store.row_digests(features_of(range(4))),
        "damaged": [],
        "worker": "one",
        "worker_seconds": SPENT,
        "write_s": 0.25,
    }
    return BatchResult(**(given | more))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store of four clips of which none is made."""
    made = create(str(tmp_path / "clips.zarr"))
    with store.Writer.acquire(made, owner="test") as writer:
        writer.append(clips(4))
    return made


def test_ready_failed_and_stopped_clips_of_a_batch_are_told_apart(url: str) -> None:
    with store.Writer.acquire(url, owner="test") as writer:
        committer = Committer(writer)
        committer.accept(result([0, 1, 2], ["ready", "failed", "stopped"]))
        committer.flush([])
        totals = committer.close()
    table = store.open(url).table()
    assert table["state"].astype(str).tolist() == ["ready", "failed", "pending", "pending"]
    assert table["reason"].tolist() == ["", "unreadable", "", ""]
    assert table["frames_decoded"].tolist() == [9, 9, -1, -1]
    digests = store.open(url).digests(range(4))
    np.testing.assert_array_equal(digests[:2], store.row_digests(features_of([0, 1])))
    assert not digests[2:].any(), "of rows that were not made"
    assert (totals.ready, totals.failed, totals.stopped, totals.frames) == (1, 1, 1, 2)
    assert totals.failures == [
        {"row": 1, "video_id": "a b/clip-1 🎬.avi", "reason": "unreadable", "detail": "no decoder"}
    ]


def test_clips_count_once_whether_their_events_come_before_their_batch_after_it_or_never(url: str):
    made = result([0, 1, 2, 3], ["ready", "failed", "ready", "stopped"])
    scheduler = SimpleNamespace(identity=lambda n_workers: {"workers": {}})
    client = SimpleNamespace(scheduler=scheduler, sync=lambda call, **options: call(**options))
    with store.Writer.acquire(url, owner="test") as writer, Progress(4) as progress:
        loop = BatchLoop(
            writers=[writer],
            runner=SimpleNamespace(client=client),
            workforce=None,
            progress=progress,
            run_id="run",
            gpu="never",
            cancelled=threading.Event(),
        )
        early, late = ((0.0, {"clips": [(0, row, "ready", 2)]}) for row in (0, 2))
        loop._on_event(early)
        loop._accept(Task(number=0, batches=[], workers=None, left={(0, 0): Any}), made)
        loop._on_event(late)
        assert (progress.done, progress.failed, progress.frames) == (3, 1, 4)


def test_what_is_new_is_committed_soon_and_nothing_rarely(url: str) -> None:
    with store.Writer.acquire(url, owner="test") as writer:
        committer = Committer(writer)

        def is_due_after(seconds: float) -> bool:
            committer._committed_at = time.monotonic() - seconds
            return committer.is_due

        assert not is_due_after(4.5)
        assert is_due_after(5.0)
        committer.accept(result([0], ["ready"]))
        assert not is_due_after(0.2)
        assert is_due_after(0.5)
        committer._took_s = 0.04  # a fiftieth of two seconds
        assert not is_due_after(1.5)
        assert is_due_after(2.0)
        committer.flush([])
        assert not is_due_after(4.5)


def test_nothing_is_committed_before_the_flush(url: str) -> None:
    with store.Writer.acquire(url, owner="test") as writer:
        committer = Committer(writer)
        committer.accept(result([0], ["ready"]))
        assert store.open(url).counts()["ready"] == 0
        committer.flush([1])
        assert store.open(url).counts()["ready"] == 1
        with pytest.raises(store.StoreBusy):
            store.Writer.acquire(url, owner="other")


def test_kept_rows_that_were_found_damaged_are_sent_back(tmp_path: Path) -> None:
    url = filled(str(tmp_path / "clips.zarr"))
    with store.Writer.acquire(url, owner="test") as writer:
        committer = Committer(writer)
        committer.accept(result([0], ["ready"], damaged=[2]))
        committer.flush([])
        assert committer.totals.damaged == [2]
    states = store.open(url).table()["state"].astype(str)
    assert states[:4].tolist() == ["ready", "ready", "pending", "ready"]


def test_a_warning_of_a_ready_row_is_counted_and_is_no_failure(url: str) -> None:
    with store.Writer.acquire(url, owner="test") as writer:
        committer = Committer(writer)
        committer.accept(result([0, 1], ["ready", "ready"], reason=["fewer_frames", ""]))
    assert committer.totals.warnings == {"fewer_frames": 1}
    assert committer.totals.failures == []


def test_the_seconds_of_a_worker_count_from_its_first_batch_to_its_last(url: str) -> None:
    later = ({"decode": 3.0, "cnn": 2.2}, {"decode": 9.0, "cnn": 3.0})
    with store.Writer.acquire(url, owner="test") as writer:
        committer = Committer(writer)
        # Two batches at once on one worker share its seconds; another worker's are added.
        committer.accept(result([0], ["ready"]))
        committer.accept(result([1], ["ready"], worker_seconds=later))
        committer.accept(result([2], ["ready"], worker="two"))
    assert committer.close().stage_seconds == pytest.approx({"decode": 8 + 3, "cnn": 1 + 0.5})
    assert committer.totals.write_s == pytest.approx(0.75)


def test_the_totals_of_two_passes_add_up() -> None:
    total = Totals(ready=1, damaged=[3], stage_seconds={"cnn": 1.0}, software={"engine": "a"})
    total.add(Totals(ready=2, failed=1, stage_seconds={"cnn": 2.0, "decode": 1.0}))
    total.add(Totals(stopped=1, stopped_by="SIGINT", damaged=[4]))
    assert (total.ready, total.failed, total.stopped, total.damaged) == (3, 1, 1, [3, 4])
    assert total.stage_seconds == {"cnn": 3.0, "decode": 1.0}
    assert (total.stopped_by, total.software) == ("SIGINT", {"engine": "a"})


@pytest.mark.parametrize("name", [item.name for item in fields(Totals)])
def test_no_total_is_lost_where_passes_are_added(name: str) -> None:
    """A fact that counts over batches is one more field here, and nothing else."""
    old = getattr(Totals(), name)
    values = {int: 2, float: 0.5, str: "x", list: [3], dict: {"a": 1}, Counter: Counter(a=1)}
    new = values[type(old)]
    total, later = Totals(**{name: new}), Totals()
    later.add(total)
    assert getattr(later, name) == new
    later.add(Totals())
    assert getattr(later, name) == new


def test_a_total_that_a_summary_has_too_is_its_fact() -> None:
    facts = Totals(ready=1, frames=40, commit_s=2.0).facts()
    assert (facts["ready"], facts["frames"]) == (1, 40)
    assert facts.keys() == {item.name for item in fields(Totals)} & {
        item.name for item in fields(Summary)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _MoreFacts(Summary):
    read: int = field(default=0, metadata=shown("frames read"))
    hours: float = field(default=0.0, metadata=shown("hours of video"))
    whole: bool = field(default=False, metadata=shown("whole folder"))


def test_every_fact_with_a_label_is_on_the_runs_page_whatever_its_type() -> None:
    page = markdown(
        _MoreFacts(store="a.zarr", outcome="done", clips=5, read=900, hours=1.25, whole=True)
    )
    assert "| this run | count |" in page  # not all that is counted are clips
    assert "| frames read | 900 |" in page
    assert "| hours of video | 1.25 |" in page
    assert "whole folder: `True`" in page


@pytest.mark.parametrize("gpus", [[], ["0", "1"]], ids=["cpu", "gpus"])
def test_all_of_a_local_cluster_is_bound_to_loopback(
    gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "SpecCluster", lambda **options: options)
    made: Any = cluster.local_cluster(2, gpus, threads=2)
    parts = [made["scheduler"], *made["workers"].values()]
    assert len(parts) == 3
    for part in parts:
        assert (part["options"]["host"], part["options"]["protocol"]) == ("127.0.0.1", "tcp://")
        assert part["options"]["dashboard_address"].startswith("127.0.0.1:")
