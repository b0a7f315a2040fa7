"""Names of files are UTF-8, whatever the locale: clips' ids are text and the same on every machine."""

from __future__ import annotations

import os
import sys

from pipeline.errors import ConfigError


def use_utf8() -> None:
    """Start this command again in Python's UTF-8 mode if the locale's encoding is another one.

    In the POSIX locale without coercion, or in a Latin-1 one, the name `é.mp4` would be another
    text than elsewhere. Processes started from here inherit the variable. Does not return if the
    command is started again.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def is_utf8(text: str) -> bool:
    """Whether a name from the file system or the command line was valid UTF-8.

    Python decodes other bytes to lone surrogates, which no server and no store can hold.

    >>> is_utf8("é.mp4"), is_utf8("\\udce9.mp4")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def require_utf8_folder() -> None:
    """Raise `ConfigError` if the path of the current folder is not UTF-8."""
    try:
        folder = os.getcwd()
    except OSError:  # it was removed
        return
    if not is_utf8(folder):
        raise ConfigError(f"the path of the current folder, {folder!r}, is not UTF-8: rename it")
