"""Refreshes on a store that is there already: a config, the command, and clips to add."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import store
from flows.extract.summary import Summary
from tests.flows.running import Finished, run_here
from tests.flows.stores import rising_or_falling

CONFIG = """
[refresh]
videos = "clips"
heads = "mlp"
[refresh.train]
epochs = 1
options = "units=4,second_units=4"
split = "{split}"
folds = 3
"""
Refresh = Callable[..., Finished]


@pytest.fixture
def refresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refresh:
    """`refresh` on the store `s.zarr`, which its extraction finds as it is (or as `summary` says)."""
    monkeypatch.chdir(tmp_path)

    def go(*words: str, split: str = "grouped", **summary: Any) -> Finished:
        (tmp_path / "refresh.toml").write_text(CONFIG.format(split=split), encoding="utf-8")
        extracted = Summary(store="s.zarr", **({"outcome": "done", "clips": 1} | summary))
        monkeypatch.setattr("flows.train.refresh.features", lambda settings: extracted)
        return run_here(
            "refresh", "--config", "refresh.toml", "--store", "s.zarr", "--json", *words
        )

    return go


def clips_of(number: int, groups: list[str], **columns: Any) -> pd.DataFrame:
    """Clips to add, two of each group, one of each class."""
    labels = ["falling", "rising"] * len(groups)
    return pd.DataFrame(
        {
            "video_id": [f"new-{number:02d}-{i:02d}.mp4" for i in range(len(labels))],
            "label": labels,
            "group": np.repeat(groups, 2),
            "sha256": [f"{number:032x}{i:032x}" for i in range(len(labels))],
        }
        | columns
    )


def made(path: Path, *, given: bool) -> str:
    """The first store: 48 clips of 12 groups, some known by their bytes."""
    url = rising_or_falling(path)
    with store.Writer.acquire(url, owner="test") as writer:
        rows = np.arange(48)
        writer.set(rows, sha256=[f"{n:064x}" if n % 5 else "" for n in rows])
        if given:
            groups = writer.table["group"].to_numpy()
            writer.set(rows, split=np.where(groups < "g03", "test", "train"))
        writer.flush()
    return url
