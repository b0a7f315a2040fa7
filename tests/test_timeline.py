"""A head along a long video: the pace of the clips, each frame computed once, segments in place."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.timeline import overlap
from pipeline.errors import ConfigError
from pipeline.features.sampling import sample_indices
from pipeline.predict.overlay import write_gif, write_overlay
from pipeline.predict.shots import shots
from pipeline.predict.sliding import make_timeline
from pipeline.predict.timeline import Segment, Timeline, rolling_average, segments
from pipeline.predict.walking import Pace
from pipeline.spec import RULES, Sampling, Spec
from tests.features.clips import write_numbered_clip

FPS = 10
CLASSES = ["blue", "green", "red"]


@dataclass
class Channels:
    """The smallest backbone there is: a frame's three mean channels. It counts what it computes."""

    batch: int = 4
    size: int = 8
    name: str = "channels"
    engine: str = "none"
    shape: tuple[int, ...] = (3,)
    concurrency: int = 2
    whole_clips: bool = False
    software: dict[str, str] = field(default_factory=dict)
    frames: int = 0

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        self.frames += len(frames)
        assert len(frames) <= self.batch
        return frames.mean(axis=(1, 2)).astype(np.float32)


def head(steps: int = 8, clip_seconds: float = 2.0, **sampling: Any) -> Any:
    """A run whose head says the colour that the real steps of a window have on average."""
    spec = Spec(sampling=Sampling(steps=steps, **sampling), size=8, shape=(3,), fit="squash")

    def predict(features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        sums = (features.astype(np.float32) * mask[..., None]).sum(axis=1)[:, ::-1]
        return sums / sums.sum(axis=1, keepdims=True)

    return SimpleNamespace(
        spec=spec.to_dict(),
        classes=CLASSES,
        steps=steps,
        shape=(3,),
        folder=Path("run"),
        first_stage={"clip_seconds": clip_seconds},
        predict=predict,
    )


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Segment]]:
    """60 seconds of three colours in stretches of unequal length, and the truth about them."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    true = [
        Segment(start_s=start, end_s=end, label=label, probability=1)
        for start, end, label in (
            (0, 14, "red"),
            (14, 23, "green"),
            (23, 41, "blue"),
            (41, 48, "red"),
            (48, 60, "green"),
        )
    ]
    colours = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for part in true:
            for _ in range(round((part.end_s - part.start_s) * FPS)):
                picture = np.full((48, 64, 3), colours[part.label], np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path), true


@given(
    frames=st.integers(1, 400), steps=st.integers(1, 60), offset=st.sampled_from([0.0, 0.5, 0.9])
)
def test_a_window_takes_the_frames_that_a_clip_of_its_length_would(
    frames: int, steps: int, offset: float
) -> None:
    sampling = Sampling(steps=steps, offset=offset)
    pace = Pace.of(sampling, 25.0, frames / 25.0)
    taken = [pace.index(step, offset) for step in range(pace.steps)]
    wanted = sample_indices(sampling, frames, 25.0).tolist()
    assert len(taken) == len(wanted)
    assert np.abs(np.array(taken) - wanted).max() <= 1  # of rounding


def test_rules_with_a_pace_of_their_own_keep_it() -> None:
    assert Pace.of(Sampling(rule="stride", stride=3, steps=8), 30, 0.0) == Pace(
        gap=3.0, steps=8, counted=True
    )
    assert Pace.of(Sampling(rule="first", steps=8), 30, 0.0) == Pace(gap=1.0, steps=8, counted=True)
    assert Pace.of(Sampling(rule="fps", fps=10, steps=8), 30, 0.5) == Pace(gap=3.0, steps=5)


@pytest.mark.parametrize("hop", [1, 2, 7])
def test_every_frame_is_computed_once_however_much_windows_overlap(
    video: tuple[str, list[Segment]], hop: int
) -> None:
    path, _ = video
    backbone, told = Channels(), []
    found = make_timeline(head(), backbone, path, hop=hop, on_frames=told.append)
    # 2-second windows of 8 steps: 4 frames a second of a minute.
    assert backbone.frames == found.frames == 240
    assert found.decoded == 600
    assert told[-1] == 240
    assert len(found.times) == len(found.probabilities)
    assert len(found.cuts) == 4
    whole = make_timeline(head(), Channels(), path, hop=hop, cuts=False)
    assert len(whole.times) >= 232 // hop
    # In each of the five shots the windows that would reach over its end are missing.
    assert len(found.times) >= (232 - 4 * 7) // hop
    assert found.duration_s == pytest.approx(60, abs=0.05)
    assert found.window_s == pytest.approx(2.0)


def test_segments_lie_where_the_classes_are(video: tuple[str, list[Segment]]) -> None:
    path, true = video
    found = segments(make_timeline(head(), Channels(), path))
    assert [part.label for part in found] == [part.label for part in true]
    assert min(overlap(found, true).values()) > 0.98
    # A stretch's probability is that of its own windows: none reaches over the cut.
    assert min(part.probability for part in found) > 0.7
    assert found[0].start_s == 0
    assert found[-1].end_s == pytest.approx(60, abs=0.05)


def test_without_looking_for_cuts_windows_reach_across_them(
    video: tuple[str, list[Segment]],
) -> None:
    path, true = video
    found = make_timeline(head(), Channels(), path, cuts=False)
    assert found.cuts == ()
    assert min(overlap(segments(found), true).values()) > 0.9
    middle = found.at(14)  # half of its window is red, half green
    assert middle.max() < 0.9


def test_cuts_are_jumps_that_stand_alone() -> None:
    random = np.random.default_rng(0)
    scenes = np.repeat(random.random((3, 64)), [30, 20, 50], axis=0)
    walking = np.cumsum(random.normal(0, 0.02, (100, 64)), axis=0)
    assert shots(scenes + walking, 5) == [(0, 30), (30, 50), (50, 100)]
    assert shots(1 + walking * 5, 5) == [(0, 100)]  # all move, none jumps
    assert shots(np.ones((100, 64)) + random.normal(0, 1e-3, (100, 64)), 5) == [(0, 100)]
    assert shots(random.random((1, 64)), 5) == [(0, 1)]
    assert shots(np.repeat(random.random((2, 64)), [97, 3], axis=0), 5) == [(0, 100)]  # too short
    flash = np.ones((100, 64))
    flash[50, :32] = 9
    assert shots(flash, 5) == [(0, 100)]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_repeated_frames_are_no_cuts(times: int) -> None:
    random = np.random.default_rng(0)
    walking = 1 + np.cumsum(random.normal(0, 0.05, (60, 64)), axis=0)
    walking[30:] += 4 * random.random(64)  # one cut, by which both halves go on walking
    shown = np.repeat(walking, times, axis=0)
    assert shots(shown, 5) == [(0, 30 * times), (30 * times, 60 * times)]


def test_at_a_cut_the_new_shot_has_begun() -> None:
    timeline = Timeline(
        times=np.array([1.0, 2.0, 5.0]),
        probabilities=np.array([[0.2, 0.8], [0.4, 0.6], [1.0, 0.0]], np.float32),
        classes=("a", "b"),
        window_s=2,
        duration_s=6,
        frames=6,
        decoded=6,
        cuts=(4.0,),
    )
    np.testing.assert_allclose(timeline.at(0)[0], 0.2)
    np.testing.assert_allclose(timeline.at(1.5)[0], 0.3)
    np.testing.assert_allclose(timeline.at(3.9)[0], 0.4)
    np.testing.assert_allclose(timeline.at(4.0)[0], 1.0)
    assert [part.end_s for part in segments(timeline)] == [4.0, 6.0]


def test_the_overlay_plays_and_the_animation_moves(
    video: tuple[str, list[Segment]], tmp_path: Path
) -> None:
    path, _ = video
    found = make_timeline(head(), Channels(), path)
    parts = segments(found)
    write_overlay(path, tmp_path / "o.mp4", found, parts)
    with av.open(str(tmp_path / "o.mp4")) as container:
        times, heights, first = [], set(), None
        for frame in container.decode(video=0):
            times.append(frame.time)
            heights.add(frame.height)
            picture = frame.to_ndarray(format="rgb24")
            first = picture if first is None else first
    assert len(times) == 600
    assert times[-1] == pytest.approx(59.9, abs=0.02)
    assert heights.pop() > 48
    assert first is not None
    np.testing.assert_allclose(first[:40].mean(axis=(0, 1)), (220, 20, 20), atol=12)
    write_gif(path, tmp_path / "t.gif", found, parts)
    with Image.open(tmp_path / "t.gif") as gif:
        assert 50 <= gif.n_frames <= 151  # type: ignore[attr-defined]
        gif.seek(10)
        early = np.asarray(gif.convert("RGB")).astype(int)
        gif.seek(gif.n_frames - 10)  # type: ignore[attr-defined]
        late = np.asarray(gif.convert("RGB")).astype(int)
    assert np.abs(early - late).mean() > 20


def test_a_video_shorter_than_a_window_is_one_window(
    video: tuple[str, list[Segment]], tmp_path: Path
) -> None:
    path, _ = video
    found = make_timeline(head(steps=400, clip_seconds=600), Channels(), path)
    assert len(found.times) == 1
    assert len(segments(found)) == 1


@pytest.mark.parametrize(("frames", "window_s"), [(1, 2.0), (1, 0.0), (8, 1000.0)])
@pytest.mark.parametrize("rule", RULES)
def test_a_clip_of_one_frame_or_a_window_of_many_clips_gives_one_window(
    tmp_path: Path, frames: int, window_s: float, rule: str
) -> None:
    path = tmp_path / "short.mp4"
    write_numbered_clip(path, frames=frames)
    options = {"stride": {"stride": 50}, "fps": {"fps": 0.5}}.get(rule, {})
    found = make_timeline(head(rule=rule, **options), Channels(), str(path), window_s=window_s)
    assert len(found.times) == 1
    assert found.frames == 1 if frames == 1 else found.frames >= 1
    assert np.isfinite(found.probabilities).all()


def test_a_run_that_does_not_know_its_clips_length_asks_for_the_window(
    video: tuple[str, list[Segment]],
) -> None:
    with pytest.raises(ConfigError, match="give --window SECONDS"):
        make_timeline(head(clip_seconds=0.0), Channels(), video[0])


def test_a_rolling_average_is_the_mean_of_the_neighbours() -> None:
    values = np.array([[0], [3], [6], [0], [0]], np.float32)
    np.testing.assert_allclose(rolling_average(values, 3)[:, 0], [1.5, 3, 3, 2, 0])
    np.testing.assert_array_equal(rolling_average(values, 1), values)


def test_a_flicker_goes_to_its_longer_neighbour() -> None:
    said = [0] * 6 + [1] + [0] * 2 + [2] * 8
    timeline = Timeline(
        times=np.arange(len(said)) + 0.5,
        probabilities=np.eye(3, dtype=np.float32)[said],
        classes=("a", "b", "c"),
        window_s=4,
        duration_s=17,
        frames=17,
        decoded=17,
    )
    assert [(p.start_s, p.end_s, p.label) for p in segments(timeline)] == [
        (0, 9, "a"),
        (9, 17, "c"),
    ]
    assert len(segments(timeline, least_s=0.5)) == 4


def test_windows_and_steps_of_a_video_go_by_time(tmp_path: Path) -> None:
    # Ten frames a second for 20 seconds, then one a second for another 20.
    times = [*range(200), *range(200, 400, 10)]
    path = tmp_path / "slow.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for place, time in enumerate(times):
            colour = (220, 20, 20) if time < 200 else (20, 20, 220 - place % 2)
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), colour, np.uint8), "rgb24")
            picture.pts, picture.time_base = time, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    widths: list[int] = []

    def predict(features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        widths.extend(mask.sum(axis=1).tolist())
        return plain(features, mask)

    run = head(steps=8, clip_seconds=2.0)
    plain, run.predict = run.predict, predict
    found = make_timeline(run, Channels(), str(path), hop=1)
    # 4 steps a second, then every frame that there is: windows of 2 seconds have 8 steps, then 2.
    assert found.frames == 80 + 20
    assert found.decoded == 220
    assert found.duration_s == pytest.approx(40, abs=1.0)
    assert set(widths) == {8, 2}
    assert [part.label for part in segments(found)] == ["red", "blue"]
    assert segments(found)[1].start_s == pytest.approx(20, abs=0.6)


def test_a_head_that_gives_no_numbers_is_refused(video: tuple[str, list[Segment]]) -> None:
    path, _ = video
    broken = head()
    honest = broken.predict

    def predict(features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.where(features[:, :1, 0] > 100, np.nan, honest(features, mask))

    broken.predict = predict
    with pytest.raises(ConfigError, match=r"run returns NaN for \d+ of \d+ windows"):
        make_timeline(broken, Channels(), path)
