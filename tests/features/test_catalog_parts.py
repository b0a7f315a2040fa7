"""Parts of files in a manifest: their ids, bounds and groups, and what is refused, with its line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.features.catalog import clip_sources, discover
from pipeline.spans import BOUNDS, WHOLE, Span
from tests.features.test_catalog import manifest, told, touch


def listed(tmp_path: Path, text: str) -> list[tuple[str, ...]]:
    return told(discover(manifest(tmp_path, text)), "video_id", "file", "group")


def test_bounds_make_parts_of_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "match.mp4", "other.mp4")
    text = (
        "path,label,start,end,start_frame,end_frame\n"
        "match.mp4,serve,12.5,17,,\nmatch.mp4,smash,1:02.5,1:10,,\n"
        "match.mp4,rally,,,100,250\nmatch.mp4,end,70,,,\nother.mp4,serve,,,,\n"
    )
    catalog = discover(manifest(tmp_path, text))
    assert told(catalog, "video_id", "file", "group") == [
        ("match.mp4#t=12.5,17", "match.mp4", "match.mp4"),
        ("match.mp4#t=62.5,70", "match.mp4", "match.mp4"),
        ("match.mp4#frames=100,250", "match.mp4", "match.mp4"),
        ("match.mp4#t=70", "match.mp4", "match.mp4"),
        ("other.mp4", "", ""),
    ]
    assert set(catalog["path"]) == {str(tmp_path / name) for name in ("match.mp4", "other.mp4")}
    spans = [Span(12.5, 17), Span(62.5, 70), Span(None, None, 100, 250), Span(70.0), WHOLE]
    assert [source.span for source in clip_sources(catalog)] == spans
    assert catalog["start_s"].dtype == np.float64
    assert catalog[list(BOUNDS)].iloc[4].isna().tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ("5,5", "is empty"),
        ("5,4", "is empty"),
        ("-1,4", "0 or more"),
        ("nan,4", "0 or more"),
        ("1,inf", "0 or more"),
        ("0,0", "is empty"),
        ("x,4", "no number"),
        ("1:75,200", "no number"),
        ("1_0,20", "no number"),
        ("0,1e300", "beyond any video"),
        (f"0,{'9' * 400}:00:00", "beyond any video|0 or more"),
    ],
)
def test_bounds_that_hold_nothing_are_refused_with_their_line(
    tmp_path: Path, bounds: str, words: str
) -> None:
    touch(tmp_path, "a.mp4")
    text = f'label,path,start,end\n\n"two\nlines",a.mp4,0,1\nx,a.mp4,{bounds}\n'
    with pytest.raises(ConfigError, match=rf"clips.csv, line 5: .*{words}"):
        discover(manifest(tmp_path, text))


def test_seconds_and_frames_of_one_row_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    text = "path,start,end,start_frame,end_frame\na.mp4,1,2,,\na.mp4,,,1,2\na.mp4,1,2,3,4\n"
    with pytest.raises(ConfigError, match="line 4: the part has bounds in seconds and in frames"):
        discover(manifest(tmp_path, text))


def test_a_fragment_of_the_path_names_a_part_unless_a_file_has_that_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4#t=1,2", "50% é 🎾.mp4")
    text = 'path,label\n"a.mp4#t=1,3",x\n"b.mp4#t=1,2",y\n"50% é 🎾.mp4#t=0.5",z\n'
    catalog = discover(manifest(tmp_path, text))
    assert told(catalog, "video_id", "file") == [
        ("a.mp4#t=1,3", "a.mp4"),
        ("b.mp4#t=1,2", ""),
        ("50% é 🎾.mp4#t=0.5", "50% é 🎾.mp4"),
    ]
    assert catalog["size_bytes"].tolist() == [1, 1, 1]
    # A part of the file with the strange name; and an id that two files would have.
    text = 'path,start,end\n"b.mp4#t=1,2",0,1\n'
    assert listed(tmp_path, text)[0][0] == "b.mp4#t=1,2#t=0,1"
    touch(tmp_path, "b.mp4")
    text = 'path,start,end\n"b.mp4#t=1,2",,\nb.mp4,1,2\n'
    with pytest.raises(ConfigError, match="twice"):
        discover(manifest(tmp_path, text))
    with pytest.raises(ConfigError, match="line 2: the path has a fragment, and there are bounds"):
        discover(manifest(tmp_path, 'path,start,end\n"a.mp4#t=1,3",0,1\n'))


def test_one_file_may_be_asked_for_in_part(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4#t=1")
    (one,) = clip_sources(discover(f"{tmp_path}/a.mp4#t=0:01,3"))
    assert (one.path, one.span) == (str(tmp_path / "a.mp4"), Span(1.0, 3.0))
    (strange,) = clip_sources(discover(f"{tmp_path}/b.mp4#t=1"))
    assert strange.span == WHOLE
    with pytest.raises(ConfigError, match="is empty"):
        discover(f"{tmp_path}/a.mp4#t=3,1")
    with pytest.raises(ConfigError, match="no clip, and #t=1,3 names a part"):
        discover(f"{tmp_path}#t=1,3")


def test_an_id_column_names_parts_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    text = "path,id,start,end\na.mp4,one,1,2\na.mp4,,2,3\nb.mp4,all,,\n"
    assert listed(tmp_path, text) == [
        ("one", "a.mp4", "a.mp4"),
        ("a.mp4#t=2,3", "a.mp4", "a.mp4"),
        ("all", "b.mp4", ""),
    ]
    # Manifests without bounds have had columns named id that mean nothing to us.
    assert listed(tmp_path, "path,id\na.mp4,1\nb.mp4,1\n") == [("a.mp4", "", ""), ("b.mp4", "", "")]
    with pytest.raises(ConfigError, match="'one' twice"):
        listed(tmp_path, "path,id,start\na.mp4,one,1\nb.mp4,one,1\n")
    with pytest.raises(ConfigError, match=r"'a.mp4#t=2,3' twice"):
        listed(tmp_path, 'path,id,start,end\nb.mp4,"a.mp4#t=2,3",1,2\na.mp4,,2,3\n')


def test_a_part_that_is_listed_twice_is_refused_and_an_overlapping_one_is_not(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "a.mp4")
    with pytest.raises(ConfigError, match="twice"):
        listed(tmp_path, "path,start,end\na.mp4,1,2\na.mp4,0:01,2.0\n")
    with pytest.raises(ConfigError, match=r"same part of .*'one' and as 'two'"):
        listed(tmp_path, "path,start,end,id\na.mp4,1,2,one\n./a.mp4,1,2,two\n")
    with pytest.raises(ConfigError, match="twice"):  # from 0 on is the whole file
        listed(tmp_path, "path,start,end\na.mp4,0,\na.mp4,,\n")
    assert len(listed(tmp_path, "path,start,end\na.mp4,1,2\na.mp4,1.5,2\na.mp4,0,9\n")) == 3


def test_parts_of_one_file_are_one_group_however_it_is_spelled(tmp_path: Path) -> None:
    touch(tmp_path, "d/a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "d" / "a.mp4")
    (tmp_path / "e").symlink_to(tmp_path / "d")
    absolute = tmp_path / "d" / "a.mp4"
    text = (
        "path,start,end,group\nlink.mp4,0,1,\n./d//a.mp4,1,2,\ne/a.mp4,2,3,\n"
        f"{absolute},3,4,\nd/a.mp4,,,\nd/a.mp4,5,6,mine\nb.mp4,0,1,\nc.mp4,,,\n"
    )
    groups = discover(manifest(tmp_path, text))["group"].tolist()
    assert groups == [*["link.mp4"] * 5, "mine", "b.mp4", ""]


def test_a_ucf_name_gives_its_group_to_its_parts(tmp_path: Path) -> None:
    touch(tmp_path, "v_Run_g03_c01.avi")
    text = "path,start,end\nv_Run_g03_c01.avi,0,1\nv_Run_g03_c01.avi,1,2\n"
    assert [group for _, _, group in listed(tmp_path, text)] == ["g03", "g03"]


def test_the_parts_of_a_file_have_one_size_from_one_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.mp4", content=b"four")
    from pipeline.features.catalog import manifest as module

    looked: list[str] = []

    def look(paths: list[str]) -> list[os.stat_result]:
        looked.extend(paths)
        return [os.stat(path) for path in paths]

    monkeypatch.setattr(module, "stat_all", look)
    rows = "".join(f"a.mp4,{i},{i + 1}\n" for i in range(50))
    catalog = discover(manifest(tmp_path, f"path,start,end\n{rows}"))
    assert catalog["size_bytes"].tolist() == [4] * 50
    assert looked == [str(tmp_path / "a.mp4")]


def test_activitynets_json_is_a_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "v_one.mp4", "labels/two.webm", "own/x.mkv")
    database = {
        "one": {
            "subset": "training",
            "duration": 12.0,
            "annotations": [
                {"segment": [0.5, 2], "label": "Serve"},
                {"segment": [2.0, 4.25], "label": "Smash"},
            ],
        },
        "two": {"subset": "validation", "annotations": [{"segment": ["1", "2"], "label": "Serve"}]},
        "three": {"subset": "testing", "annotations": [], "path": "own/x.mkv"},
        "gone": {"subset": "testing"},
    }
    text = json.dumps({"version": "1.3", "taxonomy": [], "database": database})
    catalog = discover(manifest(tmp_path, text, "labels.json"))
    assert told(catalog, "video_id", "label", "split", "group") == [
        ("v_one.mp4#t=0.5,2", "Serve", "train", "v_one.mp4"),
        ("v_one.mp4#t=2,4.25", "Smash", "train", "v_one.mp4"),
        ("labels/two.webm#t=1,2", "Serve", "val", "labels/two.webm"),
        ("own/x.mkv", "", "test", ""),
        ("gone.mp4", "", "test", ""),
    ]
    assert catalog["size_bytes"].tolist() == [1, 1, 1, 1, -1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "no manifest"),
        ("{", "no manifest"),
        ('{"database": 3}', "no manifest"),
        ('{"database": {}}', "lists no clip"),
        ('{"database": {"a": {"annotations": 3}}}', "database.a: give"),
        ('{"database": {"a": {"annotations": [{"segment": [1]}]}}}', r"a.annotations\[0\]: an ann"),
        (
            '{"database": {"a": {"annotations": [{"segment": [3, 1]}]}}}',
            r"annotations\[0\]: the part",
        ),
        ('{"database": {"a": {"annotations": [{"segment": [NaN, 1]}]}}}', "0 or more"),
        ('{"database": {"a": {"annotations": [{"segment": [0, 1], "label": 3}]}}}', "`label`"),
        ('{"database": [["a", {}]]}', "no manifest"),
        ('{"database": {"a": {}, "a": {"annotations": []}}}', "two members 'a'"),
        ('{"database": {"a": {"path": ["x.mp4"]}}}', "database.a: a name, a path"),
        ('{"database": {"\\ud800": {}}}', "no text that can be written"),
        (
            '{"database": {"a": {"annotations": [{"segment": [0, 1], "label": "\\ud800"}]}}}',
            "`label`, a text",
        ),
        (
            f'{{"database": {{"a": {{"annotations": [{{"segment": [0, 1{"0" * 400}]}}]}}}}}}',
            "two numbers of seconds",
        ),
    ],
)
def test_other_json_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        discover(manifest(tmp_path, text, "labels.json"))


def test_a_subset_that_is_null_is_no_split(tmp_path: Path) -> None:
    text = '{"database": {"a": {"subset": null, "annotations": []}}}'
    assert told(discover(manifest(tmp_path, text, "labels.json")), "split") == [("",)]
