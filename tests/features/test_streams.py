"""Several streams of one reading: the extractor's promises where more than one backbone wants a clip."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pipeline.features.extraction import ClipSource, StreamsExtractor
from tests.features.extraction_fakes import (
    STEPS,
    SumBackbone,
    ThreadDecoders,
    feature_of,
    frames_of,
    small_spec,
)


class Negative(SumBackbone):
    """Gives the negative of `feature_of`."""

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return -super().__call__(frames)


class NotFinite(SumBackbone):
    """Gives no number for clip 1."""

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        given = super().__call__(frames)
        given[(frames == frames_of("1/1")).all(axis=(1, 2, 3))] = np.nan
        return given


@pytest.fixture
def pool() -> Iterator[ThreadDecoders]:
    pool = ThreadDecoders()
    yield pool
    pool.close()


def streams(pool: ThreadDecoders, *backbones: SumBackbone, **options: Any) -> StreamsExtractor:
    return StreamsExtractor([(small_spec(), each) for each in backbones], pool, **options)  # type: ignore[misc]


def clips(paths: Sequence[str]) -> list[ClipSource]:
    return [ClipSource(path) for path in paths]


def expected(path: str) -> np.ndarray:
    features = np.zeros((STEPS, 3), np.float16)
    frames = frames_of(path)
    features[: len(frames)] = feature_of(frames)
    return features


@pytest.mark.parametrize("batches", [(4, 4), (1, 16), (7, 3)])
def test_each_stream_has_its_own_features_of_one_reading(
    pool: ThreadDecoders, batches: tuple[int, int]
) -> None:
    paths = [f"{i}/{1 + i % STEPS}" for i in range(30)]
    both = SumBackbone(batch=batches[0]), Negative(batch=batches[1], concurrency=1)
    with streams(pool, *both) as extractor, ThreadPoolExecutor(2) as callers:
        halves = (clips(paths[:11]), clips(paths[11:]))
        results = [r for half in callers.map(extractor.extract_streams, halves) for r in half]
    assert pool.submitted == len(paths)
    assert pool.lent == 0
    for path, its in zip(paths, results, strict=True):
        np.testing.assert_array_equal(its[0].features, expected(path))
        np.testing.assert_array_equal(its[1].features, -expected(path))


def test_a_clip_goes_to_the_streams_that_want_it_alone(pool: ThreadDecoders) -> None:
    paths = [f"{i}/6" for i in range(6)]
    wanted = [(0, 1), (1,), (0,), (0, 1), (1,), (1,)]
    both = SumBackbone(), Negative()
    rooms = [{stream: np.zeros((STEPS, 3), np.float16) for stream in its} for its in wanted]
    seen: list[set[int]] = []
    with streams(pool, *both) as extractor:
        results = extractor.extract_streams(
            clips(paths), wanted=wanted, into=rooms, on_clip=lambda its: seen.append(set(its))
        )
    assert [tuple(sorted(its)) for its in results] == wanted
    assert sorted(map(sorted, seen)) == sorted(map(list, wanted))
    assert (sum(both[0].calls), sum(both[1].calls)) == (3 * 6, 5 * 6)
    for path, its, room in zip(paths, results, rooms, strict=True):
        for stream, sign in ((0, 1), (1, -1)):
            if stream in its:
                assert its[stream].features is room[stream]
                np.testing.assert_array_equal(room[stream], sign * expected(path))


def test_what_cannot_be_read_fails_in_every_stream_and_features_in_their_own(
    pool: ThreadDecoders,
) -> None:
    with streams(pool, SumBackbone(), NotFinite()) as extractor:
        bad, empty, odd, good = extractor.extract_streams(
            clips(["bad/unreadable", "2/0", "1/1", "3/6"])
        )
    assert [its.reason for its in bad.values()] == ["unreadable"] * 2
    assert [its.reason for its in empty.values()] == ["no_frames"] * 2
    assert [(its.status, its.reason) for its in odd.values()] == [
        ("ready", ""),
        ("failed", "not_finite"),
    ]
    assert {its.status for its in good.values()} == {"ready"}
    assert pool.lent == 0


def test_a_stop_leaves_out_what_has_not_reached_a_cnn_and_finishes_the_rest() -> None:
    begun, go_on, stop = threading.Event(), threading.Event(), threading.Event()

    def hold(frames: np.ndarray) -> None:
        begun.set()
        assert go_on.wait(30)

    pool = ThreadDecoders()
    fast, slow = SumBackbone(batch=6, concurrency=1), Negative(batch=6, concurrency=1, before=hold)
    paths = [f"{i}/6" for i in range(4)]
    with streams(pool, fast, slow) as extractor, ThreadPoolExecutor(1) as caller:
        running = caller.submit(extractor.extract_streams, clips(paths), stop=stop)
        assert begun.wait(30)
        while len(fast.calls) < 4:
            threading.Event().wait(0.01)
        stop.set()
        threading.Event().wait(0.3)
        go_on.set()
        results = running.result(30)
    pool.close()
    assert [its[0].status for its in results] == ["ready"] * 4
    states = [its[1].status for its in results]
    assert states.count("ready") == 1
    assert states.count("stopped") == 3
    assert pool.lent == 0


def test_an_error_of_one_engine_ends_the_call_and_gives_every_frame_back(
    pool: ThreadDecoders,
) -> None:
    def fail(frames: np.ndarray) -> None:
        raise OSError("no more memory")

    with streams(pool, SumBackbone(), Negative(before=fail)) as extractor:
        with pytest.raises(RuntimeError, match="no more memory"):
            extractor.extract_streams(clips([f"{i}/6" for i in range(9)]))
        while pool.lent:  # closed, the CNNs would leave what is queued
            threading.Event().wait(0.01)


def test_decoders_run_ahead_only_so_far() -> None:
    pool = ThreadDecoders(threads=4)
    both = SumBackbone(batch=2, concurrency=1), Negative(batch=12, concurrency=1)
    with streams(pool, *both, ahead_bytes=1) as extractor:
        extractor.extract_streams(clips([f"{i}/6" for i in range(40)]))
        # What keeps the larger batches fed: two of twelve frames, and two clips.
        assert pool.most_lent <= 24 // STEPS + 2
    assert pool.lent == 0
    pool.close()
