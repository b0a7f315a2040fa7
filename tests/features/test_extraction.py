"""The extractor's promises, on a pool and a backbone small enough to check by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest

from pipeline.features.catalog import CATALOG_COLUMNS
from pipeline.features.decoding.values import FACTS
from pipeline.features.extraction import ClipResult, ClipSource, Extractor
from pipeline.spec import Spec
from store import COLUMNS
from tests.features.extraction_fakes import (
    SIZE,
    STEPS,
    SumBackbone,
    ThreadDecoders,
    feature_of,
    frames_of,
    small_spec,
)


@pytest.fixture
def pool() -> Iterator[ThreadDecoders]:
    pool = ThreadDecoders()
    yield pool
    pool.close()


def clips(*paths: str) -> list[ClipSource]:
    return [ClipSource(path=path) for path in paths]


def expected(path: str) -> np.ndarray:
    features = np.zeros((STEPS, 3), np.float16)
    frames = frames_of(path)
    features[: len(frames)] = feature_of(frames)
    return features


def features_of(result: ClipResult) -> np.ndarray:
    assert result.features is not None
    return result.features


def test_every_clip_gets_its_own_features_in_the_order_asked(pool: ThreadDecoders) -> None:
    paths = [f"{i}/{1 + i % STEPS}" for i in range(30)]
    with Extractor(small_spec(), SumBackbone(), pool) as extractor:
        results = extractor.extract(clips(*paths))
    assert [r.index for r in results] == list(range(30))
    for path, result in zip(paths, results, strict=True):
        assert result.status == "ready"
        np.testing.assert_array_equal(features_of(result), expected(path))


def test_a_short_clip_is_masked_from_its_end_on(pool: ThreadDecoders) -> None:
    with Extractor(small_spec(), SumBackbone(), pool) as extractor:
        (result,) = extractor.extract(clips("3/4"))
    assert result.mask.tolist() == [True] * 4 + [False] * 2
    assert result.frame_index.tolist() == [0, 2, 4, 6, -1, -1]
    np.testing.assert_allclose(result.timestamp[:4], [0, 0.1, 0.2, 0.3], rtol=1e-6)
    assert np.isnan(result.timestamp[4:]).all()
    assert not features_of(result)[4:].any()
    assert (result.fps, result.width, result.height, result.decoder) == (20, 32, 24, "opencv")
    assert (result.frames_declared, result.frames_decoded) == (8, 8)


def test_a_bad_clip_costs_only_itself(pool: ThreadDecoders) -> None:
    with Extractor(small_spec(), SumBackbone(), pool) as extractor:
        results = extractor.extract(clips("1/6", "bad/unreadable", "2/0", "3/6", "bad/timed_out"))
    assert [r.status for r in results] == ["ready", "failed", "failed", "ready", "failed"]
    assert [r.reason for r in results] == ["", "unreadable", "no_frames", "", "timed_out"]
    assert results[1].detail == "as asked"
    assert results[1].features is None
    assert not results[1].mask.any()


def test_batches_are_filled_across_clips_and_only_the_last_is_partial(
    pool: ThreadDecoders,
) -> None:
    backbone = SumBackbone(batch=4, concurrency=1)
    with Extractor(small_spec(), backbone, pool) as extractor:
        extractor.extract(clips(*[f"{i}/3" for i in range(15)]))
    assert backbone.calls == [4] * 11 + [1]


def test_batches_are_filled_across_concurrent_calls() -> None:
    hold = threading.Event()
    pool = ThreadDecoders(threads=1, hold=hold)
    backbone = SumBackbone(batch=4, concurrency=1)
    with Extractor(small_spec(), backbone, pool) as extractor, ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(extractor.extract, clips(f"{i}/6")) for i in range(2)]
        while pool.submitted < 2:
            threading.Event().wait(0.01)
        hold.set()
        for call in calls:
            call.result(30)
    assert backbone.calls == [4, 4, 4]
    pool.close()


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_features_depend_neither_on_batch_nor_concurrency(
    pool: ThreadDecoders, batch: int, concurrency: int
) -> None:
    paths = [f"{i}/{1 + i * 5 % STEPS}" for i in range(20)]
    backbone = SumBackbone(batch=batch, concurrency=concurrency)
    with Extractor(small_spec(), backbone, pool) as extractor, ThreadPoolExecutor(2) as callers:
        halves = [
            callers.submit(extractor.extract, clips(*half)) for half in (paths[:7], paths[7:])
        ]
        results = [result for half in halves for result in half.result(30)]
    for path, result in zip(paths, results, strict=True):
        np.testing.assert_array_equal(features_of(result), expected(path))


def test_decoders_run_ahead_only_so_far_and_every_frame_is_given_back() -> None:
    pool = ThreadDecoders(threads=4)
    backbone = SumBackbone(batch=2, concurrency=1)
    with Extractor(small_spec(), backbone, pool, ahead_bytes=1) as extractor:
        results = extractor.extract(clips(*[f"{i}/6" for i in range(40)]))
        # The least that keeps the CNN fed: two batches of two frames, and two clips.
        assert pool.most_lent <= 2 + 1
    assert len(results) == 40
    assert pool.lent == 0
    pool.close()


def test_a_larger_bound_lets_decoders_run_further_ahead() -> None:
    hold = threading.Event()
    pool = ThreadDecoders(threads=1, hold=hold)
    limit = 10 * STEPS * SIZE * SIZE * 3
    with (
        Extractor(small_spec(), SumBackbone(batch=2), pool, ahead_bytes=limit) as extractor,
        ThreadPoolExecutor(1) as caller,
    ):
        call = caller.submit(extractor.extract, clips(*[f"{i}/6" for i in range(40)]))
        while pool.submitted < 10:
            threading.Event().wait(0.01)
        hold.set()
        call.result(30)
        assert pool.most_lent == 10
    pool.close()


def test_on_clip_is_told_of_every_result_once_and_in_the_callers_thread(
    pool: ThreadDecoders,
) -> None:
    seen: list[int] = []
    threads: set[int] = set()

    def note(result: ClipResult) -> None:
        seen.append(result.index)
        threads.add(threading.get_ident())

    with Extractor(small_spec(), SumBackbone(), pool) as extractor:
        extractor.extract(clips("1/6", "bad/unreadable", "2/3"), on_clip=note)
    assert sorted(seen) == [0, 1, 2]
    assert threads == {threading.get_ident()}


def test_stop_finishes_what_reached_the_cnn_and_hands_the_rest_back() -> None:
    pool = ThreadDecoders(threads=1)
    stop = threading.Event()
    backbone = SumBackbone(batch=6, concurrency=1, before=lambda frames: stop.set())
    with Extractor(small_spec(), backbone, pool, ahead_bytes=1) as extractor:
        results = extractor.extract(clips(*[f"{i}/6" for i in range(50)]), stop=stop)
        again = extractor.extract(clips("7/6"))
    states = [r.status for r in results]
    assert "ready" in states
    assert "stopped" in states
    for i, result in enumerate(results):
        if result.status == "ready":
            np.testing.assert_array_equal(features_of(result), expected(f"{i}/6"))
    assert again[0].status == "ready"
    pool.close()
    assert pool.lent == 0


def test_a_stop_before_the_start_begins_nothing(pool: ThreadDecoders) -> None:
    stop = threading.Event()
    stop.set()
    with Extractor(small_spec(), SumBackbone(), pool) as extractor:
        results = extractor.extract(clips("1/6", "2/6"), stop=stop)
    assert [r.status for r in results] == ["stopped", "stopped"]
    assert pool.submitted == 0


def test_an_engine_that_fails_ends_the_batch_and_not_the_extractor(pool: ThreadDecoders) -> None:
    def fail(frames: np.ndarray) -> None:
        backbone.before = None
        raise MemoryError("no room for the batch")

    backbone = SumBackbone(concurrency=1, before=fail)
    with Extractor(small_spec(), backbone, pool) as extractor:
        with pytest.raises(RuntimeError, match="no room for the batch"):
            extractor.extract(clips(*[f"{i}/6" for i in range(8)]))
        assert extractor.extract(clips("1/6"))[0].status == "ready"
    pool.close()
    assert pool.lent == 0


def test_a_broken_pool_is_an_error_of_the_batch(pool: ThreadDecoders) -> None:
    with Extractor(small_spec(), SumBackbone(), pool) as extractor:
        with pytest.raises(OSError, match="the pool is gone"):
            extractor.extract(clips("1/6", "crash", "2/6"))
        assert extractor.extract(clips("1/6"))[0].status == "ready"


def test_an_error_of_on_clip_reaches_the_caller_and_leaves_nothing_lent() -> None:
    pool = ThreadDecoders()

    def refuse(result: ClipResult) -> None:
        raise KeyboardInterrupt

    with Extractor(small_spec(), SumBackbone(), pool) as extractor:
        with pytest.raises(KeyboardInterrupt):
            extractor.extract(clips(*[f"{i}/6" for i in range(30)]), on_clip=refuse)
        extractor.extract(clips("1/6"))
    pool.close()
    assert pool.lent == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_what_is_not_finite_as_stored_fails_its_clip_alone(
    pool: ThreadDecoders, value: float
) -> None:
    class Spoilt(SumBackbone):
        def __call__(self, frames: np.ndarray) -> np.ndarray:
            features = super().__call__(frames)
            features[(frames[:, 0, 0, 0] >= 32) & (frames[:, 0, 0, 0] < 48), 1] = value
            return features

    with Extractor(small_spec(), Spoilt(), pool) as extractor:
        results = extractor.extract(clips("1/6", "2/6", "3/6"))
    assert [r.reason for r in results] == ["", "not_finite", ""]
    assert results[1].status == "failed"
    assert results[1].features is None
    assert not results[1].mask.any()
    assert results[1].decoder == "opencv"


def test_a_float32_store_keeps_what_float16_would_lose(pool: ThreadDecoders) -> None:
    class Large(SumBackbone):
        def __call__(self, frames: np.ndarray) -> np.ndarray:
            return super().__call__(frames) * 1e6

    with Extractor(small_spec(dtype="float32"), Large(), pool) as extractor:
        (result,) = extractor.extract(clips("1/6"))
    assert result.status == "ready"
    assert features_of(result).dtype == np.float32


def test_a_backbone_of_whole_clips_gets_one_clip_a_call(pool: ThreadDecoders) -> None:
    backbone = SumBackbone(batch=STEPS, whole_clips=True)
    with Extractor(small_spec(), backbone, pool) as extractor:
        results = extractor.extract(clips("1/6", "2/2", "3/5"))
    assert sorted(backbone.calls) == [2, 5, 6]
    np.testing.assert_array_equal(features_of(results[1]), expected("2/2"))


def test_seconds_add_up_over_calls(pool: ThreadDecoders) -> None:
    with Extractor(small_spec(), SumBackbone(), pool) as extractor:
        extractor.extract(clips("1/6", "bad/unreadable"))
        extractor.extract(clips("2/6"))
        seconds = extractor.seconds()
    assert seconds["decode"] == 1.0
    assert seconds["cnn"] > 0
    assert seconds["waiting"] >= 0


@pytest.mark.parametrize(
    ("spec", "gives"),
    [
        (small_spec(), lambda frames: feature_of(frames)[:, :1]),  # would be broadcast to all three
        (small_spec(), lambda frames: feature_of(frames)[:, None]),
        (small_spec(dtype="uint8"), feature_of),  # would be cut to whole numbers
    ],
)
def test_a_backbone_that_gives_another_step_than_it_declares_is_an_error(
    spec: Spec, gives: Callable[[np.ndarray], np.ndarray], pool: ThreadDecoders
) -> None:
    class Wrong(SumBackbone):
        def __call__(self, frames: np.ndarray) -> np.ndarray:
            return gives(frames)

    with Extractor(spec, Wrong(), pool) as extractor, pytest.raises(RuntimeError, match="declares"):
        extractor.extract(clips("1/6", "2/3"))


def test_a_result_shows_shapes_and_not_data(pool: ThreadDecoders) -> None:
    with Extractor(small_spec(), SumBackbone(), pool) as extractor:
        ready, failed = extractor.extract(clips("1/6", "bad/no_video"))
    assert repr(ready) == "ClipResult(0: ready, features=(6, 3))"
    assert repr(failed) == "ClipResult(1: failed no_video, features=None)"


def test_every_fact_of_the_decoder_has_its_column_and_every_such_column_its_fact() -> None:
    catalog = {*CATALOG_COLUMNS, "sha256"} - {"path"}
    assert set(FACTS) == set(COLUMNS) - catalog - {"digest", "reason", "status"}
    assert set(FACTS) < {field.name for field in fields(ClipResult)}


def test_features_are_written_where_they_are_wanted_and_nowhere_else(pool: ThreadDecoders) -> None:
    """Beside rows that are kept, into rows in another order; of what fails no number stays."""

    class Overflowing(SumBackbone):
        def __call__(self, frames: np.ndarray) -> np.ndarray:
            features = super().__call__(frames)
            features[(frames[:, 0, 0, 0] >= 32) & (frames[:, 0, 0, 0] < 48), 1] = 1e6
            return features

    paths = ["1/6", "2/6", "bad/unreadable", "3/3", "4/0"]
    chunk = np.zeros((8, STEPS, 3), np.float16)
    rows, kept = [6, 2, 0, 5, 3], [1, 4, 7]
    chunk[kept] = 7
    with Extractor(small_spec(), Overflowing(), pool) as extractor:
        results = extractor.extract(clips(*paths), into=[chunk[row] for row in rows])
        alone = extractor.extract(clips(*paths))
    assert [result.reason for result in results] == [result.reason for result in alone]
    assert "not_finite" in {result.reason for result in results}
    for path, row, result in zip(paths, rows, results, strict=True):
        ready = result.status == "ready"
        np.testing.assert_array_equal(chunk[row], expected(path) if ready else 0)
    assert (chunk[kept] == 7).all()
