"""Any sequence of appends, changes, commits and reopenings equals the same on plain lists."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store
from tests.store.stores import clips, create

changes = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 9), st.none()),
        st.tuples(st.just("label"), st.lists(st.integers(0, 30)), st.text(max_size=5)),
        st.tuples(st.just("fps"), st.lists(st.integers(0, 30)), st.floats(0, 99, width=32)),
        st.tuples(st.just("status"), st.lists(st.integers(0, 30)), st.integers(0, 3)),
        st.tuples(st.just("steps"), st.lists(st.integers(0, 30)), st.integers(0, 99)),
        st.tuples(st.sampled_from(["flush", "reopen"]), st.none(), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes)
def test_a_store_is_what_was_committed_to_it(changes):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("store.arrays.ROWS_PER_CHUNK", 4)  # so that few rows span several chunks
        url = create(str(Path(folder) / "clips.zarr"))
        model: list[dict] = []
        writer = store.Writer.acquire(url, owner="me")
        for kind, what, value in changes:
            if kind == "append":
                writer.append(clips(what, start=len(model)).drop(columns="label"))
                model += [{"label": "", "fps": None, "status": 0, "frame": -1} for _ in range(what)]
            elif kind == "flush":
                writer.flush()
            elif kind == "reopen":
                writer.flush()
                writer.release()
                writer = store.Writer.acquire(url, owner="me")
            else:
                rows = sorted({row for row in what if row < len(model)})
                if kind == "steps":
                    shape = (len(rows), 3)
                    writer.put_steps(rows, True, np.full(shape, value), np.zeros(shape))
                elif kind == "status":
                    writer.mark(rows, value)
                else:
                    writer.set(rows, **{kind: value})
                for row in rows:
                    model[row]["frame" if kind == "steps" else kind] = value
        writer.flush()
        live = writer.table
        writer.release()
        snapshot = store.open(url)
        table = snapshot.table()
        assert table.equals(live)
        assert table["video_id"].tolist() == clips(len(model))["video_id"].tolist()
        assert table["label"].tolist() == [row["label"] for row in model]
        assert table["status"].tolist() == [row["status"] for row in model]
        assert [None if np.isnan(v) else v for v in table["fps"]] == [row["fps"] for row in model]
        frames = snapshot.steps_of(np.arange(len(model)))[0][:, 0]
        assert frames.tolist() == [row["frame"] for row in model]


def test_ids_are_unique_and_never_empty(local):
    create(local)
    with store.Writer.acquire(local, owner="me") as writer:
        writer.append(clips(3))
        for ids in (["a b/clip-1 🎬.avi"], ["x", "x"], [""], [None]):
            with pytest.raises(ValueError, match="cannot be appended"):
                writer.append(pd.DataFrame({"video_id": ids}))
        assert len(writer) == 3
    assert len(store.open(local)) == 3


def test_unknown_columns_and_rows_are_refused(local):
    create(local)
    with store.Writer.acquire(local, owner="me") as writer:
        writer.append(clips(3))
        with pytest.raises(ValueError, match="labels is no column"):
            writer.set([0], labels="x")
        with pytest.raises(ValueError, match=r"rows 3 to 3 were asked for and .* has 3"):
            writer.mark([3], store.READY)
        with pytest.raises(ValueError, match="read-only"):
            writer.column("label")[0] = "x"


def test_a_table_taken_before_does_not_change(local):
    create(local)
    with store.Writer.acquire(local, owner="me") as writer:
        writer.append(clips(3))
        before = writer.table
        writer.set([1], label="other", fps=1.0)
        assert before["label"].tolist() == ["run", "walk", "run"]
        assert before["fps"].isna().all()
        assert writer.table["label"].tolist() == ["run", "other", "run"]
