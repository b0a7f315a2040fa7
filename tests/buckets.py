"""A bucket behind a real S3 endpoint on this machine, with or without a faulty proxy before it."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from store.layout import COLUMNS, PREVIEW, STEP_COLUMNS
from tests.proxy import FAULTS, Fault, Proxy, Request

_ARRAYS = {"features", PREVIEW, *STEP_COLUMNS, *COLUMNS}


@contextlib.contextmanager
def bucket(secret: str = "test") -> Iterator[str]:
    """The URL of an empty bucket, whose endpoint and credentials the environment alone knows."""
    with _served() as endpoint, _environment(endpoint, secret) as name:
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
def _served() -> Iterator[str]:
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
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
        environment.setenv("AWS_ACCESS_KEY_ID", "someone")
        environment.setenv("AWS_SECRET_ACCESS_KEY", secret)
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # A file system made before would still ask the endpoint that the environment named then.
        s3fs.S3FileSystem.clear_instance_cache()
        name = f"bucket-{uuid.uuid4().hex[:8]}"
        s3fs.S3FileSystem().mkdir(name)
        yield name
        s3fs.S3FileSystem.clear_instance_cache()
