"""Files from the web: a large one that resumes where it stopped, and a clip by yt-dlp (extra `web`)."""

from __future__ import annotations

import http.client
import importlib
import importlib.util
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, ServiceUnavailable
from pipeline.features.catalog.remote import without_secrets
from pipeline.features.files import sha256

_BLOCK = 1 << 20
_TRIES = 5


class DownloadFailed(ServiceUnavailable):
    """A file could not be fetched; what has arrived stays, and the next try resumes."""


def download(
    url: str,
    path: Path,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    digest: str = "",
    pause_s: float = 2.0,
) -> Path:
    """Fetch `url` into `path`; returns it. Does nothing if the file exists.

    It arrives in `path.part`, and is renamed when it has the length that the server announced and the
    SHA-256 `digest`, where one is given. An interrupted download resumes by a range request, guarded by
    the server's ETag: a file that has changed meanwhile starts over. on_progress: called with (bytes,
    bytes in all). Raises `DownloadFailed` after five tries without a byte of progress, if the disk is
    too small, or if the digest is another one.
    """
    if path.exists():
        return path
    part, tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".tag")
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = without_secrets(url)
    tries, error = 0, "the server sent nothing"
    while tries < _TRIES:
        before = part.stat().st_size if part.exists() else 0
        try:
            total = _fetch(url, part, tag, on_progress)
        except urllib.error.HTTPError as answer:
            if answer.code == 416:  # we have more than the server: the file has changed
                part.unlink(missing_ok=True)
            elif answer.code < 500:
                raise DownloadFailed(
                    f"{shown} answers {answer.code} {answer.reason}: pass --site with a mirror's "
                    f"address, or put the file at {path} yourself"
                ) from None
            error = f"{answer.code} {answer.reason}"
        except DownloadFailed:
            raise
        except (OSError, http.client.HTTPException) as caught:
            error = str(caught) or type(caught).__name__
        else:
            if part.stat().st_size == total:
                _require_digest(part, digest, shown)
                part.replace(path)
                tag.unlink(missing_ok=True)
                return path
            error = f"{part.stat().st_size} of {total} bytes came"
        now = part.stat().st_size if part.exists() else 0
        tries = 0 if now > before else tries + 1
        if tries and tries < _TRIES:
            time.sleep(pause_s * tries)
    raise DownloadFailed(
        f"{shown} could not be fetched ({without_secrets(error, url)}): check the network and run this "
        f"again, it resumes where it stopped; or put the file at {path} yourself"
    )


def _require_digest(part: Path, digest: str, url: str) -> None:
    """Remove a complete file that is not the one that was published, and raise `DownloadFailed`."""
    if digest and (found := sha256(str(part))) != digest:
        part.unlink()
        raise DownloadFailed(
            f"{url} has the SHA-256 {found[:12]}… and not the published {digest[:12]}…: it was removed, "
            "fetch it again, or from another --site"
        )


def _fetch(url: str, part: Path, tag: Path, on_progress: Callable[[int, int], None]) -> int:
    """Append what is missing to `part`; returns the whole file's size."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "pixels-once"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag.exists():
            request.add_header("If-Range", tag.read_text())
    with urllib.request.urlopen(request, timeout=60) as answer:
        resumed = answer.status == 206
        if not resumed:
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else -1
        if name := answer.headers.get("ETag"):
            tag.write_text(name)
        free = shutil.disk_usage(part.parent).free
        if total - have > free:
            raise DownloadFailed(
                f"{without_secrets(url)} has {total / 2**30:.1f} GiB and {part.parent} "
                f"{free / 2**30:.1f} GiB free: pass --dir on another disk"
            )
        with part.open("ab" if resumed else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                have += len(block)
                on_progress(have, total)
    return total if total >= 0 else have


# Larger pictures than this give a CNN that sees 299 pixels nothing.
_FORMAT = "best[height<=480]/bestvideo[height<=480]/best/bestvideo"


def is_url(video: str) -> bool:
    """Whether this names something on the web rather than a file."""
    return video.startswith(("http://", "https://"))


def fetch_clip(url: str, folder: Path) -> Path:
    """Download the video behind an address, a page or a file, into `folder`; returns its path.

    Raises `ConfigError` where yt-dlp is missing, or there is no video at the address, and
    `ServiceUnavailable` where nothing answers there.
    """
    if importlib.util.find_spec("yt_dlp") is None:
        raise ConfigError(
            'a URL needs yt-dlp, which is not installed: pip install -e ".[web]" in the '
            "project's folder, or download the clip yourself"
        )
    yt_dlp = importlib.import_module("yt_dlp")
    silent = logging.getLogger("pixels-once.yt-dlp")
    silent.disabled = True  # its errors come as exceptions, the rest is not shown
    options: dict[str, Any] = {
        "format": _FORMAT,
        "outtmpl": os.path.join(str(folder).replace("%", "%%"), "%(title).80B-%(id).40B.%(ext)s"),
        "noplaylist": True,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "logger": silent,
        "restrictfilenames": True,
        "socket_timeout": 30,
        "retries": 2,
    }
    try:
        with yt_dlp.YoutubeDL(options) as loader:
            info = loader.extract_info(url, download=True)
    except yt_dlp.utils.DownloadError as error:
        message = without_secrets(str(error), url)
        reason = message.removeprefix("ERROR: ").splitlines()[0].rstrip(".")
        # An address that could not be reached, or one without a video.
        cause = error.exc_info[1] if error.exc_info else None
        away = isinstance(cause, yt_dlp.networking.exceptions.TransportError | OSError)
        kind = ServiceUnavailable if away else ConfigError
        raise kind(
            f"{without_secrets(url)} could not be fetched ({reason}): check the address"
        ) from None
    files = [Path(item["filepath"]) for item in (info or {}).get("requested_downloads", [])]
    if not files or not files[0].is_file():
        raise ConfigError(
            f"{without_secrets(url)} gave no video: give the address of a clip or of its page"
        )
    return files[0]
