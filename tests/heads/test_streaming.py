"""A store larger than memory trains the head that it would train from memory, or stops and says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import store
from pipeline.errors import ConfigError
from pipeline.heads import clips as clips_module
from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.order import BLOCK, pieces, shuffled
from pipeline.heads.training import train
from tests.flows.stores import rising_or_falling as real_store
from tests.heads.sources import MemorySource, Sequences, rising_or_falling
from tests.heads.test_identity import result_of

DRAWS = False
CONFIG = TrainConfig(
    head="mlp",
    options={"units": 8},
    epochs=2,
    split="grouped",
    feature_dropout=0.1,
    step_jitter=1,
    baselines=False,
)


class Losing(MemorySource):
    """A source that leaves rows out, as a store does whose rows are being written: after `calm` reads."""

    lost: tuple[int, ...] = ()
    calm = 0

    def load(self, rows: Any = None) -> Sequences:
        found = super().load(rows)
        self.calm -= 1
        keep = ~np.isin(found.rows, self.lost if self.calm < 0 else ())
        return Sequences(found.features[keep], found.mask[keep], found.rows[keep])


def losing(rows: tuple[int, ...], calm: int) -> Losing:
    plain = rising_or_falling()
    source = Losing(plain.features, plain.mask, plain.frame)
    source.lost, source.calm = rows, calm
    return source


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 900), st.integers(1, 400), st.integers(1, 70), st.integers(1, 300))
def test_an_epoch_is_every_clip_once_read_in_whole_batches(
    clips: int, window: int, size: int, most: int
) -> None:
    rows = np.flatnonzero(np.random.default_rng(clips).random(clips * 2) < 0.5)
    positions = np.random.default_rng(0).permutation(len(rows))[: max(1, len(rows) * 3 // 4)]
    if not len(rows):
        return
    order, ends = shuffled(positions, rows, (1, 2), window=window)
    assert sorted(order) == sorted(positions)
    assert ends[-1] == len(order)
    again, _ = shuffled(np.sort(positions), rows, (1, 2), window=window)
    assert len(positions) <= window or np.array_equal(order, again)
    spans = pieces(ends, size, most)
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
    assert spans[-1][1] == len(order)
    assert all(stop - start <= max(size, most) for start, stop in spans)
    assert all((stop - start) % size == 0 for start, stop in spans[:-1])


def test_a_window_has_blocks_of_every_part_of_a_store_and_each_block_is_in_one() -> None:
    rows = np.arange(BLOCK * 12)
    order, ends = shuffled(rows, rows, (0, 0), window=BLOCK * 4)
    assert len(ends) == 3
    blocks = [set(part // BLOCK) for part in np.split(order, ends[:-1])]
    assert not blocks[0] & blocks[1]
    for window in blocks:
        assert sorted(block // 3 for block in window) == [0, 1, 2, 3]


@pytest.mark.parametrize("window", [10_000, 70])
def test_streamed_batches_are_those_of_memory(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = rising_or_falling(clips=300, groups=24)
    clip_bytes = 8 * 6 * 4
    monkeypatch.setattr(clips_module, "WINDOW_BYTES", window * clip_bytes)
    monkeypatch.setattr(clips_module, "READ_BYTES", 50 * clip_bytes)
    loaded, streamed = load_clips(source), load_clips(source, stream=True)
    at = np.random.default_rng(0).permutation(300)[:211]
    for free in (10**9, 40 * clip_bytes * 8):
        monkeypatch.setattr(clips_module, "free_bytes", lambda free=free: free)
        for seed in (None, (0, 1)):
            ours = list(loaded.batches(at, 16, order_seed=seed))
            theirs = list(streamed.batches(at, 16, order_seed=seed))
            assert len(ours) == len(theirs) == 14
            for one, other in zip(ours, theirs, strict=True):
                for mine, its in zip(one, other, strict=True):
                    np.testing.assert_array_equal(mine, its)


def test_streamed_and_in_memory_training_of_one_seed_give_one_result(tmp_path: Path) -> None:
    url = real_store(tmp_path / "s.zarr")
    results = set()
    for stream in (False, True):
        clips = load_clips(store.open(url, frozen=True), stream=stream)
        metrics = train(clips, CONFIG, tmp_path / str(stream))
        results.add((result_of(tmp_path / str(stream)), str(metrics["test"])))
    assert len(results) == 1


def test_what_is_damaged_before_a_training_is_left_out_alike(tmp_path: Path) -> None:
    source = losing((3, 40), calm=0)
    source.mask[7] = False
    loaded, streamed = load_clips(source), load_clips(source, stream=True)
    assert dict(loaded.left_out) == dict(streamed.left_out) == {"damaged": 2, "without_steps": 1}
    np.testing.assert_array_equal(loaded.rows, streamed.rows)
    source.features[9, 0, 0] = np.nan
    with pytest.raises(ConfigError, match=r"clip_009\.mp4 are not finite"):
        load_clips(source, stream=True)


@pytest.mark.parametrize("calm", [1, 9])
def test_rows_that_vanish_while_they_are_streamed_stop_the_training(
    calm: int, tmp_path: Path
) -> None:
    clips = load_clips(losing((10, 11, 12, 13), calm), stream=True)
    with pytest.raises(ConfigError, match=r"clips \(.*clip_01.\.mp4.* can no longer be read"):
        train(clips, CONFIG, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_frozen_snapshot_never_takes_a_row_that_was_made_anew(tmp_path: Path) -> None:
    url = real_store(tmp_path / "s.zarr")
    frozen, living = store.open(url, frozen=True), store.open(url)
    before, clips = frozen.load([0, 5]).features, load_clips(frozen, stream=True)
    with store.Writer.acquire(url, owner="test") as writer:
        rows = np.array(writer.rows_of(0))
        features = frozen.load(rows).features.copy()
        features[5] += 1
        writer.mark(rows, store.PENDING)
        writer.flush()
        digests = store.write_batch(url, 0, features, token=writer.token)
        writer.set(rows, digest=digests)
        writer.mark(rows, store.READY)
        writer.flush()
    assert (living.load([5]).features == before[1] + 1).all()
    with pytest.warns(store.StoreWarning, match="1 rows"):
        assert frozen.load([0, 5]).rows.tolist() == [0]
    with pytest.raises(ConfigError, match=r"1 clips \(clip-005\.mp4\) can no longer be read"):
        list(clips.batches(np.arange(48), 16))
