"""A run from clips to a store, as a user starts it."""

from __future__ import annotations

import numpy as np

import store
from tests.flows import running

FRAMES = ("--backbone", "frames", "--frames", "4", "--batch", "4")


def test_a_run_makes_every_clip_and_a_second_finds_nothing_to_do(prefect_api, clips, tmp_path):
    words = ("features", "--videos", str(clips), "--store", "s.zarr", *FRAMES, "--json")
    first = running.run(*words, cwd=tmp_path)
    assert first.status == 0, first.err
    assert (first.json["outcome"], first.json["ready"], first.json["failed"]) == ("done", 12, 0)
    made = store.open(str(tmp_path / "s.zarr"))
    assert made.counts() == {"pending": 0, "ready": 12, "failed": 0, "gone": 0}
    assert made.classes == ["Jump", "Walk"]
    assert (np.diff(made.steps_of(range(12))[0], axis=1) > 0).all()
    assert store.verify(made.url).ok
    again = running.run(*words, cwd=tmp_path)
    assert again.status == 0, again.err
    assert again.json["outcome"] == "nothing to do"
    assert again.json["planned"] == 0
