"""Clips at URLs: listed through fsspec, known by size and time, or ETag where there is no time."""

from __future__ import annotations

import email.utils
import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import pandas as pd

from pipeline.errors import ConfigError, PixelsError, ServiceUnavailable
from pipeline.features.catalog.folders import Found, by_folders, is_clip_name
from pipeline.features.catalog.table import ABSENT, UNKNOWN

_TIMES = (
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "Last-Modified",
    "modified",
    "created",
)
_TAGS = ("ETag", "etag", "e_tag", "md5Hash", "Content-MD5", "content_md5", "Digest")
_ASKED_AT_ONCE = 16
_SHORTEST = 6  # shorter values are no secrets, and may be a part of any word
_USER = re.compile(r"://[^/?#\s]*@")  # in every link of a chain, simplecache::https://me:pw@host/…

SERVICES = (
    *("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "hf"),
    *("hdfs", "webhdfs", "ftp", "sftp", "ssh"),
)
"""Protocols at which a manifest may name clips: those that read one object of a storage service."""


def is_remote(path: str) -> bool:
    """Whether a path is a URL of something else than this machine's files."""
    return "://" in path and not path.startswith(("file://", "local://"))


def local_path(path: str) -> str:
    """A path without the `file://` that it may begin with."""
    return path.removeprefix("file://").removeprefix("local://")


def without_query(url: str) -> str:
    """A URL's stable part: what follows `?` is often a signature that must not be kept."""
    return url.split("?")[0] if url.startswith(("http://", "https://")) else url


def without_secrets(text: str, url: str = "") -> str:
    """A message with what URLs carry beside the address taken out: queries, users, passwords.

    url: the one that the message is about, if it may have a query: a service that repeats the query,
    or a value of it, in its own words is not repeated.
    """
    query = url.partition("#")[0].partition("?")[2]  # urlsplit raises on what is no URL
    values = {value for _, value in parse_qsl(query, keep_blank_values=True)}
    parts = {query, unquote(query), *(pair.partition("=")[2] for pair in query.split("&"))}
    every = values | {quote(value) for value in values} | parts
    for value in sorted(every, key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, "…")
    text = re.sub(r"(\w+://)[^\s/@'\"]+@", r"\1…@", text)
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1?…", text)


def cause_of(error: BaseException, url: str) -> str:
    """What a service's error says, without what `url` carries beside the address."""
    if isinstance(error, RecursionError) or "PermanentRedirect" in str(error):
        # What aiobotocore makes of a bucket that is elsewhere: it asks where, is redirected, asks, …
        # until Python's stack ends, or whoever counts the redirects does.
        return "redirected again and again; AWS_DEFAULT_REGION names the bucket's region"
    return without_secrets(str(error), url) or type(error).__name__


def service_error(error: Exception) -> type[PixelsError]:
    """What a failed request to a service is: a mistake in the address, or the service's own state."""
    mistake = is_absent(error) or isinstance(error, ImportError | ValueError)
    return ConfigError if mistake else ServiceUnavailable


def is_absent(error: Exception) -> bool:
    """Whether a service has said that there is no such thing.

    fsspec raises `FileNotFoundError` for every failure over HTTP, no answer at all among them.
    """
    if not isinstance(error, FileNotFoundError):
        return False
    cause = error.__cause__
    status = getattr(cause, "status", None)
    if status is not None:
        return status in (404, 410)
    if type(cause).__module__.startswith("aiohttp."):
        return False
    return isinstance(cause, FileNotFoundError) or not isinstance(cause, OSError)


def refuse_credentials(url: str) -> None:
    """Raise `ConfigError` for a URL with a user or password in it: it would end up in logs."""
    if _USER.search(url):
        raise ConfigError(
            f"the URL {without_secrets(url)} carries credentials: take them out and put them where "
            "the service's own tools look (environment, ~/.aws, ~/.netrc)"
        )


def refuse_protocol(url: str, where: str) -> None:
    """Raise `ConfigError` for a URL that fsspec would open by other means than a storage service.

    A manifest may come from elsewhere, and fsspec's chains (`reference::`, `zip::`, `dir::`) read local
    files, write caches, or take their instructions from what they open.
    """
    protocol = url.split("://")[0]
    if protocol not in SERVICES:
        raise ConfigError(
            f"{where} names a clip at {protocol}://: name it at one of {', '.join(SERVICES)}, or by "
            "its path on this machine"
        )


def list_remote_folder(url: str) -> pd.DataFrame:
    """Every clip below a URL, sorted by id, as `list_folder` does for a local folder.

    Raises `ConfigError` where there is no such place or no clip in it, `ServiceUnavailable` where the
    service does not list it.
    """
    import fsspec

    refuse_credentials(url)
    try:
        fs, root = fsspec.core.url_to_fs(url.rstrip("/"))
        fs.invalidate_cache()
        listing = fs.find(root, detail=True)
    except Exception as error:  # each service raises its own kinds
        raise service_error(error)(
            f"{without_secrets(url)} cannot be listed ({cause_of(error, url)}): check the "
            "address, the credentials in the environment, and that fsspec's package for it is there"
        ) from None
    found = []
    for path, info in listing.items():
        inside = path.removeprefix(root).lstrip("/")
        folders = inside.split("/")[:-1]
        hidden = any(name.startswith(".") or name.endswith(".zarr") for name in folders)
        if is_clip_name(inside.rsplit("/", 1)[-1]) and not hidden:
            found.append(Found(inside, fs.unstrip_protocol(path), *size_and_time(info)))
    if not found:
        raise ConfigError(
            f"there is no clip under {without_secrets(url)}: look at the address; a CSV manifest "
            "with a column path can list clips anywhere"
        )
    return by_folders(sorted(found))


def list_remote_clip(url: str) -> pd.DataFrame:
    """The catalog of one clip at a URL; its id is its name."""
    refuse_credentials(url)
    size, time = _state_of(url)
    if (size, time) == ABSENT:
        raise ConfigError(f"there is no clip at {without_secrets(url)}: look at the address")
    name = without_query(url).rsplit("/", 1)[-1]
    return by_folders([Found(name, url, size, time)])


def states_of(urls: Sequence[str]) -> list[tuple[int, int]]:
    """(size_bytes, mtime_ns) of clips at URLs, `ABSENT` where there is none, `UNKNOWN`
    where nobody says; several at once."""
    for url in urls:
        refuse_credentials(url)
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        return list(threads.map(_state_of, urls))


def size_and_time(info: Mapping[str, Any]) -> tuple[int, int]:
    """(size_bytes, mtime_ns) from what fsspec says of a file.

    Without a time, the ETag (or a checksum) takes its place as a negative number: it changes when
    the bytes do, and never equals a time. Without either it is 0.
    """
    size = info.get("size")
    time = next((_nanoseconds(info[name]) for name in _TIMES if info.get(name)), 0)
    if not time:
        tag = next((str(info[name]) for name in _TAGS if info.get(name)), "")
        if tag:
            time = -1 - (int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8]) >> 1)
    return (-1 if size is None else int(size)), time


def _state_of(url: str) -> tuple[int, int]:
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
        return size_and_time(fs.info(path))
    except Exception as error:  # where it is reached, the reading itself will say what is wrong
        return ABSENT if is_absent(error) else UNKNOWN


def _nanoseconds(time: Any) -> int:
    if isinstance(time, str):
        try:
            time = (
                email.utils.parsedate_to_datetime(time)
                if "," in time
                else datetime.fromisoformat(time)
            )
        except ValueError:
            return 0
    seconds = time.timestamp() if isinstance(time, datetime) else float(time)
    return round(seconds * 1e6) * 1000
