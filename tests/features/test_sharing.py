"""One decoding of a clip serves several plans, each with what it would have read by itself."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from flows.extract.request import stage_of
from flows.settings.features import FeaturesSettings
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding import seeking
from pipeline.features.decoding.reading import read_clip, read_streams
from pipeline.features.decoding.values import (
    ClipFrames,
    ClipSource,
    FileParts,
    FramePlan,
    Part,
)
from pipeline.features.joined_stage import JoinedStage
from pipeline.features.stage import FirstStage, Stage
from pipeline.spans import Span
from pipeline.spec import Sampling
from tests.features.clips import write_numbered_clip

PLANS = (
    FramePlan(sampling=Sampling(steps=9), size=64),
    FramePlan(sampling=Sampling(steps=5, offset=0.1), size=48, fit="whole", window=2, gap_s=0.1),
    FramePlan(sampling=Sampling(rule="fps", fps=7.0, steps=12), size=32, fit="pad", view="mirror"),
    FramePlan(sampling=Sampling(rule="first", steps=3), size=40, fit="squash", aspect="stored"),
)


def rooms() -> list[np.ndarray]:
    return [np.empty(plan.frames_shape, np.uint8) for plan in PLANS]


def require_same(mine: ClipFrames, theirs: ClipFrames) -> None:
    np.testing.assert_array_equal(mine.frames, theirs.frames)
    np.testing.assert_array_equal(mine.frame_index, theirs.frame_index)
    np.testing.assert_array_equal(mine.timestamp, theirs.timestamp)
    for name in ("windows", "gaps_s"):
        one, other = getattr(mine, name), getattr(theirs, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)
    assert mine.reason == theirs.reason


@pytest.mark.parametrize("frames", [1, 2, 11, 90])
@pytest.mark.parametrize("sought", [False, True])
def test_every_plan_reads_what_it_reads_alone(
    tmp_path: Path, frames: int, sought: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = str(write_numbered_clip(tmp_path / "a.mp4", frames, options={"g": "10"}))
    alone = [read_clip(clip, plan) for plan in PLANS]
    if sought:
        monkeypatch.setattr(seeking, "LONG_FRAMES", 1)
        monkeypatch.setattr(seeking, "LARGEST_SHARE", 1e9)
    for mine, theirs in zip(read_streams(clip, PLANS, rooms()), alone, strict=True):
        require_same(mine, theirs)


def test_a_wrong_guess_of_the_length_costs_all_plans_one_more_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.features.decoding import through
    from pipeline.features.decoding.video import Video

    clip = str(write_numbered_clip(tmp_path / "a.mp4", 90))
    alone = [read_clip(clip, plan) for plan in PLANS]
    opened = []

    class Counted(Video):
        def __init__(self, *arguments: object) -> None:
            opened.append(arguments)
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Video, "expected", lambda self: 35)
    monkeypatch.setattr(through, "Video", Counted)
    for mine, theirs in zip(read_streams(clip, PLANS, rooms()), alone, strict=True):
        require_same(mine, theirs)
    assert len(opened) == 1


@pytest.mark.parametrize("part", [None, Part(FileParts((Span(0.2, 1.2), Span(1.0, 3.0))), 1)])
def test_a_decoder_process_reads_by_the_plans_that_are_asked_for(
    tmp_path: Path, part: Part | None
) -> None:
    clip = str(write_numbered_clip(tmp_path / "a.mp4", 90))
    plans = PLANS[:3]
    alone = []
    for plan in plans:
        with DecoderPool(plan, processes=1, previews=True) as pool:
            alone.append(pool.submit(clip, -1, part).result(60))
    with DecoderPool(plans[0], processes=1, further=plans[1:], previews=True) as pool:
        for wanted in ((), (1,), (0, 2), (2,)):
            of = None if part is None else Part(FileParts(part.of.spans), part.number)
            first = pool.submit(clip, -1, of, wanted).result(60)
            read = (first, *first.further)
            for number, frames in zip(wanted or range(3), read, strict=True):
                require_same(frames, alone[number])
                assert frames.previews == alone[number].previews
                frames.release()


def stages() -> list[Stage]:
    asked = (
        {"backbone": "motion", "frames": 7},
        {"backbone": "motion", "view": "mirror", "frames": 4, "sampling": "first"},
        {"backbone": "mobilenet_v3_small", "weights": "random:0", "frames": 6, "engine": "keras"},
    )
    return [stage_of(FeaturesSettings(videos="clips", **each), None)[1] for each in asked]


@pytest.mark.long
def test_every_stream_of_one_decoding_equals_its_own_first_stage_to_the_bit(tmp_path: Path) -> None:
    clips = [
        ClipSource(str(write_numbered_clip(tmp_path / f"{frames}.mp4", frames)))
        for frames in (3, 40, 25, 12)
    ]
    (tmp_path / "no clip.mp4").write_text("nothing")
    clips.insert(2, ClipSource(str(tmp_path / "no clip.mp4")))
    alone = []
    for stage in stages():
        with FirstStage.load(stage, threads=2) as one:
            alone.append(one.extractor.extract(clips))
    with JoinedStage.load(stages(), threads=2) as joined:
        asked: list[str] = []
        plain = joined.pool.submit
        joined.fetching._decoders.submit = lambda path, size=-1: (  # type: ignore[method-assign]
            asked.append(path) or plain(path, size)
        )
        together = [*joined.extract(clips[:2]), *joined.extract(clips[2:])]
    assert asked == [clip.path for clip in clips]
    for number, results in enumerate(alone):
        for wanted, got in zip(results, (each[number] for each in together), strict=True):
            assert got.status == wanted.status
            assert got.sha256 == wanted.sha256
            np.testing.assert_array_equal(got.frame_index, wanted.frame_index)
            np.testing.assert_array_equal(got.timestamp, wanted.timestamp)
            if wanted.features is not None:
                np.testing.assert_array_equal(got.features, wanted.features)
    assert [results[2].status for results in alone] == ["failed"] * 3
    assert math.prod(together[0][2].features.shape) == 6 * 576  # type: ignore[union-attr]
