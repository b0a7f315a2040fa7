"""Batches that the CNN reads where the decoders wrote them: the same features, no slot too early back."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.features import filling
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding import FramePlan
from pipeline.features.decoding.slots import FrameSlots
from pipeline.features.extraction import ClipSource, Extractor
from pipeline.features.jobs import MOST_PASSED, Job, Jobs, Piece, blocks_of, frames_in_place
from pipeline.spec import Sampling
from tests.features.clips import write_numbered_clip
from tests.features.extraction_fakes import (
    SIZE,
    STEPS,
    SlotDecoders,
    SumBackbone,
    ThreadDecoders,
    feature_of,
    frames_of,
    small_spec,
)

SLOTS = 12
Filled = list[tuple[int, int]]


def jobs_in(filled: Filled, alone: set[int]) -> list[Job]:
    """Jobs of (slot, count) frames, in this order; those in `alone` lie outside of the slots."""
    slots = FrameSlots([(STEPS, SIZE, SIZE, 3)], slots=SLOTS, processes=0)
    jobs = []
    for slot, count in filled:
        frames = slots.frames(slot, (count, SIZE, SIZE, 3))
        frames[:] = frames_of(f"{slot}/{count}")
        place = None if slot in alone else slots.place(slot)
        features = np.zeros((count, 3), np.float16)
        jobs.append(Job(frames, features, lambda: None, lambda error: None, place=place))
    slots.close()
    return jobs


def frames_by_pieces(pieces: list[Piece]) -> np.ndarray:
    return np.concatenate([piece.frames for piece in pieces])


orders = st.permutations(range(SLOTS)).flatmap(
    lambda order: st.lists(st.integers(1, STEPS), min_size=1, max_size=SLOTS).map(
        lambda counts: list(zip(order, counts, strict=False))
    )
)


@given(filled=orders, alone=st.sets(st.integers(0, SLOTS - 1), max_size=3), most=st.integers(1, 20))
def test_every_frame_is_in_one_batch_and_none_waits_for_ever(
    filled: Filled, alone: set[int], most: int
) -> None:
    waiting, jobs = Jobs(), jobs_in(filled, alone)
    for job in jobs:
        waiting.put(job)
    taken: dict[int, list[int]] = {id(job): [] for job in jobs}
    passed = 0
    while waiting.frames:
        left = waiting.frames
        oldest = next(job for job in jobs if job.taken < job.count)
        before = oldest.taken
        pieces = waiting.cut(most)
        assert sum(map(len, pieces)) == min(most, left) == left - waiting.frames
        there = frames_in_place(pieces)
        if there is not None:
            np.testing.assert_array_equal(there, frames_by_pieces(pieces))
        for piece in pieces:
            taken[id(piece.job)] += range(piece.start, piece.stop)
        passed = passed + 1 if oldest.taken == before else 0
        assert passed <= MOST_PASSED
    assert all(taken[id(job)] == list(range(job.count)) for job in jobs)


def test_full_slots_that_are_neighbours_are_a_batch_as_they_lie() -> None:
    waiting = Jobs()
    order = [1, 0, 2, 5, 3, 4]
    for job in jobs_in([(slot, STEPS) for slot in order], set()):
        waiting.put(job)
    views = [frames_in_place(waiting.cut(8)) for _ in range(4)]
    assert all(view is not None for view in views)
    whole = np.concatenate([frames_of(f"{slot}/{STEPS}") for slot in range(6)])
    np.testing.assert_array_equal(np.concatenate(views)[:32], whole[:32])  # type: ignore[arg-type]


def test_frames_of_another_shape_or_memory_are_no_neighbours() -> None:
    one, other = (jobs_in([(slot, STEPS)], set())[0] for slot in (0, 1))
    assert frames_in_place([Piece(one, 0, 6), Piece(other, 0, 6)]) is None
    low, high = jobs_in([(0, STEPS), (1, STEPS)], set())
    assert frames_in_place([Piece(low, 2, 6), Piece(high, 0, 3)]) is not None
    assert high.frames is not None
    high.frames = high.frames.reshape(STEPS, 2 * SIZE, SIZE // 2, 3)
    assert frames_in_place([Piece(low, 2, 6), Piece(high, 0, 3)]) is None


@pytest.mark.parametrize("batch", [1, 4, 9, 24])
@pytest.mark.parametrize("short", [False, True])
def test_features_are_those_of_frames_that_were_copied(batch: int, short: bool) -> None:
    paths = [f"{i}/{1 + i * 5 % STEPS if short else STEPS}" for i in range(60)]
    pool = SlotDecoders(threads=4)
    read_in_place = []
    lock = threading.Lock()

    def look(frames: np.ndarray) -> None:
        with lock:
            read_in_place.append(frames.base is not None and not frames.flags.owndata)

    backbone = SumBackbone(batch=batch, concurrency=3, before=look)
    with Extractor(small_spec(), backbone, pool) as extractor, ThreadPoolExecutor(2) as callers:
        halves = [[*paths[:25], "bad/unreadable"], paths[25:]]
        sources = [[ClipSource(path) for path in half] for half in halves]
        results = [result for half in callers.map(extractor.extract, sources) for result in half]
    assert results.pop(25).reason == "unreadable"
    for path, result in zip(paths, results, strict=True):
        frames = frames_of(path)
        assert result.features is not None
        np.testing.assert_array_equal(
            result.features[: len(frames)], feature_of(frames).astype(np.float16)
        )
    assert any(read_in_place)
    assert pool.lent == 0
    pool.close()


@pytest.mark.parametrize("short", [False, True])
def test_blocks_that_lie_apart_give_the_same_features_and_are_left_alone_meanwhile(short) -> None:
    paths = [f"{i}/{1 + i * 5 % STEPS if short else STEPS}" for i in range(60)]
    pool = SlotDecoders(threads=4)

    class Slow(SumBackbone):
        def features_of_blocks(self, blocks):
            time.sleep(0.002)  # a slot that came back too early would be written again
            return super().features_of_blocks(blocks)

    backbone = Slow(batch=3 * STEPS // 2, concurrency=3, block=STEPS // 2)
    with Extractor(small_spec(), backbone, pool) as extractor:
        results = extractor.extract([ClipSource(path) for path in paths])
    for path, result in zip(paths, results, strict=True):
        frames = frames_of(path)
        assert result.features is not None
        np.testing.assert_array_equal(
            result.features[: len(frames)], feature_of(frames).astype(np.float16)
        )
    assert pool.lent == 0
    assert short or backbone.blocks, "no batch was taken as blocks"
    pool.close()


@given(filled=orders, most=st.integers(1, 20), block=st.integers(1, 4))
def test_blocks_are_the_frames_of_their_pieces(filled: Filled, most: int, block: int) -> None:
    waiting = Jobs()
    for job in jobs_in(filled, set()):
        waiting.put(job)
    pieces = waiting.cut(most)
    blocks = blocks_of(pieces, SumBackbone(batch=most, block=block))  # type: ignore[arg-type]
    whole = sum(map(len, pieces)) == most and all(len(piece) % block == 0 for piece in pieces)
    assert bool(blocks) == whole
    if blocks:
        assert {len(each) for each in blocks} == {block}
        np.testing.assert_array_equal(np.concatenate(blocks), frames_by_pieces(pieces))


def test_a_batch_that_cannot_be_filled_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # So many clips of one frame are never decoded ahead as would make a batch.
    monkeypatch.setattr(filling, "_PATIENCE_S", 600.0)
    pool = ThreadDecoders()
    backbone = SumBackbone(batch=32, concurrency=1)
    with (
        Extractor(small_spec(), backbone, pool, ahead_bytes=1) as extractor,
        ThreadPoolExecutor(1) as caller,
    ):
        call = caller.submit(extractor.extract, [ClipSource(f"{i}/1") for i in range(60)])
        assert {result.status for result in call.result(60)} == {"ready"}
    pool.close()


def test_a_pool_of_processes_writes_clips_behind_each_other(tmp_path: Path) -> None:
    clip = str(write_numbered_clip(tmp_path / "a.mp4", STEPS))
    plans = [FramePlan(sampling=Sampling(steps=STEPS), size=size) for size in (16, 24)]
    with DecoderPool(plans[0], processes=1, further=plans[1:]) as pool:
        clips = [pool.submit(clip).result(60) for _ in range(3)]
        for plan in range(2):
            read = [(one, *one.further)[plan] for one in clips]
            read.sort(key=lambda frames: frames.place.offset if frames.place else -1)
            jobs = [
                Job(
                    frames.frames,
                    np.zeros((STEPS, 3)),
                    frames.release,
                    lambda error: None,
                    place=frames.place,
                )
                for frames in read
            ]
            there = frames_in_place([Piece(job, 0, STEPS) for job in jobs])
            assert there is not None
            assert there.shape == (3 * STEPS, plans[plan].size, plans[plan].size, 3)
            np.testing.assert_array_equal(there, np.concatenate([one.frames for one in read]))
            np.testing.assert_array_equal(there[:STEPS], there[STEPS : 2 * STEPS])
