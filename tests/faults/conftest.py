"""The clips that the fault tests run on, and the store that an uninterrupted run makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.faults.breaking import CLIPS, arrays, finished_here
from tests.features.clips import write_numbered_clip
from tests.flows import running
from tests.sharing import made_once


@pytest.fixture(scope="session")
def prefect_api() -> str:
    """The session's Prefect API."""
    return running.api_url()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty clips: real ones where they are at hand, else numbered ones."""
    return made_once(tmp_path_factory, "fight", _forty_clips)


def _forty_clips(folder: Path) -> None:
    real = sorted((running.CLIPS / "fight").rglob("*.mp4"))
    for number in range(CLIPS):
        label = ("Fight", "NoFight")[number % 2]
        (folder / label).mkdir(exist_ok=True)
        if real:
            path = real[number % 2 * len(real) // 2 + number // 2]
            shutil.copy(path, folder / label / path.name)
        else:
            name = f"v_{label}_g{number:02d}_c01.mp4"
            write_numbered_clip(folder / label / name, frames=20 + number, width=320, height=240)
    assert len(list(folder.rglob("*.mp4"))) == CLIPS


@pytest.fixture(scope="session")
def whole_store(prefect_api: str, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was made without interruption. To be copied, not changed."""

    def make(folder: Path) -> None:
        made = finished_here(clips, folder / "clips.zarr")
        assert made.status == 0, made.err

    return made_once(tmp_path_factory, "whole", make) / "clips.zarr"


@pytest.fixture(scope="session")
def whole(whole_store: Path) -> dict[str, np.ndarray]:
    """The arrays of a store that was made without interruption."""
    return arrays(whole_store)
