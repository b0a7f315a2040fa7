"""What stands beside Ray Data, as far as it needs no Ray: what is watched, read, counted and shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from benchmarks import beside_others, ray_data, ray_data_job
from benchmarks.ray_data_ways import Job, agreement, of_course, rows_of
from pipeline.features.decoding import FramePlan, read_clip
from pipeline.features.demo import write_clip
from pipeline.spec import Spec

ROOT = Path(__file__).parents[1]
BURN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass"
PARENT = (
    "import subprocess, sys\n"
    "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], 'the-child'])\n"
    "print({})"
)
WATCHER = """
import dataclasses, json, os, sys
from benchmarks import watched
strike, patience, parent, child = json.loads(sys.argv[1])
watched.PATIENCE_S = patience
ended = watched.watched(
    [sys.executable, "-c", parent, child],
    env=dict(os.environ),
    roles={"child": lambda words: words.endswith("the-child")},
    strike=watched.Strike(**strike) if strike else None,
)
print(json.dumps(dataclasses.asdict(ended)))
"""


def seen(parent: str, child: str, *, patience: float = 30, **strike: Any) -> dict[str, Any]:
    """What is seen of a process and its child, in a process that has no other children."""
    order = json.dumps([strike, patience, parent, child])
    done = subprocess.run(
        [sys.executable, "-c", WATCHER, order], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ended: dict[str, Any] = json.loads(done.stdout)
    return ended


def test_what_a_command_and_its_children_spend_is_counted() -> None:
    ended = seen(PARENT.format("child.wait()"), BURN.format(1.0))
    assert (ended["status"], ended["out"], ended["killed"], ended["left"]) == (0, "0\n", 0, [])
    assert 0.5 < ended["role_cpu_s"]["child"] <= ended["cpu_s"]
    assert ended["peak_mib"] > 5


def test_the_process_of_a_role_is_killed_once_it_has_spent_enough() -> None:
    strike = {"victims": "child", "clock": "child", "after_cpu_s": 0.3}
    ended = seen(PARENT.format("child.wait()"), BURN.format(60), **strike)
    assert (ended["status"], ended["out"], ended["killed"]) == (0, "-9\n", 1)
    assert ended["role_cpu_s"]["child"] >= 0.3


def test_what_outlives_a_command_is_named_and_ended() -> None:
    ended = seen(PARENT.format("child.pid"), "import time; time.sleep(600)", patience=0.5)
    assert [words.split()[-1] for words in ended["left"]] == ["the-child"]
    assert not psutil.pid_exists(int(ended["out"]))


def test_steady_is_from_the_first_frames_to_the_last() -> None:
    course = [(1.0, 0), (5.0, 100), (6.0, 200), (9.0, 500), (12.0, 500)]
    assert of_course(course) == {"frames": 500, "first_s": 5.0, "steady_fps": 100.0}
    assert of_course([])["steady_fps"] == 0.0


def test_rows_that_are_there_twice_and_rows_with_an_error_are_told_apart(tmp_path: Path) -> None:
    for number, counts in enumerate([[40, 0], [40, 12]]):
        table = pd.DataFrame({"path": ["a.mp4", f"{number}.mp4"], "count": counts})
        table.to_parquet(tmp_path / f"{number}.parquet")
    found = rows_of(Job(way="plain", videos=tmp_path, out=tmp_path))
    assert found == {"rows": 4, "clips": 3, "good": 2, "errors": 1}
    none = rows_of(Job(way="plain", videos=tmp_path, out=tmp_path / "not there"))
    assert none == {"rows": 0, "clips": 0, "good": 0, "errors": 0}


def test_agreement_is_the_cosine_of_each_step() -> None:
    one = np.eye(3, 2048, dtype=np.float32)
    turned = one.copy()
    turned[2] = np.eye(4, 2048, dtype=np.float32)[3]
    assert agreement({"a": one}, {"a": 2 * one})["least"] == pytest.approx(1)
    assert agreement({"a": one}, {"a": turned}) == {
        "clips": 1, "mean": pytest.approx(2 / 3), "least": pytest.approx(0),
    }  # fmt: skip


@pytest.mark.parametrize("count", [30, 100])
def test_rays_job_reads_the_frames_that_ours_reads(tmp_path: Path, count: int) -> None:
    path = tmp_path / "clip.mp4"
    # A frame is two levels brighter than the one before.
    frames = np.arange(count, dtype=np.uint8)[:, None, None, None] * 2 + 30
    write_clip(path, np.broadcast_to(frames, (count, 112, 112, 3)))
    ours = read_clip(str(path), FramePlan.of(Spec())).frames
    theirs = ray_data_job.read_frames(str(path))
    assert theirs.shape == ours.shape
    assert np.abs(theirs.astype(int) - ours).max() < 2


def test_rays_job_says_of_a_broken_clip_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frame"):
        ray_data_job.read_frames(str(tmp_path / "missing.mp4"))
    (tmp_path / "empty.mp4").touch()
    row = ray_data_job.decode_one({"path": str(tmp_path / "empty.mp4")})
    assert row["count"] == 0
    assert "no frame" in row["error"]


def one_run(seconds: float, **changed: Any) -> dict[str, Any]:
    rows = {"rows": 24, "clips": 24, "good": 24, "errors": 0}
    costs = {"wall_s": seconds, "cpu_s": 2 * seconds, "peak_mib": 1000 * seconds}
    course = {"frames": 960, "first_s": 1.0, "steady_fps": 960 / seconds}
    return {"status": 0, "rows": rows, "left_behind": [], **costs, **course, **changed}


def figures() -> dict[str, Any]:
    seconds = {"ours": 4.0, "tuned": 6.0, "plain": 8.0}
    runs = {way: [one_run(s), one_run(2 * s)] for way, s in seconds.items()}
    doubled = {"rows": 48, "clips": 24, "good": 24, "errors": 0}
    lost = {"rows": 21, "clips": 21, "good": 21, "errors": 0}
    again = {
        "ours": [one_run(0.5, frames=0)],
        "tuned": [one_run(3.0, frames=0)],
        "plain": [one_run(8.0, rows=doubled)],
    }
    ours, tuned = one_run(6.0), one_run(9.0)
    events = {
        "model": {"ours": one_run(9.0), "ours, batches of 8": one_run(7.5), "plain": one_run(12)},
        "decoder": {"ours": ours, "tuned": tuned},
        "command": {
            "plain": {
                "first": one_run(4.0, left_behind=["raylet"]),
                "next": one_run(8.0, rows=doubled),
            },
        },
        "broken": {
            "ours": one_run(6.0, rows={"rows": 26, "clips": 26, "good": 24, "errors": 2}),
            "plain": one_run(2.0, status=1, rows={"rows": 0, "clips": 0, "good": 0, "errors": 0}),
            "plain, max_errored_blocks": one_run(8.0, rows=lost),
        },
    }
    return {
        "clips": 24, "rounds": runs, "again": again, "events": events,
        "changed": {"ours": one_run(2.0, frames=40), "tuned": one_run(2.0, frames=0)},
        "agreement": {"tuned": {"least": 0.9999}, "plain": {"least": 0.9998}},
        "machine": {"cores": 2}, "versions": {"ray": "2.60.0"},
    }  # fmt: skip


def test_the_tables_have_what_was_measured() -> None:
    shown = ray_data.shown(figures())
    assert "| clips/s, whole command | 4.00 | 2.67 | 2.00 |" in shown
    assert "| frames/s, steady | 180 | 120 | 90 |" in shown
    # 1.5 times an undisturbed run of the same way, whatever the batches.
    assert "| the process with the CNN | ours | done | 24 of 24 | 1.50 | 1.50 |" in shown
    assert "| ours, `--batch 8` | done | 24 of 24 | 1.25 | 1.25 |" in shown
    assert "| Ray Data, plain | 24 | 24 of 24 | 24 | 960 of 960 | 1.00 | 1 |" in shown
    assert "| ours | done | 24 of 24 | 2 rows that say why |" in shown
    assert "| Ray Data, plain | failed, after 2 s | 0 of 24 | in the log alone |" in shown
    assert "| done | 21 of 24 | in the log alone |" in shown


def test_the_page_gets_its_figures_between_its_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "beside-others.md").read_text(encoding="utf-8")
    monkeypatch.setattr(beside_others, "kept", lambda name: {})
    assert beside_others.with_figures(page) == page
    monkeypatch.setattr(beside_others, "kept", lambda name: figures())
    written = beside_others.with_figures(page)
    assert "| frames/s, steady | 180 | 120 | 90 |" in written
    assert "| ours | 0.5 | 1.0 | 0 of 960 | 0 | 40 |" in written
    assert "the least cosine of two vectors of one step is 0.99980" in written
    assert "def plain(" in written
    assert beside_others.with_figures(written) == written
    assert written.count("<!-- end -->") == page.count("<!-- end -->") == 7


def test_without_ray_it_says_so_and_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIXELS_ONCE_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["ray_data", "--ray-python", ""])
    ray_data.main()
    assert capsys.readouterr().out.startswith("skipped: no environment with Ray Data")
    assert not any(tmp_path.iterdir())
