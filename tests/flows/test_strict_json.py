"""What a command prints with --json is JSON to every parser, NaN or not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import store
from tests.flows.running import run_here
from tests.flows.stores import rising_or_falling


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store whose clips all have groups of their own kind, and one run of it."""
    folder = tmp_path_factory.mktemp("json")
    rising_or_falling(folder / "s.zarr")
    words = ("--head", "mlp", "--units", "4,4", "--epochs", "1", "--runs", str(folder / "runs"))
    said = run_here("train", "--store", str(folder / "s.zarr"), *words, "--json")
    assert said.status == 0, said.err
    assert said.json["test"]["clips"] > 0
    # One group for all: likeness among clips of other groups is not a number.
    with store.Writer.acquire(str(folder / "s.zarr"), owner="test") as writer:
        table = store.open(folder / "s.zarr").table()
        writer.set(table.index.to_numpy(), group=pd.Series("g", index=table.index).to_numpy())
        writer.flush()
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("heads",),
        ("show", "--store", "s.zarr"),
        ("verify", "--store", "s.zarr"),
        ("similar", "--store", "s.zarr", "--video", "0", "--out", ""),
        ("similar", "--store", "s.zarr"),
        ("compare", "--runs", "runs"),
        ("report", "--store", "s.zarr", "--runs", "runs"),
        ("forget", "--store", "s.zarr", "--clips", "clip-000*", "--dry-run"),
        ("dataset",),
    ],
    ids=" ".join,
)
def test_json_of_a_command_is_json(
    words: tuple[str, ...], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    said = run_here(*words, "--json")
    assert said.status == 0, said.err
    assert said.json
    if words == ("similar", "--store", "s.zarr"):
        assert said.json["other_groups"]["same_class"] is None
