"""One Prefect server for all tests of a session, and small clips that every test may read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.features.clips import write_numbered_clip
from tests.flows import running


@pytest.fixture(scope="session")
def prefect_api() -> str:
    """The session's Prefect API; its home is temporary and the environment names both."""
    return running.api_url()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve short numbered clips in two classes and three groups. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(12):
        label = ("Jump", "Walk")[number % 2]
        name = f"v_{label}_g{number % 3 + 1:02d}_c{number // 3 + 1:02d}.mp4"
        (folder / label).mkdir(exist_ok=True)
        write_numbered_clip(folder / label / name, frames=10 + number)
    return folder
