"""The places that a store can be at: every test that takes `url` runs on all of them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """A bucket behind a real HTTP endpoint on this machine, known from the environment alone."""
    server = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem().mkdir("clips")
        yield "s3://clips"
    running.stop()


@pytest.fixture
def s3(s3_bucket: str) -> str:
    """The URL of an empty place in a bucket."""
    return f"{s3_bucket}/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store can be made."""
    if request.param == "local":
        return str(tmp_path / "clips.zarr")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/clips.zarr"
    return f"{request.getfixturevalue('s3')}/some/folder/clips.zarr"


@pytest.fixture
def local(tmp_path: Path) -> str:
    """Where a new store can be made on this machine's disk."""
    return str(tmp_path / "clips.zarr")
