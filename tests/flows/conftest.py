"""One Prefect server for all tests of a session, and small clips that every test may read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.features.clips import write_numbered_clip
from tests.flows import running
from tests.sharing import made_once


@pytest.fixture(scope="session")
def prefect_api() -> str:
    """The session's Prefect API; its home is temporary and the environment names both."""
    return running.api_url()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve short numbered clips in two classes and three groups. Not to be changed: copy it."""
    return made_once(tmp_path_factory, "clips", _twelve_clips)


def _twelve_clips(folder: Path) -> None:
    for number in range(12):
        label = ("Jump", "Walk")[number % 2]
        name = f"v_{label}_g{number % 3 + 1:02d}_c{number // 3 + 1:02d}.mp4"
        (folder / label).mkdir(exist_ok=True)
        write_numbered_clip(folder / label / name, frames=10 + number)
