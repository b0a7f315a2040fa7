"""The places that a store can be at: every test that takes `url` runs on all of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.buckets import bucket


@pytest.fixture(scope="module")
def s3_bucket() -> Iterator[str]:
    """The URL of a bucket behind a real HTTP endpoint."""
    with bucket() as url:
        yield url


@pytest.fixture
def s3(s3_bucket: str) -> str:
    """The URL of an empty place in a bucket."""
    return f"{s3_bucket}/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def seaweedfs_bucket() -> Iterator[str]:
    """The URL of a bucket of a SeaweedFS, a server of others' making."""
    with bucket(server="seaweedfs") as url:
        yield url


@pytest.fixture
def seaweedfs(seaweedfs_bucket: str) -> str:
    """The URL of an empty place in a bucket of a SeaweedFS."""
    return f"{seaweedfs_bucket}/{uuid.uuid4().hex}"


_SEAWEEDFS = pytest.param("seaweedfs", marks=pytest.mark.long)
EVERYWHERE = ("local", "memory", "s3", _SEAWEEDFS)
"""For `parametrize("url", EVERYWHERE, indirect=True)`: a bucket too in every run."""
SHARED_BY_THREADS = ("local", pytest.param("s3", marks=pytest.mark.long), _SEAWEEDFS)
"""Where several write at once: fsspec's memory lists what is gone, and creates twice."""


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.long), _SEAWEEDFS])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store can be made."""
    if request.param == "local":
        return str(tmp_path / "clips.zarr")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/clips.zarr"
    return f"{request.getfixturevalue(request.param)}/some/folder/clips.zarr"


@pytest.fixture
def local(tmp_path: Path) -> str:
    """Where a new store can be made on this machine's disk."""
    return str(tmp_path / "clips.zarr")
