"""Which clips there are: a folder, one file or a manifest → a table with one row per clip.

A clip is a file, or a part of one: `pipeline.spans`.
"""

from __future__ import annotations

import os
import stat

import pandas as pd

from pipeline.errors import ConfigError
from pipeline.features.catalog import remote
from pipeline.features.catalog.folders import is_clip_name, list_folder, list_one
from pipeline.features.catalog.manifest import MANIFEST_ENDINGS, list_manifest
from pipeline.features.catalog.table import (
    CATALOG_COLUMNS,
    apply_ucf_splits,
    clip_sources,
    narrow,
)
from pipeline.features.files import NoAnswer, answered
from pipeline.spans import WHOLE, Span, split_fragment

__all__ = ["CATALOG_COLUMNS", "clip_sources", "discover", "narrow", "part_of_file"]


def discover(videos: str, *, ucf_splits: str | None = None) -> pd.DataFrame:
    """One row per clip under `videos`, with `CATALOG_COLUMNS`.

    videos: a folder (`CLASS/clip`, `train|val|test/CLASS/clip`, or flat), one file, a part of one
        (`clip.mp4#t=1,3`), or a manifest (CSV, or JSON as ActivityNet's); each may be at a URL that
        fsspec opens (`s3://…`), and a manifest may name clips at `https://`. A folder's rows are
        sorted by `video_id`, a manifest's stay in file order.
    ucf_splits: folder of UCF's trainlistNN, testlistNN and classInd files; `DIR:2` takes list 2.

    `video_id` is the path relative to the folder (or manifest's folder) with forward slashes;
    `path` the absolute path; `label`, `split` (train, val, test) and `group` are empty where
    unknown; `size_bytes` is −1 and `mtime_ns` 0 where the file is not there. A remote clip without
    a time has its ETag's hash there, as a negative number.
    Raises `ConfigError`: no such path, no clips, a manifest that cannot be used.
    """
    videos, span = part_of_file(videos)
    path, is_folder = videos, False
    if not remote.is_remote(videos):
        path = os.path.abspath(os.path.expanduser(remote.local_path(videos)))
        is_folder = stat.S_ISDIR(_state_of(path, videos).st_mode)
    if not span.whole and (is_folder or path.lower().endswith(MANIFEST_ENDINGS)):
        raise ConfigError(f"{videos!r} is no clip, and #{span.fragment} names a part of one")
    if is_folder:
        catalog = list_folder(path)
    elif path.lower().endswith(MANIFEST_ENDINGS):
        catalog = list_manifest(path)
    elif not remote.is_remote(path):
        catalog = list_one(path, span)
    else:
        one = not span.whole or is_clip_name(remote.without_query(path).rsplit("/", 1)[-1])
        catalog = remote.list_remote_clip(path, span) if one else remote.list_remote_folder(path)
    if ucf_splits:
        catalog = apply_ucf_splits(catalog, ucf_splits)
    return catalog


def part_of_file(text: str) -> tuple[str, Span]:
    """A path or URL and the part of its file that `#t=` or `#frames=` at its end names.

    A file on this machine whose name ends so is that file. Raises `ConfigError` for a part without
    length.
    """
    if split_fragment(text)[1].whole:
        return text, WHOLE
    if not remote.is_remote(text) and os.path.lexists(os.path.expanduser(remote.local_path(text))):
        return text, WHOLE
    return split_fragment(text)


def _state_of(path: str, videos: str) -> os.stat_result:
    try:
        return answered(path, lambda: os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"there is no file or folder {videos!r}: check the path") from None
    except NoAnswer as error:
        raise ConfigError(f"{videos!r} cannot be read ({error.strerror}): fix the mount") from None
    except ValueError:  # a NUL in the name
        raise ConfigError(f"{videos!r} is no path: it holds a NUL character") from None
    except OSError as error:
        raise ConfigError(f"{videos!r} cannot be read ({error.strerror}): look at it") from None
