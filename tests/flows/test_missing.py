"""One clip that is not there costs only itself, wherever it stands in the list."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import store
from tests.faults.breaking import finished_here


@pytest.mark.long
def test_the_lowest_clip_may_be_missing_or_no_file(clips: Path, tmp_path: Path) -> None:
    """Twice: a missing clip is tried again by itself, and is then the lowest row to make."""
    shutil.copytree(clips, tmp_path / "clips")
    os.mkfifo(tmp_path / "clips" / "fifo.mp4")
    names = sorted(path.relative_to(clips).as_posix() for path in clips.rglob("*.mp4"))
    manifest = tmp_path / "clips" / "list.csv"
    url = tmp_path / "s.zarr"
    for count in (4, 6):
        lines = ["path,label", "absent.mp4,Jump", "fifo.mp4,Walk"]
        lines += [f"{name},{name.split('/')[0]}" for name in names[:count]]
        manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
        done = finished_here(manifest, url)
        assert done.status == 0, done.err
        table = store.open(str(url)).table()
        reasons = dict(zip(table["video_id"], table["reason"], strict=True))
        assert reasons["absent.mp4"] == "missing"
        assert reasons["fifo.mp4"] == "unreadable"
        assert (table["state"] == "ready").sum() == count
