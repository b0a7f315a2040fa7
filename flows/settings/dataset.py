"""Settings of fetching a public data set."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSettings:
    """Fetches a public data set, resumes, verifies, unpacks, and lays out folders and splits."""

    name: str = setting(
        "", "which one", choices=("", "ucf101-top5", "ucf50", "ucf101"), metavar="NAME"
    )
    dir: str = setting("", "where it goes (default: the data set's name)", metavar="DIR")
    site: str = setting(
        "", "fetch the same files from a mirror: the address of their folder", metavar="URL"
    )
    keep: bool = setting(False, "keep the archives after unpacking")
