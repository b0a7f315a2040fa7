"""Steps of several frames: exactly the frames that are painted on them, each decoded once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding import ClipFrames, FramePlan, read_clip, reading, seeking
from pipeline.features.decoding.video import Video
from pipeline.features.extraction import ClipSource, Extractor
from pipeline.features.windows import Windows, gap_frames
from pipeline.predict.walking import Pace, Walk
from pipeline.spec import Sampling, Spec
from tests.features.clips import number_in, write_numbered_clip
from tests.features.extraction_fakes import ThreadDecoders, frames_of, small_spec

FRAMES = 60
RATE = 25


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Keyframes, so that it can be sought through.
    path = tmp_path_factory.mktemp("clips") / "numbered.mp4"
    return write_numbered_clip(path, FRAMES, rate=RATE, options={"g": "12", "bf": "2"})


def plan(
    rule: str, *, window: int = 2, gap_s: float = 0.12, gap: int = 0, **settings: object
) -> FramePlan:
    sampling = Sampling(rule=rule, **{"steps": 8, **settings})  # type: ignore[arg-type]
    return FramePlan(sampling=sampling, fit="whole", size=160, window=window, gap_s=gap_s, gap=gap)


def numbers(read: ClipFrames) -> list[list[int]]:
    """What is painted on the frames of every step."""
    assert read.windows is not None
    return [[number_in(read.frames[place]) for place in row] for row in read.windows]


RULES: list[tuple[str, dict[str, object], list[int]]] = [
    ("uniform", {"offset": 0.0}, [0, 7, 15, 22, 30, 37, 45, 52]),
    ("uniform", {"offset": 0.99}, [7, 14, 22, 29, 37, 44, 52, 59]),
    ("first", {}, [0, 1, 2, 3, 4, 5, 6, 7]),
    ("stride", {"stride": 7, "offset": 0.9}, [6, 13, 20, 27, 34, 41, 48, 55]),
    ("stride", {"stride": 9, "offset": 0.0}, [0, 9, 18, 27, 36, 45, 54]),
    ("fps", {"fps": 5.0, "offset": 0.0}, [0, 5, 10, 15, 20, 25, 30, 35]),
    ("fps", {"fps": 2.0, "offset": 0.9}, [11, 23, 36, 48]),
]


@pytest.mark.parametrize(("window", "gap"), [(2, 3), (4, 2), (3, 20), (16, 1)])
@pytest.mark.parametrize(("rule", "settings", "sampled"), RULES)
def test_a_step_has_exactly_the_frames_of_its_window(
    clip: Path, rule: str, settings: dict[str, object], sampled: list[int], window: int, gap: int
) -> None:
    read = read_clip(str(clip), plan(rule, window=window, gap_s=gap / RATE, **settings))
    assert read.frame_index.tolist() == sampled
    shown = numbers(read)
    span = (window - 1) * gap
    for frame, row in zip(sampled, shown, strict=True):
        start = min(max(frame - (window - 1) // 2 * gap, 0), FRAMES - 1 - span)
        assert row == list(range(start, start + span + 1, gap))
    # A frame that several steps share was kept once.
    assert len(read.frames) == len({number for row in shown for number in row})
    assert read.gaps_s == pytest.approx(np.full(len(sampled), gap / RATE))
    goes_on = rule == "first" or settings.get("fps") == 5.0
    assert read.reason == ("cut_off" if goes_on else "")


@pytest.mark.parametrize(("rule", "settings", "sampled"), RULES)
def test_seeking_gives_the_same(
    clip: Path,
    rule: str,
    settings: dict[str, object],
    sampled: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through = read_clip(str(clip), plan(rule, **settings))
    monkeypatch.setattr(seeking, "LONG_FRAMES", 1)
    monkeypatch.setattr(seeking, "LARGEST_SHARE", 1e9)
    monkeypatch.setattr(reading, "read_through", None)  # it must not be called
    sought = read_clip(str(clip), plan(rule, **settings))
    assert sought.frame_index.tolist() == sampled
    np.testing.assert_array_equal(sought.windows, through.windows)
    np.testing.assert_array_equal(sought.frames, through.frames)
    np.testing.assert_array_equal(sought.gaps_s, through.gaps_s)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("window", "gap"), [(2, 3), (2, 1), (4, 2), (16, 1), (3, 29), (3, 40)])
def test_a_timeline_walks_through_the_same_windows(
    clip: Path, window: int, gap: int, counted: bool
) -> None:
    sampled = np.arange(3, FRAMES, 7)
    with Video(str(clip)) as video:
        asked = plan("first", window=window, gap_s=gap / RATE)
        walk = Walk(video, asked, Pace(gap=7.0, steps=8, counted=counted))
        batches: list[Any] = list(walk.batches(5))
    assert [len(frames) for frames, _ in batches] == [5, 4]
    shown = [[number_in(f) for f in step] for frames, _ in batches for step in frames]
    right = Windows.around(sampled, FRAMES, window=window, gap=gap).windows
    assert shown == right.tolist()
    np.testing.assert_allclose(walk.times, sampled / RATE)
    gaps_s = np.concatenate([gaps_s for _, gaps_s in batches])
    np.testing.assert_allclose(gaps_s, (right[:, -1] - right[:, 0]) / (window - 1) / RATE)


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_a_clip_shorter_than_a_window_uses_what_it_has(tmp_path: Path, frames: int) -> None:
    path = write_numbered_clip(tmp_path / "short.mp4", frames, rate=RATE)
    read = read_clip(str(path), plan("uniform", window=3, gap_s=3 / RATE))
    rows = {1: [0, 0, 0], 2: [0, 1, 1], 3: [0, 1, 2], 5: [0, 2, 4]}
    assert numbers(read) == [rows[frames]] * frames
    assert read.reason == "short_window"


@pytest.mark.parametrize("guess", [0, 7, 59, 61, 500])
def test_a_wrong_guess_of_the_length_moves_no_window(
    clip: Path, guess: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames that were kept for a guess are replaced by those of the clip as it is."""
    right = read_clip(str(clip), plan("uniform"))
    monkeypatch.setattr(Video, "expected", lambda video: guess)
    read = read_clip(str(clip), plan("uniform"))
    np.testing.assert_array_equal(read.windows, right.windows)
    np.testing.assert_array_equal(read.frames, right.frames)
    assert numbers(read)[-1] == [FRAMES - 4, FRAMES - 1]


def test_a_decoder_process_hands_over_the_same_windows(clip: Path) -> None:
    here = read_clip(str(clip), plan("uniform", window=4))
    with DecoderPool(plan("uniform", window=4), processes=1) as pool:
        there = pool.submit(str(clip), -1).result()
        assert there.frames.shape == here.frames.shape == (len(here.frames), 96, 160, 3)
        np.testing.assert_array_equal(there.frames, here.frames)
        np.testing.assert_array_equal(there.windows, here.windows)
        np.testing.assert_array_equal(there.gaps_s, here.gaps_s)
        assert len(there) == len(here) == 8
        there.release()


class WindowDecoders(ThreadDecoders):
    """Each step of a clip needs its frame and the one after it."""

    def _read(self, path: str) -> ClipFrames:
        read = super()._read(path)
        count = len(read.frames)
        pairs = Windows.around(np.arange(count), count, window=2)
        values = {name: getattr(read, name) for name in read.__slots__}
        return ClipFrames(
            **values | {"windows": pairs.places, "gaps_s": np.full(count, count / 10)}
        )


class PairBackbone:
    """Sums of both frames of a step, and the seconds between them; not bound to whole clips."""

    name = engine = "pair"
    size, shape, batch, concurrency, whole_clips, block = 4, (3,), 4, 2, False, 0
    software: dict[str, str] = {}  # noqa: RUF012

    def __call__(self, frames: np.ndarray, gaps_s: np.ndarray) -> np.ndarray:
        assert frames.shape[1:] == (2, 4, 4, 3)
        assert len(frames) <= self.batch
        first, second = frames.reshape(len(frames), 2, -1).astype(np.float32).mean(2).T
        return np.stack([first, second, gaps_s], 1).astype(np.float32)


@pytest.fixture
def extractor() -> Iterator[Extractor]:
    spec = small_spec(dtype="float32")
    decoders = WindowDecoders()
    with Extractor(spec, PairBackbone(), decoders) as made:  # type: ignore[arg-type]
        yield made
    assert decoders.lent == 0
    decoders.close()


def test_batches_are_filled_with_windows_of_several_clips(extractor: Extractor) -> None:
    paths = [f"{clip}/{count}" for clip, count in enumerate([1, 5, 6, 2, 3, 6, 1])]
    results = extractor.extract([ClipSource(path=path) for path in paths])
    for path, result in zip(paths, results, strict=True):
        frames = frames_of(path).astype(np.float32)
        count = len(frames)
        means = frames.reshape(count, -1).mean(1)
        pairs = Windows.around(np.arange(count), count, window=2).windows
        assert result.features is not None
        np.testing.assert_array_equal(result.features[:count, :2], means[pairs])
        np.testing.assert_allclose(result.features[:count, 2], count / 10)
        assert not result.features[count:].any()


@given(st.data(), st.integers(1, 80), st.integers(1, 16), st.integers(1, 12))
def test_windows_lie_inside_the_clip_and_around_their_frames(
    data: st.DataObject, n_frames: int, window: int, gap: int
) -> None:
    steps = np.array(sorted(data.draw(st.sets(st.integers(0, n_frames - 1), min_size=1))))
    made = Windows.around(steps, n_frames, window=window, gap=gap)
    rows = made.windows
    assert rows.shape == (len(steps), window)
    assert rows.min() >= 0
    assert rows.max() < n_frames
    assert (np.diff(rows, axis=1) >= (0 if window > n_frames else 1)).all()
    assert (np.diff(rows, axis=0) >= 0).all()
    assert made.short == ((window - 1) * gap >= n_frames)
    np.testing.assert_array_equal(made.frames[made.places], rows)
    middle = rows[:, (window - 1) // 2]
    inside = (steps >= (window - 1) // 2 * gap) & (steps + window // 2 * gap < n_frames)
    np.testing.assert_array_equal(middle[inside], steps[inside])
    if window == 1:
        np.testing.assert_array_equal(rows[:, 0], steps)
    kept = made.within(made.frames[:-1].tolist())
    assert not (kept.windows == made.frames[-1]).any()


def test_a_gap_in_seconds_is_the_nearest_number_of_frames() -> None:
    rates = {5.0: 1, 10.0: 1, 23.976: 2, 24.0: 2, 25.0: 2, 29.97: 3, 30.0: 3, 60.0: 6, 240.0: 24}
    assert {fps: gap_frames(0.1, fps) for fps in rates} == rates


def test_a_window_and_its_gap_go_together() -> None:
    for window, gap_s in ((0, 0.0), (2, 0.0), (1, 0.1), (2, -1.0)):
        with pytest.raises(ConfigError, match="several frames and the seconds"):
            Spec(window=window, gap_s=gap_s)


def test_a_spec_without_windows_says_nothing_of_them() -> None:
    assert not {"window", "gap_s"} & Spec().to_dict().keys()
    spec = Spec(window=2, gap_s=0.1, fit="whole")
    assert spec.to_dict()["window"] == 2
    assert Spec.from_dict(spec.to_dict()) == spec
    assert spec.differences(Spec(fit="whole")) == {"window": (2, 1), "gap_s": (0.1, 0.0)}


@pytest.mark.parametrize(("window", "gap"), [(16, 1), (16, 2), (8, 4), (2, 7), (3, 29)])
@pytest.mark.parametrize(("rule", "settings", "sampled"), RULES)
def test_a_gap_of_frames_is_kept_at_any_rate_and_each_frame_is_decoded_once(
    clip: Path, rule: str, settings: dict[str, object], sampled: list[int], window: int, gap: int
) -> None:
    read = read_clip(str(clip), plan(rule, window=window, gap_s=0.0, gap=gap, **settings))
    shown, span = numbers(read), (window - 1) * gap
    for frame, row in zip(sampled, shown, strict=True):
        start = min(max(frame - (window - 1) // 2 * gap, 0), FRAMES - 1 - span)
        assert row == list(range(start, start + span + 1, gap))
    assert len(read.frames) == len({number for row in shown for number in row})
    goes_on = rule == "first" or settings.get("fps") == 5.0
    assert read.reason == ("cut_off" if goes_on else "")


@pytest.mark.parametrize("frames", [1, 2, 5, 7])
def test_a_clip_shorter_than_a_window_of_frames_repeats_its_last(
    tmp_path: Path, frames: int
) -> None:
    path = write_numbered_clip(tmp_path / "short.mp4", frames, rate=RATE)
    read = read_clip(str(path), plan("uniform", window=4, gap_s=0.0, gap=3))
    assert numbers(read) == [[min(n, frames - 1) for n in (0, 3, 6, 9)]] * frames
    assert read.reason == "short_window"


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("window", "gap"), [(16, 2), (4, 7), (3, 40)])
def test_a_timeline_walks_through_the_same_windows_of_frames(
    clip: Path, window: int, gap: int, counted: bool
) -> None:
    sampled = np.arange(3, FRAMES, 7)
    with Video(str(clip)) as video:
        asked = plan("first", window=window, gap_s=0.0, gap=gap)
        walk = Walk(video, asked, Pace(gap=7.0, steps=8, counted=counted))
        shown = [[number_in(f) for f in step] for batch in walk.batches(5) for step in batch[0]]
    right = Windows.around(sampled, FRAMES, window=window, gap=gap, squeezed=False).windows
    assert shown == right.tolist()
