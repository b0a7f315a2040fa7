"""The catalog finds every clip, once, and says what is known of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import ConfigError
from pipeline.features.catalog import CATALOG_COLUMNS, discover, narrow

CLIPS = Path(__file__).parents[3] / "shared" / "clips"


def touch(root: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def told(catalog: pd.DataFrame, *columns: str) -> list[tuple[str, ...]]:
    return list(catalog[list(columns)].itertuples(index=False, name=None))


def test_a_folder_per_class_gives_labels_and_relative_ids(tmp_path: Path) -> None:
    touch(tmp_path, "walk/a.mp4", "run/deep/er/a.MP4", "run/notes.txt")
    catalog = discover(str(tmp_path))
    assert list(catalog.columns) == CATALOG_COLUMNS
    assert told(catalog, "video_id", "label", "split") == [
        ("run/deep/er/a.MP4", "run", ""),
        ("walk/a.mp4", "walk", ""),
    ]
    assert catalog["path"].tolist() == [str(tmp_path / i) for i in catalog["video_id"]]
    assert catalog["size_bytes"].tolist() == [1, 1]
    assert catalog["mtime_ns"][1] == (tmp_path / "walk/a.mp4").stat().st_mtime_ns


def test_a_folder_per_split_and_class_gives_both(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/a.mp4", "validation/run/b.mp4", "Test/walk/c.mp4")
    assert told(discover(str(tmp_path)), "video_id", "split", "label") == [
        ("Test/walk/c.mp4", "test", "walk"),
        ("train/run/a.mp4", "train", "run"),
        ("validation/run/b.mp4", "val", "run"),
    ]


def test_a_class_that_is_called_like_a_split_stays_a_class_beside_others(tmp_path: Path) -> None:
    touch(tmp_path, "test/a.mp4", "run/b.mp4")
    assert told(discover(str(tmp_path)), "label", "split") == [("run", ""), ("test", "")]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "v_Run_g03_c01.avi", "b.webm")
    assert told(discover(str(tmp_path)), "video_id", "label", "group") == [
        ("b.webm", "", ""),
        ("v_Run_g03_c01.avi", "", "g03"),
    ]


def test_one_file_is_a_catalog_of_one_whatever_its_ending(tmp_path: Path) -> None:
    touch(tmp_path, "odd.bin")
    assert told(discover(str(tmp_path / "odd.bin")), "video_id", "size_bytes") == [("odd.bin", 1)]


def test_strange_names_are_ordinary_rows(tmp_path: Path) -> None:
    names = ["-dash.mp4", "a b/ü ⛷.mp4", "a b/ü ⛷.avi", 'quo"te,comma.mp4', "50%d.mp4"]
    touch(tmp_path, *names)
    assert discover(str(tmp_path))["video_id"].tolist() == sorted(names)


def test_empty_files_are_listed_and_hidden_ones_and_stores_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "empty.webm", content=b"")
    touch(tmp_path, ".hidden.mp4", ".cache/a.mp4", "old.zarr/a.mp4")
    assert told(discover(str(tmp_path)), "video_id", "size_bytes") == [("empty.webm", 0)]


def test_links_in_a_circle_end_and_a_dangling_link_is_a_row(tmp_path: Path) -> None:
    touch(tmp_path, "a/clip.mp4")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert told(discover(str(tmp_path)), "video_id", "size_bytes") == [
        ("a/clip.mp4", 1),
        ("gone.mp4", -1),
    ]


def test_a_name_that_is_not_utf8_is_left_out_with_a_warning(tmp_path: Path) -> None:
    touch(tmp_path, "good.mp4")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mp4")).touch()
    with pytest.warns(UserWarning, match="not UTF-8"):
        assert discover(str(tmp_path))["video_id"].tolist() == ["good.mp4"]


def test_nothing_to_find_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no clip under"):
        discover(str(tmp_path))
    with pytest.raises(ConfigError, match="no file or folder"):
        discover(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="cannot be listed"):
        discover("nosuch://bucket/clips")


def manifest(folder: Path, text: str, name: str = "clips.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_manifest_keeps_its_order_and_its_columns(tmp_path: Path) -> None:
    touch(tmp_path, "z.mp4", "a/b.mp4")
    text = "extra,path,label,split,group\n1,z.mp4,run,training,one\n2,a/b.mp4,walk,,\n"
    catalog = discover(manifest(tmp_path, text))
    assert told(catalog, "video_id", "label", "split", "group", "size_bytes") == [
        ("z.mp4", "run", "train", "one", 1),
        ("a/b.mp4", "walk", "", "", 1),
    ]
    assert catalog["path"].tolist() == [f"{tmp_path}/z.mp4", f"{tmp_path}/a/b.mp4"]


def test_a_manifest_of_names_finds_the_folder_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "train/v_Run_g07_c01.avi")
    text = "video_name,tag\nv_Run_g07_c01.avi,Run\n"
    catalog = discover(manifest(tmp_path, text, "train.csv"))
    assert told(catalog, "video_id", "label", "group", "size_bytes") == [
        ("train/v_Run_g07_c01.avi", "Run", "g07", 1)
    ]


def test_a_manifests_missing_file_stays_as_a_row(tmp_path: Path) -> None:
    catalog = discover(manifest(tmp_path, "path\ngone.mp4\n"))
    assert told(catalog, "video_id", "size_bytes", "mtime_ns") == [("gone.mp4", -1, 0)]


def test_a_manifest_with_sizes_touches_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = manifest(tmp_path, "path,size_bytes,mtime_ns\na.mp4,5,7\nb.mp4,6,8\n")

    real = os.stat
    touched: list[object] = []

    def stat(path: object, **options: object) -> os.stat_result:
        touched.append(path)
        return real(path, **options)  # type: ignore[call-overload,no-any-return]

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        catalog = discover(listed)
    assert not [path for path in touched if str(path).endswith(".mp4")]
    assert told(catalog, "size_bytes", "mtime_ns") == [(5, 7), (6, 8)]


def test_paths_outside_the_manifests_folder_keep_the_id_they_were_given(tmp_path: Path) -> None:
    touch(tmp_path, "other/a.mp4", "lists/in.mp4")
    text = f"path\n../other/a.mp4\n{tmp_path}/lists/in.mp4\n{tmp_path}/other/a.mp4\n"
    catalog = discover(manifest(tmp_path / "lists", text))
    assert catalog["video_id"].tolist() == ["../other/a.mp4", "in.mp4", f"{tmp_path}/other/a.mp4"]
    assert (catalog["size_bytes"] == 1).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\na.mp4\n", "no column path"),
        ("path\na.mp4\n./a.mp4\n", "lists 'a.mp4' twice"),
        ('path,label\na.mp4,x\n"",y\n', "no path in row 3"),
        ("path,split\na.mp4,holdout\n", "split 'holdout'"),
        ("path,size_bytes\na.mp4,big\n", "size_bytes 'big'"),
        ("path,mtime_ns\na.mp4,99999999999999999999\n", "whole number"),
        ("path,video_name\na.mp4,b\n", "both path and video_name"),
        ("path\n", "lists no clip"),
        ("", "no column path"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        discover(manifest(tmp_path, text))


def ucf_lists(folder: Path) -> Path:
    folder.mkdir()
    (folder / "classInd.txt").write_text("1 Run\n2 Walk\n")
    (folder / "trainlist01.txt").write_text("Run/v_Run_g08_c01.avi 1\nWalk/v_Walk_g08_c01.avi 2\n")
    (folder / "testlist01.txt").write_text("Run/v_Run_g01_c01.avi\n")
    (folder / "trainlist02.txt").write_text("Run/v_Run_g01_c01.avi 1\n")
    (folder / "testlist02.txt").write_text("Run/v_Run_g08_c01.avi\nWalk/v_Walk_g08_c01.avi\n")
    return folder


def test_ucf_lists_give_splits_and_labels_of_a_flat_folder(tmp_path: Path) -> None:
    videos = touch(
        tmp_path / "v", "v_Run_g01_c01.avi", "v_Run_g08_c01.avi", "v_Walk_g08_c01.avi", "x.avi"
    )
    lists = ucf_lists(tmp_path / "lists")
    assert told(discover(str(videos), ucf_splits=str(lists)), "label", "split", "group") == [
        ("Run", "test", "g01"),
        ("Run", "train", "g08"),
        ("Walk", "train", "g08"),
        ("", "", ""),
    ]
    second = discover(str(videos), ucf_splits=f"{lists}:2")
    assert second["split"].tolist() == ["train", "test", "test", ""]


def test_ucf_lists_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    videos = touch(tmp_path / "v", "v_Run_g01_c01.avi")
    lists = ucf_lists(tmp_path / "lists")
    with pytest.raises(ConfigError, match="no list 3"):
        discover(str(videos), ucf_splits=f"{lists}:3")
    with pytest.raises(ConfigError, match=r"no trainlistNN\.txt"):
        discover(str(videos), ucf_splits=str(videos))
    (lists / "trainlist02.txt").write_text("Run/v_Run_g01_c01.avi 2\n")
    with pytest.raises(ConfigError, match="classInd gives to Walk"):
        discover(str(videos), ucf_splits=f"{lists}:2")
    (lists / "trainlist01.txt").write_text("Run/v_Run_g01_c01.avi 1\n")
    with pytest.raises(ConfigError, match="in both lists 01"):
        discover(str(videos), ucf_splits=str(lists))
    (lists / "testlist01.txt").unlink()
    with pytest.raises(ConfigError, match=r"no testlist01\.txt"):
        discover(str(videos), ucf_splits=str(lists))
    ucf_lists(tmp_path / "more")
    other = touch(tmp_path / "w", "a.avi")
    with pytest.raises(ConfigError, match="none of the 1 clips"):
        discover(str(other), ucf_splits=str(tmp_path / "more"))


def test_narrowing_by_class_and_number(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{n}.mp4" for c in ("jump", "run", "walk") for n in range(4)))
    catalog = discover(str(tmp_path))
    assert narrow(catalog).all()
    assert set(catalog["label"][narrow(catalog, classes=["run", "walk"])]) == {"run", "walk"}
    assert catalog["label"][narrow(catalog, limit=4)].tolist() == ["jump", "jump", "run", "walk"]
    assert narrow(catalog, per_class=2).sum() == 6
    with pytest.raises(ConfigError, match="did you mean walk"):
        narrow(catalog, classes=["wlak"])
    with pytest.raises(ConfigError, match="limit is -1"):
        narrow(catalog, limit=-1)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not here")
def test_real_clips_are_all_listed() -> None:
    fight = discover(str(CLIPS / "fight"))
    assert len(fight) == 120
    assert set(fight["label"]) == {"Fight", "NoFight"}
    assert fight["group"].str.fullmatch(r"g\d+").all()
    assert len(discover(str(CLIPS / "odd"))) == 22


def test_folders_nested_deeply_are_listed(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1100):  # deeper than Python's own stack
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("a.mp4", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    finally:
        os.close(here)
    assert discover(str(tmp_path))["video_id"].tolist() == ["d/" * 1100 + "a.mp4"]
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # too deep for shutil


def test_links_in_a_circle_are_rows_or_passed_over_and_never_followed_for_ever(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "a/clip.mp4")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "x.mp4").symlink_to(tmp_path / "y.mp4")
    (tmp_path / "y.mp4").symlink_to(tmp_path / "x.mp4")
    catalog = discover(str(tmp_path))
    assert told(catalog, "video_id", "size_bytes") == [
        ("a/clip.mp4", 1),
        ("x.mp4", -1),
        ("y.mp4", -1),
    ]


def test_folders_that_all_link_to_each_other_are_refused_in_a_sentence(tmp_path: Path) -> None:
    names = [f"d{number}" for number in range(6)]
    for name in names:
        touch(tmp_path, f"{name}/a.mp4")
        for other in names:
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    with pytest.raises(ConfigError, match="in more than 64 ways"):
        discover(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("path,label\na.mp4,x,\nb.mp4,y,\n", [("a.mp4", "x"), ("b.mp4", "y")]),
        ("path,label,\na.mp4,x,,\nb.mp4,y\n", [("a.mp4", "x"), ("b.mp4", "y")]),
        ('path,label\n"a, b.mp4",x\n', [("a, b.mp4", "x")]),
    ],
)
def test_commas_at_a_lines_end_shift_no_column(
    tmp_path: Path, text: str, rows: list[tuple[str, str]]
) -> None:
    assert told(discover(manifest(tmp_path, text)), "video_id", "label") == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na, b.mp4,x\n", "3 values for 2 columns in line 2"),
        ("path\na\0.mp4\n", "NUL character in line 2"),
        ('path\n"a.mp4\n', "cannot be read as a manifest"),
        ("path,path\na,b\n", "two columns path"),
    ],
)
def test_a_line_that_cannot_be_meant_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        discover(manifest(tmp_path, text))


def test_a_file_url_in_a_manifest_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    catalog = discover(manifest(tmp_path, f"path\nfile://{tmp_path}/a.mp4\n"))
    assert told(catalog, "video_id", "size_bytes") == [("a.mp4", 1)]


def test_a_fifo_in_a_manifest_is_a_row_and_one_in_a_folder_is_not(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "fifo.mp4")
    listed = discover(manifest(tmp_path, "path\nfifo.mp4\na.mp4\n"))
    assert listed["video_id"].tolist() == ["fifo.mp4", "a.mp4"]
    assert discover(str(tmp_path))["video_id"].tolist() == ["a.mp4"]


@pytest.mark.parametrize(
    "path",
    [
        "reference::https://host/refs.json",
        "simplecache::https://host/a.mp4",
        "zip://a.mp4::https://host/clips.zip",
        "dir://etc::file://",
        "github://org:repo@main/a.mp4",
        "jupyter://host/a.mp4",
        "memory://a.mp4",
        "FILE://etc/passwd",
    ],
)
def test_a_manifest_names_clips_at_storage_services_only(tmp_path, path):
    manifest = tmp_path / "clips.csv"
    manifest.write_text(f"path,label,size_bytes,mtime_ns\na.mp4,x,1,1\n{path},x,1,1\n")
    with pytest.raises(ConfigError, match=r"row 3, names a clip at|carries credentials"):
        discover(str(manifest))


def test_credentials_are_seen_in_every_link_of_a_chain(tmp_path):
    with pytest.raises(ConfigError, match="carries credentials") as refused:
        discover("simplecache::https://me:hush@host/clips")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("stray", ["c.mp4", "extra/c.mp4", "extra/run/c.mp4"])
def test_a_stray_clip_beside_the_splits_relabels_no_other(tmp_path: Path, stray: str) -> None:
    touch(tmp_path, "train/run/a.mp4", "test/run/b.mp4", stray)
    with pytest.warns(UserWarning, match=rf"1 clips \(such as {stray}\) stand beside"):
        catalog = discover(str(tmp_path)).sort_values("split")
    assert told(catalog, "label", "split") == [("", ""), ("run", "test"), ("run", "train")]


def test_blanks_around_labels_groups_and_splits_do_not_count(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    text = 'path,label,split,group\na.mp4,"run ",Train , one \nb.mp4,run,dev,one\n'
    catalog = discover(manifest(tmp_path, text))
    assert told(catalog, "label", "split", "group") == [
        ("run", "train", "one"),
        ("run", "val", "one"),
    ]
