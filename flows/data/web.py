"""A clip from the web, fetched into a folder by yt-dlp (extra `web`)."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, ServiceUnavailable
from pipeline.features.catalog.remote import without_secrets

# Larger pictures than this give a CNN that sees 299 pixels nothing.
_FORMAT = "best[height<=480]/bestvideo[height<=480]/best/bestvideo"


def is_url(video: str) -> bool:
    """Whether this names something on the web rather than a file."""
    return video.startswith(("http://", "https://"))


def fetch(url: str, folder: Path) -> Path:
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
    options: dict[str, Any] = {
        "format": _FORMAT,
        "outtmpl": os.path.join(str(folder).replace("%", "%%"), "%(title).80B-%(id).40B.%(ext)s"),
        "noplaylist": True,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "logger": _Silent(),
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


class _Silent:
    """yt-dlp's log: its errors come as exceptions, the rest is not shown."""

    def debug(self, message: str) -> None: ...

    def warning(self, message: str) -> None: ...

    def error(self, message: str) -> None: ...
