"""Sampling is monotone, in range and exact in count, whatever the clip."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pipeline import spec
from pipeline.errors import ConfigError
from pipeline.features import sampling as rules
from pipeline.features.decoding import FramePlan, read_clip, seeking
from pipeline.features.sampling import SamplingRule, needs_length, sample_indices
from pipeline.predict.sliding import Pace
from pipeline.spec import Sampling
from tests.frames import paths

from .clips import number_in, write_numbered_clip

steps = st.integers(1, 200)
lengths = st.integers(1, 200_000)
offsets = st.floats(0, 1, exclude_max=True)
rates = st.floats(0.5, 240)


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    rule = draw(st.sampled_from(spec.RULES))
    return Sampling(
        rule=rule,
        steps=draw(steps),
        offset=draw(offsets),
        stride=draw(st.integers(1, 500)) if rule == "stride" else 0,
        fps=draw(rates) if rule == "fps" else 0.0,
    )


@given(samplings(), lengths, rates)
@example(Sampling(steps=2, offset=math.nextafter(1.0, 0.0)), 3, 1.0)
@example(Sampling(rule="fps", steps=1, fps=1.0, offset=math.nextafter(1.0, 0.0)), 1, 1.0)
def test_indices_rise_stay_in_range_and_never_exceed_the_steps(
    sampling: Sampling, length: int, fps: float
) -> None:
    indices = sample_indices(sampling, length, fps)
    assert indices.dtype == np.int64
    assert 1 <= len(indices) <= sampling.steps
    assert indices[0] >= 0
    assert indices[-1] < length
    assert (np.diff(indices) > 0).all()


@given(steps, lengths, offsets)
def test_uniform_gives_exactly_as_many_as_there_are(n: int, length: int, offset: float) -> None:
    indices = sample_indices(Sampling(steps=n, offset=offset), length, 25.0)
    assert len(indices) == min(n, length)


@given(steps, lengths, offsets)
def test_uniform_takes_one_frame_of_every_segment(n: int, length: int, offset: float) -> None:
    assume(length > n)
    indices = sample_indices(Sampling(steps=n, offset=offset), length, 25.0)
    segment = length / n
    for k, index in enumerate(indices.tolist()):
        assert np.floor(k * segment) <= index <= np.ceil((k + 1) * segment)


@given(samplings(), lengths, rates, st.integers(1, 1000))
def test_rules_that_do_not_need_the_length_see_the_same_frames_of_a_longer_clip(
    sampling: Sampling, length: int, fps: float, more: int
) -> None:
    assume(not needs_length(sampling))
    short = sample_indices(sampling, length, fps)
    assume(len(short) == sampling.steps)
    np.testing.assert_array_equal(short, sample_indices(sampling, length + more, fps))


def test_uniform_takes_the_middle_of_forty_segments() -> None:
    expected = [int((2 * k + 1) * 186 // 80) for k in range(40)]
    assert sample_indices(Sampling(), 186, 25.0).tolist() == expected


def test_offset_moves_the_pick_inside_its_segment() -> None:
    picks = [
        sample_indices(Sampling(steps=4, offset=offset), 40, 25.0).tolist()
        for offset in (0.0, 0.5, 0.9)
    ]
    assert picks == [[0, 10, 20, 30], [5, 15, 25, 35], [9, 19, 29, 39]]


def test_stride_first_and_fps_by_example() -> None:
    stride = Sampling(rule="stride", stride=10, steps=4, offset=0.0)
    assert sample_indices(stride, 25, 25.0).tolist() == [0, 10, 20]
    assert sample_indices(Sampling(rule="first", steps=3), 100, 25.0).tolist() == [0, 1, 2]
    fps = Sampling(rule="fps", fps=5.0, steps=4, offset=0.0)
    assert sample_indices(fps, 100, 30.0).tolist() == [0, 6, 12, 18]
    assert sample_indices(fps, 100, 2.0).tolist() == [0, 1, 2, 3]  # slower than wanted: all


def test_an_unknown_rate_counts_as_25_frames_per_second() -> None:
    fps = Sampling(rule="fps", fps=5.0, steps=3, offset=0.0)
    for unknown in (0.0, float("nan"), -1.0):
        assert sample_indices(fps, 100, unknown).tolist() == [0, 5, 10]


def test_a_clip_shorter_than_the_start_still_gives_a_frame() -> None:
    assert sample_indices(Sampling(rule="stride", stride=100), 3, 25.0).tolist() == [1]


def test_no_frames_give_no_indices() -> None:
    assert len(sample_indices(Sampling(), 0, 25.0)) == 0


def test_settings_that_cannot_be_are_refused_with_the_value() -> None:
    with pytest.raises(ConfigError, match="stride is 0"):
        Sampling(rule="stride")
    with pytest.raises(ConfigError, match=r"offset is 1\.5"):
        Sampling(offset=1.5)


def test_every_rule_has_one_entry_that_says_how_it_picks() -> None:
    assert set(rules.RULES) == set(spec.RULES)
    for rule in rules.RULES.values():
        assert (rule.indices is None) != (rule.moments is None)
        assert rule.gap is not None or rule.needs_length


def test_the_laws_and_the_frame_corpus_are_tried_with_every_rule() -> None:
    """Where a rule is drawn by name, or has its words in the reference, none is left out."""
    assert set(paths.RULES) == set(paths.FITS) == set(spec.RULES)
    for name, sampling in paths.RULES.items():
        assert sampling.rule == name


def test_a_new_rule_is_one_entry_that_every_reader_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The middle of a clip, frame by frame: neither a reader nor a timeline takes it for another rule."""

    def middle(sampling: Sampling, n_frames: int) -> np.ndarray:
        first = max(0, (n_frames - sampling.steps) // 2)
        return np.arange(first, min(n_frames, first + sampling.steps))

    entry = SamplingRule(indices=middle, needs_length=True, gap=lambda sampling, fps: 1.0)
    monkeypatch.setattr(spec, "RULES", (*spec.RULES, "middle"))
    monkeypatch.setitem(rules.RULES, "middle", entry)
    sampling = Sampling(rule="middle", steps=5)  # type: ignore[arg-type]
    frames = seeking.LONG_FRAMES + 100
    clip = write_numbered_clip(tmp_path / "a.mp4", frames, options={"g": "20"})
    plan = FramePlan(sampling=sampling, size=96)
    fetched: list[int] = []
    sought = seeking.Sought.frame
    monkeypatch.setattr(
        seeking.Sought, "frame", lambda self, index: (fetched.append(index), sought(self, index))[1]
    )
    read = read_clip(str(clip), plan)
    wanted = middle(sampling, frames).tolist()
    assert [number_in(picture) for picture in read.frames] == wanted
    assert fetched == wanted  # sought: reading through would have to decode the whole clip
    assert Pace.of(sampling, 25.0, 0.0) == Pace(gap=1.0, steps=5, counted=True)
