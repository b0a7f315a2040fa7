"""Where this user's caches are kept, also without a home folder or with one that is read-only.

A container that runs under an unknown user id has neither `HOME` nor an entry in the password file; a
batch system may mount homes read-only. Neither may stop a run.
"""

from __future__ import annotations

import functools
import os
import shutil
import stat
import tempfile
from pathlib import Path


def user_folder(name: str) -> Path:
    """`~/name` where there is a home and it can be written to, else one for this user in the
    temporary folder. Not made by this call.
    """
    home = Path(os.path.expanduser("~"))  # stays "~" for a user without a home
    wanted = home / name
    there = wanted if wanted.exists() else home
    if home.is_absolute() and there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return wanted
    return _temporary() / name.lstrip(".")


def give_home() -> None:
    """Set `HOME` to a folder in the temporary one for a user who has no home at all.

    For the packages that insist on one (Dask and others end in "Could not determine home directory").
    """
    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = str(_temporary())


def cache_folder() -> Path:
    """The folder of exported models and vectors, made if missing.

    `PIXELS_ONCE_CACHE`, else `XDG_CACHE_HOME/pixels-once`, else `~/.cache/pixels-once`. Only the last
    is replaced by the temporary folder where it cannot be written; a folder that a user names is not.
    """
    if named := os.environ.get("PIXELS_ONCE_CACHE"):
        return Path(named).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).expanduser() / "pixels-once"
    return user_folder(".cache") / "pixels-once"


def keras_home() -> Path:
    """Keras' folder for its settings and cached weights: `KERAS_HOME`, else `~/.keras`."""
    if named := os.environ.get("KERAS_HOME"):
        return Path(named)
    readable = Path(os.path.expanduser("~")) / ".keras"
    return readable if readable.is_dir() else user_folder(".keras")


def free_space(path: Path) -> tuple[Path, int]:
    """The nearest folder above `path` that exists, or itself, and its disk's free bytes."""
    folder = next(each for each in (path, *path.parents) if each.exists())
    return folder, shutil.disk_usage(folder).free


@functools.cache
def _temporary() -> Path:
    """This user's folder in the temporary one. Its name can be foreseen, so one that another user made
    or may write to is not used: settings and models would be read from it.
    """
    folder = Path(tempfile.gettempdir()) / f"pixels-once-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    ours = status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode)
    if ours and not status.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix=f"pixels-once-{os.getuid()}-"))
