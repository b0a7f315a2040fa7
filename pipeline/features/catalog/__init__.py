"""Which clips there are: a folder, one file or a manifest → a table with one row per clip."""

from __future__ import annotations

import os
import stat

import pandas as pd

from pipeline.errors import ConfigError
from pipeline.features.catalog import remote
from pipeline.features.catalog.folders import is_clip_name, list_folder, list_one
from pipeline.features.catalog.manifest import MANIFEST_ENDINGS, list_manifest
from pipeline.features.catalog.table import CATALOG_COLUMNS, apply_ucf_splits, narrow
from pipeline.features.files import NoAnswer, answered

__all__ = ["CATALOG_COLUMNS", "discover", "narrow"]


def discover(videos: str, *, ucf_splits: str | None = None) -> pd.DataFrame:
    """One row per clip under `videos`, with `CATALOG_COLUMNS`.

    videos: a folder (`CLASS/clip`, `train|val|test/CLASS/clip`, or flat), one file, or a CSV
        manifest; each may be at a URL that fsspec opens (`s3://…`), and a manifest may name clips
        at `https://`. A folder's rows are sorted by `video_id`, a manifest's stay in file order.
    ucf_splits: folder of UCF's trainlistNN, testlistNN and classInd files; `DIR:2` takes list 2.

    `video_id` is the path relative to the folder (or manifest's folder) with forward slashes;
    `path` the absolute path; `label`, `split` (train, val, test) and `group` are empty where
    unknown; `size_bytes` is −1 and `mtime_ns` 0 where the file is not there. A remote clip without
    a time has its ETag's hash there, as a negative number.
    Raises `ConfigError`: no such path, no clips, a manifest that cannot be used.
    """
    path, is_folder = videos, False
    if not remote.is_remote(videos):
        path = os.path.abspath(os.path.expanduser(remote.local_path(videos)))
        is_folder = stat.S_ISDIR(_state_of(path, videos).st_mode)
    if is_folder:
        catalog = list_folder(path)
    elif path.lower().endswith(MANIFEST_ENDINGS):
        catalog = list_manifest(path)
    elif not remote.is_remote(path):
        catalog = list_one(path)
    else:
        one = is_clip_name(remote.without_query(path).rsplit("/", 1)[-1])
        catalog = remote.list_remote_clip(path) if one else remote.list_remote_folder(path)
    if ucf_splits:
        catalog = apply_ucf_splits(catalog, ucf_splits)
    return catalog


def _state_of(path: str, videos: str) -> os.stat_result:
    try:
        return answered(path, lambda: os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"there is no file or folder {videos!r}: look at the path") from None
    except NoAnswer as error:
        raise ConfigError(f"{videos!r} cannot be read ({error.strerror}): mend the mount") from None
    except ValueError:  # a NUL in the name
        raise ConfigError(f"{videos!r} is no path: it holds a NUL character") from None
    except OSError as error:
        raise ConfigError(f"{videos!r} cannot be read ({error.strerror}): look at it") from None
