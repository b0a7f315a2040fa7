"""Clips at URLs: listed through fsspec, known by size and time, or ETag where there is no time."""

from __future__ import annotations

import email.utils
import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import pandas as pd

from pipeline.errors import ConfigError, PixelsError, ServiceUnavailable
from pipeline.features.catalog.folders import Listed, by_folders, is_clip_name
from pipeline.features.catalog.table import ABSENT, UNKNOWN
from pipeline.features.files import NoAnswer, answered
from pipeline.spans import WHOLE, Span

_TIMES = (
    *("mtime", "LastModified", "last_modified", "updated", "Last-Modified", "modified"),
    "created",
)
_TAGS = ("ETag", "etag", "e_tag", "md5Hash", "Content-MD5", "content_md5", "Digest")
_ASKED_AT_ONCE = 16
_CONNECT_S, _BETWEEN_BYTES_S = 10.0, 20.0
_WARN_AFTER_S = 5.0
_GIVEN_UP_AFTER = 4  # clips of one host in a row
_SHORTEST = 6  # shorter values are no secrets, and may be a part of any word
_USER = re.compile(r"://[^/?#\s]*@")  # in every link of a chain, simplecache::https://me:pw@host/…

SERVICES = (
    *("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "hf"),
    *("hdfs", "webhdfs", "ftp", "sftp", "ssh"),
)
"""Protocols at which a manifest may name clips: those that read one object of a storage service."""


class SlowListing(UserWarning):
    """Clips at URLs that take long to answer."""


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
    """A message without the secrets of the URLs in it: queries, users, passwords.

    url: the URL that the message is about, if it may have a query: a service may repeat the query, or
    a value of it, in its own words.
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
    """The message of a service's error, without the secrets of `url`."""
    if isinstance(error, RecursionError) or "PermanentRedirect" in str(error):
        # aiobotocore with a bucket in another region: it asks where, is redirected, asks again, …
        # until Python's stack or the limit of redirects is reached.
        return "redirected again and again; AWS_DEFAULT_REGION names the bucket's region"
    return without_secrets(str(error), url) or type(error).__name__


def service_error(error: Exception) -> type[PixelsError]:
    """The error class of a failed request: a mistake in the address, or a service that fails."""
    mistake = is_absent(error) or isinstance(error, ImportError | ValueError)
    return ConfigError if mistake else ServiceUnavailable


def is_absent(error: Exception) -> bool:
    """Whether a service answered that the object does not exist.

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

    A manifest may come from someone else, and fsspec's chains (`reference::`, `zip::`, `dir::`) read
    local files, write caches, or follow instructions in what they open.
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
    refuse_credentials(url)
    try:
        fs, root = filesystem(url.rstrip("/"))
        fs.invalidate_cache()
        listing = fs.find(root, detail=True)
    except Exception as error:  # each service raises its own kinds
        raise service_error(error)(
            f"{without_secrets(url)} cannot be listed ({cause_of(error, url)}): check the "
            "address, the credentials in the environment, and that fsspec's package for it is there"
        ) from None
    clips = []
    for path, info in listing.items():
        inside = path.removeprefix(root).lstrip("/")
        folders = inside.split("/")[:-1]
        hidden = any(name.startswith(".") or name.endswith(".zarr") for name in folders)
        if is_clip_name(inside.rsplit("/", 1)[-1]) and not hidden:
            clips.append(Listed(inside, fs.unstrip_protocol(path), *size_and_time(info)))
    if not clips:
        raise ConfigError(
            f"there is no clip under {without_secrets(url)}: check the address; a CSV manifest "
            "with a column path can list clips anywhere"
        )
    return by_folders(sorted(clips))


def list_remote_clip(url: str, span: Span = WHOLE) -> pd.DataFrame:
    """The catalog of one clip at a URL, or a part of it; its id is its name."""
    refuse_credentials(url)
    size, time = states_of([url])[0]
    if (size, time) == ABSENT:
        raise ConfigError(f"there is no clip at {without_secrets(url)}: check the address")
    name = without_query(url).rsplit("/", 1)[-1]
    return by_folders([Listed(name, url, size, time)], span)


def states_of(urls: Sequence[str]) -> list[tuple[int, int]]:
    """(size_bytes, mtime_ns) of clips at URLs, `ABSENT` where there is none, `UNKNOWN` without an answer.

    Sixteen are asked at once, each with a time limit. After several clips of a host in a row gave no
    answer, its others are unknown without being asked. Warns `SlowListing` when it takes long.
    """
    for url in urls:
        refuse_credentials(url)
    silent: Counter[str] = Counter()
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        futures = [threads.submit(_state_of, url, silent) for url in urls]
        done, pending = wait(futures, timeout=_WARN_AFTER_S)
        if pending:
            first = next(u for u, future in zip(urls, futures, strict=True) if future in pending)
            warnings.warn(
                f"{len(done)} of {len(urls)} clips at URLs have answered in {_WARN_AFTER_S:g} s: "
                f"waiting, for {_host_of(first)} first",
                SlowListing,
                stacklevel=2,
            )
        return [future.result() for future in futures]


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it. HTTP requests have time limits."""
    import fsspec

    options: dict[str, Any] = {}
    protocol = url.partition("://")[0]
    if protocol in ("http", "https"):
        import aiohttp

        limit = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_S, sock_read=_BETWEEN_BYTES_S
        )
        configured = fsspec.config.conf.get(protocol, {}).get("client_kwargs", {})
        options["client_kwargs"] = {"timeout": limit, **configured}
    resolved: tuple[Any, str] = fsspec.core.url_to_fs(url, **options)
    return resolved


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


def _state_of(url: str, silent: Counter[str]) -> tuple[int, int]:
    """silent: host → how many of its clips in a row gave no answer; kept up to date."""

    def touch() -> tuple[int, int]:
        fs, path = filesystem(url)
        return size_and_time(fs.info(path))

    host = _host_of(url)
    if silent[host] >= _GIVEN_UP_AFTER:
        return UNKNOWN
    try:
        state = answered(f"{url}/", touch)
    except Exception as error:  # each service raises its own kinds; the reading says what is wrong
        silent[host] = silent[host] + 1 if _is_silence(error) else 0
        return ABSENT if is_absent(error) else UNKNOWN
    silent[host] = 0
    return state


def _host_of(url: str) -> str:
    return "/".join(url.split("/")[:3])


def _is_silence(error: BaseException) -> bool:
    """Whether there was no answer at all; a refusal or a server's error is an answer."""
    cause = error.__cause__ or error
    if isinstance(cause, NoAnswer | TimeoutError | ConnectionError):
        return True
    return type(cause).__module__.startswith("aiohttp") and not getattr(cause, "status", 0)


def _nanoseconds(time: Any) -> int:
    if isinstance(time, str):
        try:
            parse = email.utils.parsedate_to_datetime if "," in time else datetime.fromisoformat
            time = parse(time)
        except ValueError:
            return 0
    seconds = time.timestamp() if isinstance(time, datetime) else float(time)
    return round(seconds * 1e6) * 1000
