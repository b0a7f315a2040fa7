"""Parts of every clip of the corpus: the pictures that reading it from front to back gives there.

That reading is held against `ffmpeg` in `test_frames`; here its frames are cut up by arithmetic.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UnreadableClip
from pipeline.features.decoding import FramePlan, parts
from pipeline.features.decoding.parts import PartReader
from pipeline.features.decoding.video import Video
from pipeline.features.sampling import slack_of
from pipeline.spans import WHOLE, Span
from pipeline.spec import Sampling
from tests.frames.corpus import Corpus
from tests.frames.making import NotMade
from tests.frames.recipes import RECIPES, Recipe
from tests.frames.test_frames import needs_ffmpeg

STEPS = 5
PLAN = FramePlan(sampling=Sampling(steps=STEPS), size=64)


def random_spans(times: list[float], name: str) -> list[Span]:
    rng = random.Random(name)
    spans = [WHOLE, Span(None, None, 1, 2)]
    for _ in range(5):
        start = round(rng.uniform(0, times[-1]), 3)
        spans.append(Span(start, start + round(rng.uniform(0.05, times[-1]), 3)))
        first = rng.randrange(1, len(times) - 1)
        spans.append(Span(None, None, first, rng.randrange(first + 1, len(times) + 1)))
    return spans


def picked(span: Span, times: list[float], slack_s: float) -> list[int]:
    """The frames of a span that `uniform` takes."""
    if span.start_frame is not None:
        inside = list(range(len(times)))[span.start_frame : span.end_frame]
    else:
        low = (span.start_s or 0.0) - slack_s
        high = float("inf") if span.end_s is None else span.end_s - slack_s
        inside = [i for i, time_s in enumerate(times) if low <= time_s < high]
    if len(inside) <= STEPS:
        return inside
    return [inside[(2 * k + 1) * len(inside) // (2 * STEPS)] for k in range(STEPS)]


@pytest.mark.long
@needs_ffmpeg
@pytest.mark.parametrize("recipe", [r for r in RECIPES if not r.fails], ids=str)
def test_parts_have_the_frames_of_the_whole(
    recipe: Recipe, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        path = corpus.clip(recipe)
    except NotMade as error:
        pytest.skip(str(error))
    pictures, times, slack_s = read_whole(path)
    if len(times) < 3:
        pytest.skip("too short for parts")
    spans = random_spans(times, path.name)
    for long_frames in (10**9, 1):  # through, and sought where that is exact
        monkeypatch.setattr(parts, "LONG_FRAMES", long_frames)
        with PartReader(str(path), PLAN, spans) as reader:
            for number, span in enumerate(spans):
                right = picked(span, times, slack_s)
                if not right:
                    with pytest.raises(UnreadableClip, match="empty_segment"):
                        reader.read(number)
                    continue
                read = reader.read(number)
                assert read.frame_index.tolist() == right, span
                np.testing.assert_array_equal(read.frames, [pictures[i] for i in right])


def read_whole(path: Path) -> tuple[list[np.ndarray], list[float], float]:
    """Every picture and its time, and by how much a time may be off."""
    pictures, times = [], []
    with Video(str(path)) as video:
        for frame in video:
            pictures.append(video.fitted(frame, PLAN))
            times.append(frame.time_s)
        return pictures, times, slack_of(video.tick_s)
