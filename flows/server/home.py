"""The Prefect home: where a server of ours keeps its database, and the URL of another database."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from pipeline.errors import ConfigError
from pipeline.homes import user_folder

_NEEDED = 8 << 20  # a new database, and its log of changes
_VARIABLES = ("PREFECT_SERVER_DATABASE_PASSWORD", "PREFECT_API_DATABASE_PASSWORD")
_PLAIN = re.compile(r"(?:[^@/?#\[\]:%\s]|%[0-9A-Fa-f]{2})*")


class HomeUnwritable(RuntimeError):
    """The Prefect home cannot hold a server's database."""

    exit_status = 4


def prefect_home() -> Path:
    """The folder where Prefect keeps its database and profiles."""
    named = os.environ.get("PREFECT_HOME")
    return Path(named).expanduser() if named else user_folder(".prefect")


def require_home() -> None:
    """Raise `HomeUnwritable` where a server would fail for want of space or of a right.

    To be asked before a server starts on the home: the server itself only says that it did not start.
    """
    home = prefect_home()
    remedy = "or set PREFECT_HOME to a folder elsewhere"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as probe:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(probe.fileno(), 0, _NEEDED)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HomeUnwritable(
                f"the Prefect home {home} has less than {_NEEDED >> 20} MiB free: free some space, "
                f"{remedy}"
            ) from None
        raise HomeUnwritable(
            f"the Prefect home {home} cannot be written to ({error.strerror}): change its permissions, "
            f"{remedy}"
        ) from None


def database_environment(url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that give a server its database; a password in them is percent-encoded where it must be.

    Prefect puts a password that the URL takes from the environment into the URL as it stands. One that is
    percent-encoded already is left so. Raises `ConfigError` where the variable is not set.

    >>> database_environment("postgresql+asyncpg://me:p@ss/w@db/prefect", {})
    {'PREFECT_API_DATABASE_CONNECTION_URL': 'postgresql+asyncpg://me:p%40ss%2Fw@db/prefect'}
    """
    if not url:
        return {}
    values = {}
    for name in _VARIABLES:
        if f"${{{name}}}" in url:
            if not environment.get(name):
                raise ConfigError(
                    f"the database's URL takes its password from {name}, which is not set: set it"
                )
            values[name] = _encoded(environment[name])
    scheme, separator, rest = url.partition("://")
    user, at, where = rest.rpartition("@")
    name, colon, password = user.partition(":")
    if separator and at and colon and "${" not in password:
        url = f"{scheme}://{name}:{_encoded(password)}@{where}"
    return {"PREFECT_API_DATABASE_CONNECTION_URL": url} | values


def _encoded(password: str) -> str:
    return password if _PLAIN.fullmatch(password) else quote(password, safe="")
