"""The frames that we read are those that `ffmpeg` decodes: which, how many, upright, colours, when.

The plain run takes the quick clips by some paths, `make frames` and the long tests all of them by all.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UnreadableClip
from tests.frames import corpus as frames
from tests.frames.comparing import Truth, compare_clip
from tests.frames.corpus import Corpus, Examined
from tests.frames.making import NotMade
from tests.frames.painting import number_in, painted, turned_ways
from tests.frames.paths import by_reader
from tests.frames.recipes import RECIPES, Recipe
from tests.frames.reference import NoReference, reference
from tests.frames.table import PAGE, page_rows, row

needs_ffmpeg = pytest.mark.skipif(not frames.HERE, reason="ffmpeg and ffprobe are not installed")
SHARED = os.environ.get("PIXELS_ONCE_SHARED", "")
needs_shared = pytest.mark.skipif(
    not SHARED, reason="PIXELS_ONCE_SHARED does not say where clips are"
)

QUICK = [recipe for recipe in RECIPES if recipe.quick]
SOME = (("reader", "uniform"), ("reader", "fps"), ("reader", "stride"), ("seeking", "first"))


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize("recipe", QUICK, ids=str)
def test_a_clips_frames_are_those_that_ffmpeg_decodes(recipe: Recipe, corpus: Corpus) -> None:
    cells = (*SOME, ("child", "uniform"), frames.TIMELINE)
    assert_right(examined(corpus, recipe, cells), some=True)


@pytest.mark.long
@needs_ffmpeg
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_path_and_rule_gives_the_frames_that_ffmpeg_decodes(
    recipe: Recipe, corpus: Corpus
) -> None:
    found = examined(corpus, recipe)
    assert_right(found)
    assert row(found) in page_rows(PAGE.read_text(encoding="utf-8")), "make frames writes the page"


def examined(
    corpus: Corpus, recipe: Recipe, cells: tuple[tuple[str, str], ...] = frames.ALL
) -> Examined:
    """The clip's cells; skipped where this `ffmpeg`, not Debian's, cannot make the clip."""
    try:
        return corpus.examine(recipe, cells)
    except NotMade as error:
        pytest.skip(str(error))


def assert_right(found: Examined, *, some: bool = False) -> None:
    """No difference but those that the recipe gives a reason for, and each of those is there."""
    recipe = found.recipe
    if found.reference is not None and recipe.numbers and "colours" not in recipe.apart:
        seen = [number_in(picture) for picture in found.reference.pictures]
        assert seen == list(recipe.numbers), "the reference itself is not what was painted"
    unexplained = {
        text: cells
        for text, cells in found.differences().items()
        if text.split(":")[0] not in recipe.apart
    }
    assert not unexplained
    if not some:
        assert set(recipe.apart) <= found.kinds(), "a reason for what is no longer apart"


def test_the_page_lists_the_corpus() -> None:
    names = [line.split("|")[1].strip(" `") for line in page_rows(PAGE.read_text(encoding="utf-8"))]
    assert names == [recipe.name for recipe in RECIPES], "make frames writes the page"


def test_the_corpus_is_wide_enough() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES) >= 80
    endings = {recipe.name.rsplit(".", 1)[1] for recipe in RECIPES}
    assert endings >= {"mp4", "mov", "mkv", "webm", "avi", "ts", "m2ts", "flv", "mpg", "ogv", "3gp"}
    assert endings >= {"gif", "h264", "hevc", "mjpeg"}


@pytest.mark.parametrize("number", [0, 1, 85, 254, 255])
@pytest.mark.parametrize("size", [(128, 96), (127, 95), (64, 48), (720, 576)])
def test_a_painted_number_is_read_upright_and_no_other_way(
    number: int, size: tuple[int, int]
) -> None:
    picture = painted(number, *size)
    assert number_in(picture) == number
    assert turned_ways(picture) == ["as is"]
    assert turned_ways(picture[:, ::-1]) == ["mirrored"]
    assert turned_ways(np.rot90(picture)) == ["turned by 90°"]
    assert turned_ways(picture[::-1]) == ["mirrored and turned by 180°"]


def _shared(folder: str) -> list[dict[str, str]]:
    table = Path(SHARED, "clips", folder, "expected.csv")
    if not SHARED or not table.exists():
        return []
    with table.open(encoding="utf-8") as file:
        return [
            {**line, "path": str(table.with_name(line["file"]))} for line in csv.DictReader(file)
        ]


@pytest.mark.long
@needs_ffmpeg
@needs_shared
@pytest.mark.parametrize(
    "line", [*_shared("cases"), *_shared("odd")], ids=lambda line: line["file"]
)
def test_real_odd_files_give_the_frames_that_ffmpeg_decodes(line: dict[str, str]) -> None:
    path = Path(line["path"])
    if line["status"] == "failed":
        with pytest.raises(UnreadableClip):
            by_reader(path, "uniform")
        return
    try:
        truth = Truth.of(reference(path))
    except NoReference as error:
        pytest.skip(f"no reference: {error}")
    for rule in ("uniform", "fps"):
        found = compare_clip(by_reader(path, rule), truth, rule)
        assert found.differences == {}, rule
    count = line.get("frames") or line.get("frames_decoded")
    assert len(truth.reference) == int(count or 0)
