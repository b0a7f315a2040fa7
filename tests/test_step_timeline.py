"""A head that labels every step along a long video: one pass, one sequence, segments as files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.timeline import overlap
from pipeline.drawing import label_colours
from pipeline.heads.lean import keras
from pipeline.predict.overlay import Painter
from pipeline.predict.stepping import make_step_timeline
from pipeline.predict.subtitles import write_results, write_srt, write_vtt
from pipeline.predict.timeline import Segment, Timeline, labelled, write_timeline
from pipeline.spec import Sampling, Spec
from tests.test_timeline import CLASSES, Channels, video

DRAWS = False
__all__ = ["video"]


def head(activation: str = "softmax") -> Any:
    """A run whose head says each step's own colour."""
    features = keras.Input((None, 3), name="features")
    mask = keras.Input((None,), name="mask", dtype="bool")
    turned = keras.layers.Lambda(lambda x: x[..., ::-1] / 16 - 4, output_shape=(None, 3))(features)
    output = keras.layers.Activation(activation)(turned)
    model = keras.Model({"features": features, "mask": mask}, output)
    model.run_eagerly = True
    spec = Spec(sampling=Sampling(steps=8, rule="fps", fps=4), size=8, shape=(3,), fit="squash")
    return SimpleNamespace(
        spec=spec.to_dict(),
        classes=CLASSES,
        steps=8,
        shape=(3,),
        folder=Path("run"),
        first_stage={"clip_seconds": 2.0},
        model=model,
        per_step=True,
        multi_label=activation == "sigmoid",
    )


def test_segments_lie_where_the_steps_labels_are(video: tuple[str, list[Segment]]) -> None:
    path, true = video
    backbone, told = Channels(), []
    found = make_step_timeline(head(), backbone, path, on_frames=told.append)
    # Four steps a second of a minute, each computed once, and none in a window.
    assert backbone.frames == found.frames == told[-1] == len(found.times) == 240
    assert found.window_s == pytest.approx(0.25)
    assert found.cuts == ()
    parts = labelled(found, multi_label=False)
    assert [part.label for part in parts] == [part.label for part in true]
    # A border is at most half a step off, and no shot was told apart by its cut.
    assert min(overlap(parts, true).values()) > 0.97
    assert parts[0].start_s == 0
    assert parts[-1].end_s == pytest.approx(60, abs=0.05)


def timeline(probabilities: np.ndarray, classes: tuple[str, ...]) -> Timeline:
    n = len(probabilities)
    return Timeline(
        times=np.arange(n) + 0.5,
        probabilities=probabilities.astype(np.float32),
        classes=classes,
        window_s=1.0,
        duration_s=float(n),
        frames=n,
        decoded=n,
    )


def test_background_is_no_segment() -> None:
    p = np.eye(2)[[0, 1, 1, 0, 1]]
    parts = labelled(timeline(p, ("background", "run")), multi_label=False)
    assert [(part.label, part.start_s, part.end_s) for part in parts] == [
        ("run", 1, 3),
        ("run", 4, 5),
    ]
    longer = labelled(timeline(p, ("background", "run")), multi_label=False, least_s=1.5)
    assert [(part.start_s, part.end_s) for part in longer] == [(1, 3)]


def test_a_label_has_one_colour_in_the_strip_and_the_bars_and_background_none() -> None:
    classes = ("background", "Run", "Walk")
    colours = label_colours(classes)
    assert set(colours) == {"Run", "Walk"}
    video_timeline = timeline(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), classes)
    parts = labelled(video_timeline, multi_label=False)
    painter = Painter(timeline=video_timeline, parts=parts, width=480)
    band = painter.band(0.5)
    run = np.array([round(255 * channel) for channel in colours["Run"]])
    np.testing.assert_array_equal(band[-3, 60], run)
    np.testing.assert_allclose(band[painter.height // 10, 200], 0.75 * run, atol=1)
    quiet = painter.band(1.5)
    np.testing.assert_array_equal(quiet[-3, 460], (120, 125, 135))
    np.testing.assert_allclose(quiet[painter.height // 10, 200], (90, 94, 101), atol=1)


def test_labels_that_may_apply_at_a_time_have_segments_of_their_own() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.6], [0.2, 0.7], [0.6, 0.1]])
    parts = labelled(timeline(p, ("run", "wave")), multi_label=True)
    assert [(part.label, part.start_s, part.end_s) for part in parts] == [
        ("run", 0, 2),
        ("wave", 1, 3),
        ("run", 3, 4),
    ]
    assert parts[0].probability == pytest.approx(0.85)
    assert len(labelled(timeline(p, ("run", "wave")), multi_label=True, least_s=1.5)) == 2


PARTS = [
    Segment(start_s=0.5, end_s=2.25, label="run & <jump>", probability=0.75),
    Segment(start_s=3661.9996, end_s=3700, label="two\nlines --> one", probability=0.5),
]


def test_subtitles_are_those_that_players_read(tmp_path: Path) -> None:
    write_srt(tmp_path / "a.srt", PARTS)
    assert (tmp_path / "a.srt").read_text() == (
        "1\n00:00:00,500 --> 00:00:02,250\nrun & <jump>\n\n"
        "2\n01:01:02,000 --> 01:01:40,000\ntwo lines → one\n"
    )
    write_vtt(tmp_path / "a.vtt", PARTS)
    assert (tmp_path / "a.vtt").read_text() == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.250\nrun &amp; &lt;jump&gt;\n\n"
        "01:01:02.000 --> 01:01:40.000\ntwo lines → one\n"
    )
    write_srt(tmp_path / "none.srt", [])
    assert (tmp_path / "none.srt").read_text() == ""


def test_results_are_those_that_activitynets_evaluation_reads(tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", "match", PARTS)
    found = json.loads((tmp_path / "r.json").read_text())
    assert set(found) == {"version", "results", "external_data"}
    assert found["results"]["match"][0] == {
        "label": "run & <jump>",
        "score": 0.75,
        "segment": [0.5, 2.25],
    }


def test_the_table_has_a_line_for_every_step(tmp_path: Path) -> None:
    write_timeline(tmp_path / "t.csv", timeline(np.eye(2), ("background", "=run")))
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines == ["time_s,background,'=run", "0.500,1.00000,0.00000", "1.500,0.00000,1.00000"]
