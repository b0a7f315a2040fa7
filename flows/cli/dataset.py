"""`pixels-once dataset`: fetch a public data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from flows.cli.terminal import headline, print_json, print_table, progress_bar, suggest
from flows.settings.resolve import setting
from pipeline.errors import ConfigError

EXAMPLES = """
pixels-once dataset
pixels-once dataset --name ucf101-top5 --dir data/top5
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Fetches a public data set, resumes, checks, unpacks, and lays out folders and splits.

    An archive is compared with the length that its server announces, and with its SHA-256 where one
    is published (the splits of UCF101).
    """

    name: str = setting(
        "", "which one", choices=("", "ucf101-top5", "ucf50", "ucf101"), metavar="NAME"
    )
    dir: str = setting("", "the folder to write to (default: the data set's name)", metavar="DIR")
    site: str = setting(
        "", "fetch the same files from a mirror: the address of their folder", metavar="URL"
    )
    keep: bool = setting(False, "keep the archives after unpacking")


def run(settings: Settings, *, json: bool) -> int:
    """Fetch it and say where its clips are; without a name, list what there is."""
    from flows.data.datasets import DATA_SETS, fetch

    if not settings.name:
        if json:
            print_json({name: {"clips": d.clips, "page": d.page} for name, d in DATA_SETS.items()})
            return 0
        print_table(
            "public data sets",
            ("name", "clips", "classes", "download", "page"),
            [(d.name, d.clips, d.classes, d.size, d.page) for d in DATA_SETS.values()],
        )
        suggest("dataset", "--name", "ucf101-top5")
        return 0
    folder = Path(settings.dir or settings.name)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"dir is {folder}, which is a file: name a folder")
    with progress_bar(f"fetching {settings.name}", "bytes") as progress:
        data = DATA_SETS[settings.name]
        got = fetch(data, folder, site=settings.site, keep=settings.keep, on_progress=progress)
    if json:
        print_json({"name": settings.name, **asdict(got), "ucf_splits": got.ucf_splits or ""})
        return 0
    headline(f"{got.videos}: {got.clips:,} clips in {got.classes} classes")
    splits = ("--ucf-splits", got.ucf_splits) if got.ucf_splits else ()
    suggest("features", "--videos", got.videos, *splits, "--store", f"{settings.name}.zarr")
    return 0
