"""The report's page: whole in itself, safe with any name, and told in words for who cannot see it."""

from __future__ import annotations

import dataclasses
import io
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from pipeline.drawing import label_colours
from pipeline.features.previews import jpeg
from pipeline.report.boards import board_of
from pipeline.report.contents import (
    ClipCard,
    ConfusedPair,
    Contents,
    FeatureMap,
    Pair,
    RunView,
    Strip,
    save_grid,
)
from pipeline.report.page import render

NASTY = '</script><script>alert("x")</script> & <b>"é" 🎬'


def picture(value: int = 90) -> bytes:
    return jpeg(np.full((128, 128, 3), value, np.uint8))


def card(name: str = "a/b.mp4", **more: Any) -> ClipCard:
    return ClipCard(video_id=name, label="walk", pictures=(picture(), picture(120)), **more)


def contents(rows: int = 12, name: str = "clips.zarr") -> Contents:
    state = np.where(np.arange(rows) % 6 == 5, "failed", "ready")
    table = pd.DataFrame(
        {
            "video_id": [f"{name}-{i}" for i in range(rows)],
            "label": np.where(np.arange(rows) % 2, "walk", NASTY),
            "split": "",
            "group": [f"g{i % 3}" for i in range(rows)],
            "state": state,
            "reason": np.where(state == "failed", "unreadable", ""),
            "size_bytes": 10_000,
            "fps": 25.0,
            "frames_decoded": 50 + np.arange(rows),
            "height": 240,
        }
    )
    board = pd.DataFrame(
        [{"run": "gru-1", "head": "gru", "top1": 0.5, "spread": np.nan, "top5": 1.0,
          "frame_average": 0.4, "parameters": 1234, "clips": 6}]
    )  # fmt: skip
    run = RunView(
        name="gru-1",
        metrics={"test": {"top1": 0.5, "top1_interval": [0.2, 0.8]}, "baseline": {}},
        history=pd.DataFrame({"epoch": [1, 2], "top1": [0.4, 0.6], "val_top1": [0.3, 0.5]}),
        confusion=pd.DataFrame([[2, 1], [0, 3]], index=["run", "walk"], columns=["run", "walk"]),
        mistakes=[card(NASTY, note="called run, 97% sure")],
        confused=[ConfusedPair(label=NASTY, predicted="walk", clips=3, shown=[card("pair.mp4")])],
    )
    return Contents(
        name=name,
        made="today",
        facts=[("backbone", "frames")],
        table=table,
        remedies={"unreadable": ("no decoder opens it", "replace it")},
        wall=[card(), card("c.mp4")],
        failed=[ClipCard(video_id="bad.mp4", label="walk", note="unreadable")],
        feature_map=FeatureMap(
            points=np.random.default_rng(0).random((rows, 2), np.float32),
            video_ids=table["video_id"].tolist(),
            labels=table["label"].tolist(),
            shares=(0.4, 0.2),
            pictures={0: picture()},
        ),
        pairs=[Pair(first=card(), second=card("z"), similarity=0.99, suspect="different splits")],
        pairs_note="1 pair.",
        boards=[board],
        leaks=["leak check: without any action one frame's border strip 0.350"],
        learning=(("training", "top-1"), [("gru-1", "0.500")]),
        runs=[run],
    )


class Page(HTMLParser):
    """Collects what the tests ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(contents()))


def test_the_page_needs_nothing_from_anywhere(page: Page) -> None:
    assert not page.all("link") or all(str(a["href"]).startswith("data:") for a in page.all("link"))
    assert all("src" not in attributes for attributes in page.all("script"))
    for image in page.all("img"):
        assert "src" not in image or str(image["src"]).startswith("data:image/jpeg;base64,")


def test_a_board_has_its_leak_check_and_a_run_the_classes_it_confuses_with_clips() -> None:
    text = " ".join(render(contents()).split())
    assert "Leak check: without any action one frame&#39;s border strip 0.350." in text
    assert "called walk: 3 clips" in text
    assert "pair.mp4" in text
    assert "Learning curves" in text


def test_a_long_video_is_a_strip_of_time_with_truth_above_prediction() -> None:
    strip = Strip(
        video_id="long.mp4",
        duration_s=80,
        truth=[(0, 20, "run"), (40, 60, NASTY)],
        prediction=[(0, 24, "run")],
    )
    classes = ["background", "jump", "run", NASTY]
    run = RunView(
        name="seg",
        metrics={"labels": "steps", "test": {"frame_accuracy": 0.5, "f1@50": 0.25, "map": None}},
        history=pd.DataFrame({"epoch": [1, 2], "top1": [0.4, 0.6], "val_top1": [0.3, 0.5]}),
        confusion=None,
        strips=[strip],
        classes=classes,
    )
    text = render(dataclasses.replace(contents(), runs=[run]))
    page = Page(text)
    bars = [
        (float(str(a["x"])), int(str(a["y"])), float(str(a["width"])))
        for a in page.all("rect")
        if "x" in a
    ]
    # Of 80 seconds on 1000: the truth at the top, the prediction below.
    assert bars == [(0, 0, 250), (500, 0, 250), (0, 25, 300)]
    colours = {(a["fill"], a["y"]) for a in page.all("rect") if "fill" in a}
    # Those of the run's other pictures, whichever of its labels are in the strip.
    red, green, blue = label_colours(classes)["run"]
    run_colour = "#" + "".join(f"{round(255 * channel):02x}" for channel in (red, green, blue))
    assert {y for colour, y in colours if colour == run_colour} == {"0", "25"}
    assert len({colour for colour, _ in colours}) == 2
    assert "background</li>" not in text
    assert "jump</li>" not in text
    (drawing,) = page.all("svg")
    assert drawing["aria-label"] == "long.mp4: 2 segments in truth and 1 predicted, over 1:20.0."
    assert "<title>true: run, 0:00.0 to 0:20.0</title>" in text
    assert "<script>alert" not in text
    assert "seg: frame accuracy 0.500, F1@50 0.250<" in " ".join(text.split())


def test_names_from_a_data_set_stay_words() -> None:
    text = render(contents(name=NASTY))
    assert "<script>alert" not in text
    assert Page(text).all("b") == Page(render(contents())).all("b")  # no <b> of theirs


def test_every_chart_is_told_in_words_and_every_picture_has_an_alternative(page: Page) -> None:
    charts = [a for a in page.all("div") if "data-figure" in a]
    assert len(charts) >= 6
    assert all(a["role"] == "img" and len(str(a["aria-label"])) > 20 for a in charts)
    assert all("alt" in a for a in page.all("img"))


def test_every_link_in_the_page_leads_somewhere(page: Page) -> None:
    ids = {a["id"] for _, a in page.tags if "id" in a}
    anchors = [str(a["href"])[1:] for a in page.all("a")]
    assert anchors
    assert set(anchors) <= ids


def test_headings_descend_without_gaps(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_a_store_without_runs_pictures_or_labels_has_a_page_too() -> None:
    table = contents().table.assign(label="", group="", reason="", state="pending")
    text = render(Contents(name="new.zarr", made="today", facts=[], table=table))
    assert "Trained heads" not in text
    assert "Clips per class" not in text
    assert "no label" not in text
    assert "<b>0</b> classes" not in text


def test_the_bytes_of_a_file_count_once_however_many_rows_are_parts_of_it() -> None:
    table = contents().table.assign(size_bytes=2**20, state="ready", file="")
    whole = render(Contents(name="a.zarr", made="today", facts=[], table=table))
    assert "<b>12.0 MiB</b> of clips" in whole
    assert "</b> files" not in whole
    parts = table.assign(file=["a.mp4"] * 5 + ["b.mp4"] * 6 + [""])
    text = render(Contents(name="a.zarr", made="today", facts=[], table=parts))
    assert "<b>3.0 MiB</b> of clips" in text
    assert "<b>3</b> files" in text


def test_heads_of_steps_are_ranked_by_the_published_figures_on_videos() -> None:
    line = {
        "run": "seg",
        "head": "segmenter",
        "top1": 0.5,
        "spread": np.nan,
        "top5": 1.0,
        "macro_f1": 0.4,
        "frame_average": np.nan,
        "parameters": 1234,
        "clips": 1,
    }
    board = pd.DataFrame([{**line, "frame_accuracy": 0.5, "f1@50": 0.25, "step_map": np.nan}])
    lines = board_of(board)
    assert list(lines.head) == [
        *("run", "head", "frame accuracy", "F1@50", "parameters", "test videos"),
    ]
    assert lines.rows == [["seg", "segmenter", "0.500", "0.250", "1,234", "1"]]
    assert (lines.tested, lines.what) == ("1 video", "frame accuracy on test videos")
    clips = board_of(pd.DataFrame([line]))
    assert (clips.tested, clips.what) == ("1 clip", "top-1 on test clips")
    assert clips.rows == [["seg", "segmenter", "0.500", "1.000", "0.400", "1,234", "1"]]


def test_the_grid_is_a_picture_file(tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    save_grid([card(note="0.9"), ClipCard(video_id="none", label="")] * 3, path, title="likes")
    assert matplotlib.image.imread(io.BytesIO(path.read_bytes())).shape[1] > 500
