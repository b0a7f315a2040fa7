"""Any manifest and any folder end in a catalog or in one sentence: never a traceback, never a hang."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, PixelsError
from pipeline.features.catalog import CATALOG_COLUMNS, discover
from tests.sharing import examples

pytestmark = pytest.mark.timeout(120)

WORDS = [
    *("path", "video_name", "label", "tag", "split", "group", "size_bytes", "mtime_ns"),
    *(",", ",", ",", "\n", "\n", "\n", "\r", "\r\n", "\t", '"', "'", "\0", "\ufeff", " ", ";"),
    *("a.mp4", "b c.mp4", "⛷.mp4", "../a.mp4", "/", "./", "//", "..", "~", "%41", "$HOME"),
    *("file:///a.mp4", "file://", "memory://a.mp4", "nonsense://a.mp4", "://", "#t=1,2", "?x=1"),
    *("train", "test", "dev", "holdout", "-1", "1e9", "nan", "9" * 25, "x" * 5000, "a/" * 3000),
]
PIECES = st.one_of(st.sampled_from(WORDS), st.text(max_size=6))
MANIFESTS = st.one_of(
    st.binary(max_size=200),
    st.lists(PIECES, max_size=40).map(lambda pieces: "".join(pieces).encode(errors="replace")),
    st.lists(PIECES, max_size=40).map(
        lambda p: ("path,label\n" + "".join(p)).encode(errors="replace")
    ),
)
NAMES = st.one_of(
    st.sampled_from(
        ["a", "b.mp4", "c.MP4", ".hidden.mp4", "train", "test", "Jump", "x.zarr", "⛷.avi"]
    ),
    st.text(
        st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)),
        min_size=1,
        max_size=8,
    ),
)
KINDS = st.sampled_from(["file", "empty", "folder", "folder", "link", "link", "fifo", "bytes"])
TREES = st.lists(st.tuples(st.integers(0, 20), NAMES, KINDS, st.integers(0, 20)), max_size=15)


def is_sound(catalog: pd.DataFrame) -> bool:
    return (
        list(catalog.columns) == CATALOG_COLUMNS
        and len(catalog) > 0
        and catalog["video_id"].is_unique
        and bool((catalog["video_id"] != "").all())
    )


def is_sound_or_refused(videos: str) -> bool:
    """Any other error than `ConfigError` goes on to the test."""
    try:
        catalog = discover(videos)
    except ConfigError:
        return True
    return is_sound(catalog)


@given(data=MANIFESTS)
@settings(max_examples=examples(100), deadline=None)
def test_any_manifest_is_a_catalog_or_one_sentence(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "clips.csv"
        manifest.write_bytes(data)
        assert is_sound_or_refused(str(manifest))


def grow(root: Path, tree: list[tuple[int, str, str, int]]) -> None:
    """Make the entries that the file system takes; links lead to any entry, one above included."""
    places = [root]
    entries = [root]
    for where, name, kind, target in tree:
        path = places[where % len(places)] / name
        try:
            if os.path.lexists(path):
                continue
            if kind == "folder":
                path.mkdir()
                places.append(path)
            elif kind == "link":
                path.symlink_to(entries[target % len(entries)] if target else root / "nowhere")
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "bytes":
                with open(os.fsencode(path.parent) + b"/\xff\xfe" + os.fsencode(name), "wb"):
                    pass
            else:
                path.write_bytes(b"" if kind == "empty" else b"x")
        except OSError:
            continue  # a name that this file system does not take
        entries.append(path)


@given(tree=TREES)
@settings(max_examples=examples(100), deadline=None)
@pytest.mark.filterwarnings("ignore:.*left out")
def test_any_folder_is_a_catalog_or_one_sentence(tree: list[tuple[int, str, str, int]]) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        grow(root, tree)
        assert is_sound_or_refused(str(root))
    finally:
        shutil.rmtree(root)


def test_a_folder_that_may_be_listed_but_not_entered_is_one_sentence(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser enters every folder")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.mp4").write_bytes(b"x")
    (tmp_path / "a").chmod(0o400)
    try:
        with pytest.raises(ConfigError, match="give the right to read and enter it"):
            discover(str(tmp_path))
    finally:
        (tmp_path / "a").chmod(0o700)


@pytest.mark.parametrize("place", ["memory://nowhere/clips.csv", "nonsense://a/clips.csv"])
def test_a_manifest_that_is_not_there_is_one_sentence(place: str) -> None:
    with pytest.raises(PixelsError) as caught:
        discover(place)
    assert str(caught.value).startswith(f"{place} cannot be read")
    assert "\n" not in str(caught.value)


def test_a_manifest_by_url_is_read(tmp_path: Path) -> None:
    import fsspec

    with fsspec.open("memory://lists/clips.csv", "wb") as file:
        file.write(b"path,label\na.mp4,Jump\n")
    (row,) = discover("memory://lists/clips.csv").to_dict("records")
    assert (row["video_id"], row["label"]) == ("a.mp4", "Jump")
