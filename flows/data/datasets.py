"""Public data sets that tutorials use: where they are, and how they become folders and splits."""

from __future__ import annotations

import csv
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.data.downloads import download
from pipeline.errors import ConfigError

CLIP_ENDINGS = (".avi", ".mp4", ".mkv", ".webm", ".mov")
RAR_TOOLS = {
    # tool → its arguments; {archive} and {folder} are filled in
    "bsdtar": ("-xf", "{archive}", "-C", "{folder}"),
    "unrar": ("x", "-idq", "-o+", "{archive}", "{folder}/"),
    "7z": ("x", "-y", "-bd", "-o{folder}", "{archive}"),
    "unar": ("-q", "-f", "-o", "{folder}", "{archive}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """One data set: its archives, what is in them, and the size of the download for people.

    sha256: of archives by file name, where one is published. The others are compared with
    the length that the server announces, and by their archive's own checks when they are unpacked.
    """

    name: str
    clips: int
    classes: int
    size: str
    archives: tuple[str, ...]
    page: str
    sha256: Mapping[str, str] = field(default_factory=dict)


_UCF = "https://www.crcv.ucf.edu/data"
DATA_SETS = {
    data.name: data
    for data in (
        DataSet(
            name="ucf101-top5",
            clips=818,
            classes=5,
            size="0.1 GB",
            archives=(
                "https://github.com/sayakpaul/Action-Recognition-in-TensorFlow/releases/download/"
                "v1.0.0/ucf101_top5.tar.gz",
            ),
            page="https://keras.io/examples/vision/video_classification/",
        ),
        DataSet(
            name="ucf50",
            clips=6618,
            classes=50,
            size="3.1 GB",
            archives=(f"{_UCF}/UCF50.rar",),
            page=f"{_UCF}/UCF50.php",
        ),
        DataSet(
            name="ucf101",
            clips=13320,
            classes=101,
            size="6.9 GB",
            archives=(
                f"{_UCF}/UCF101/UCF101.rar",
                f"{_UCF}/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
            ),
            page=f"{_UCF}/UCF101.php",
            # By the checksums of TensorFlow Datasets (`url_checksums/ucf101.txt`), which fetches it too.
            sha256={
                "UCF101TrainTestSplits-RecognitionTask.zip": (
                    "5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27"
                )
            },
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Where the clips are (videos: a folder for `features`), and the split files where there are any."""

    videos: Path
    ucf_splits: Path | None
    clips: int
    classes: int


def fetch(
    data: DataSet,
    folder: Path,
    *,
    site: str = "",
    keep: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fetched:
    """Download, check, unpack and lay out a data set; what is done already is not done again.

    Clips end at `folder/clips/CLASS/NAME` (or `clips/train/CLASS/NAME` where the data set comes
    split), split files at `folder/splits`. Raises `ConfigError` (no tool for rar, an archive that
    cannot be read) and `DownloadFailed`.
    """
    videos = folder / "clips"
    if not (folder / ".complete").exists():
        rar = [url for url in data.archives if url.endswith(".rar")]
        if rar:
            rar_tool()  # before gigabytes are fetched
        for url in data.archives:
            name = url.rsplit("/", 1)[-1]
            where = f"{site.rstrip('/')}/{name}" if site else url
            archive = download(
                where,
                folder / "archives" / name,
                on_progress=on_progress,
                digest=data.sha256.get(name, ""),
            )
            unpack(archive, folder / "unpacked")
        lay_out(folder / "unpacked", folder)
        shutil.rmtree(folder / "unpacked")
        if not keep:
            shutil.rmtree(folder / "archives")
        (folder / ".complete").touch()
    clips = [p for p in videos.rglob("*") if p.suffix.lower() in CLIP_ENDINGS]
    splits = folder / "splits"
    return Fetched(
        videos=videos,
        ucf_splits=splits if splits.is_dir() else None,
        clips=len(clips),
        classes=len({p.parent.name for p in clips}),
    )


def rar_tool() -> str:
    """The name of a tool here that unpacks rar. Raises `ConfigError` where there is none."""
    for tool in RAR_TOOLS:
        if shutil.which(tool):
            return tool
    raise ConfigError(
        "this data set comes as .rar and no tool here unpacks it: install one of "
        f"{', '.join(RAR_TOOLS)} (e.g. apt-get install libarchive-tools) and run this again"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar, zip or rar; a broken one is removed, so that the next run fetches it again."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if archive.suffix == ".rar":
            tool = rar_tool()
            words = [word.format(archive=archive, folder=folder) for word in RAR_TOOLS[tool]]
            subprocess.run([tool, *words], check=True, stdout=subprocess.DEVNULL)
        elif archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as packed_tar:
                packed_tar.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, subprocess.CalledProcessError, EOFError) as error:
        archive.unlink(missing_ok=True)
        raise ConfigError(
            f"{archive.name} cannot be unpacked ({error}): it was removed, run this again to fetch "
            "it anew"
        ) from None


def lay_out(unpacked: Path, folder: Path) -> None:
    """Move clips to clips/CLASS (clips/SPLIT/CLASS if a CSV names the split), split files to splits.

    Links are left behind. Raises `ConfigError` for a class that is no name of a folder.
    """
    tags = _tags(unpacked)
    files = [path for path in unpacked.rglob("*") if path.is_file() and not path.is_symlink()]
    for clip in sorted(path for path in files if path.suffix.lower() in CLIP_ENDINGS):
        if clip.name in tags:
            split, label = tags[clip.name]
            target = folder / "clips" / split / label / clip.name
        else:
            target = folder / "clips" / clip.parent.name / clip.name
        target.parent.mkdir(parents=True, exist_ok=True)
        clip.replace(target)
    for listing in sorted(path for path in files if path.suffix == ".txt"):
        if listing.name.startswith(("trainlist", "testlist", "classInd")):
            (folder / "splits").mkdir(exist_ok=True)
            listing.replace(folder / "splits" / listing.name)


def _tags(unpacked: Path) -> dict[str, tuple[str, str]]:
    """Clip name → (split, label), from the train.csv and test.csv of the tutorial's archive."""
    tags: dict[str, tuple[str, str]] = {}
    for listing in sorted(unpacked.rglob("*.csv")):
        if listing.stem not in ("train", "test", "val"):
            continue
        with listing.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                label = line.get("tag")
                if not line.get("video_name") or not label:
                    continue
                if label in (".", "..") or set(label) & set("/\\\0"):
                    raise ConfigError(
                        f"{listing.name} of the archive names the class {label!r}, which is no name of "
                        "a folder: do not trust this archive, fetch it from the data set's own page"
                    )
                tags[line["video_name"]] = (listing.stem, label)
    return tags
