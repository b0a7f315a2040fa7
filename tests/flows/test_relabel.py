"""Labels, splits and groups change in one commit; nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

import store
from flows.cli.main import main
from tests.store.stores import arrays, filled

ID = "a b/clip-{} 🎬.avi"


def labelled(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def relabel(url: str, labels: str, *words: str) -> int:
    return main(["relabel", "--store", url, "--labels", labels, *words])


def test_labels_splits_and_groups_change_and_nothing_else(tmp_path, capsys, monkeypatch):
    url = filled(str(tmp_path / "clips.zarr"))
    with store.Writer.acquire(url, owner="test") as writer:
        store.add_test_set(writer, "frozen", {"video_ids": [ID.format(1)], "groups": ["g01"]})
    before, sets = arrays(url), store.open(url).test_sets
    rows = [f"{ID.format(1)},jump,VAL", f"{ID.format(2)},run,", "nobody.avi,run,train"]
    labels = labelled(tmp_path / "l.csv", "\n".join(["video_id,label,split,other", *rows]))
    assert relabel(url, labels, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "1 labels, 2 splits would change" in out
    assert "nobody.avi" in out
    assert arrays(url).__repr__() == before.__repr__()
    flushes = []
    flush = store.Writer.flush
    monkeypatch.setattr(store.Writer, "flush", lambda self: (flushes.append(1), flush(self)))
    assert relabel(url, labels) == 0
    assert flushes == [1]
    assert "jump" in capsys.readouterr().out
    after = arrays(url)
    changed = [name for name in after if repr(after[name]) != repr(before[name])]
    assert changed == ["label", "split"]
    opened = store.open(url)
    table = opened.table()
    assert table["label"][:3].tolist() == ["run", "jump", "run"]
    assert table["split"][:3].tolist() == ["test", "val", ""]
    assert opened.classes == ["jump", "run", "walk"]
    assert opened.test_sets == sets
    assert store.verify(url).ok


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label\nrun\n", "needs id"),
        ("id\nx\n", "at least one of label"),
        ("id,label\nx,run\nx,walk\n", "'x' twice"),
        ("id,split\nx,trian\n", "'trian'"),
        ("id,label\nx,a,b\n", "3 values for 2 columns in line 2"),
        ("id,label,split\nx,a\n", "2 values for 3 columns in line 2"),
        ("id,label\nx,run\n", "none of the 1 ids"),
        ("id,path,label\nx,x,run\n", "id in two columns"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, capsys, text, words):
    url = filled(str(tmp_path / "clips.zarr"), rows=4)
    assert relabel(url, labelled(tmp_path / "l.csv", text)) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_store_that_another_writes_is_left_alone(tmp_path, capsys):
    url = filled(str(tmp_path / "clips.zarr"), rows=4)
    labels = labelled(tmp_path / "l.csv", f"id,label\n{ID.format(0)},jump\n")
    with store.Writer.acquire(url, owner="another"):
        assert relabel(url, labels) == 1
    assert "is being written by" in capsys.readouterr().err
    assert relabel(url, str(tmp_path / "none.csv")) == 1
