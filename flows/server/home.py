"""The environment of processes that use Prefect: its home, its database, and no proxy for this host."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from urllib.parse import quote

from pipeline.errors import ConfigError
from pipeline.homes import user_folder

_NEEDED = 8 << 20  # a new database, and its log of changes
_VARIABLES = ("PREFECT_SERVER_DATABASE_PASSWORD", "PREFECT_API_DATABASE_PASSWORD")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_PLAIN = re.compile(r"(?:[^@/?#\[\]:%\s]|%[0-9A-Fa-f]{2})*")


class HomeUnwritable(RuntimeError):
    """The Prefect home cannot hold a server's database."""

    exit_status = 4


def prefect_home() -> Path:
    """The folder where Prefect keeps its database and profiles."""
    named = os.environ.get("PREFECT_HOME")
    return Path(named).expanduser() if named else user_folder(".prefect")


def require_home() -> None:
    """Raise `HomeUnwritable` if a server, which would not say why, could not start for its home."""
    home = prefect_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as probe:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(probe.fileno(), 0, _NEEDED)
    except OSError as error:
        fact = f"cannot be written to ({error.strerror}): change its permissions"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fact = f"has less than {_NEEDED >> 20} MiB free: free some space"
        raise HomeUnwritable(
            f"the Prefect home {home} {fact}, or set PREFECT_HOME to a folder elsewhere"
        ) from None


def database_environment(url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that give a server its database; a password in them is percent-encoded where it must be.

    Prefect inserts a password from the environment into the URL unchanged. One that is percent-encoded
    already stays as it is. Raises `ConfigError` if the variable is not set.

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


def quiet_prefect() -> None:
    """Keep Prefect's log lines off the terminal, unless the user set them. Before Prefect's import."""
    if str(prefect_home()) != os.path.expanduser("~/.prefect"):  # no home, or a read-only one
        os.environ["PREFECT_HOME"] = str(prefect_home())
    for name, value in {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_CLI_PROMPT": "false",
        # Prefect's own threads, too, retry while a server does not answer.
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500,504",
        # Else each worker asks before its first batch, and the batch fails with the question.
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    }.items():
        os.environ.setdefault(name, value)


def spare_loopback(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add this machine to `no_proxy` where a proxy is set, for this process and all that it starts.

    The Prefect server of a run and its Dask dashboard listen on loopback; a proxy would look for them on
    its own host, or not answer for minutes. Both spellings of the variable get what either had: some
    libraries read the lower-case one first, some the upper-case one only.
    """
    if not any(environment.get(name) or environment.get(name.upper()) for name in _PROXIES):
        return
    spared = [
        host.strip()
        for name in ("no_proxy", "NO_PROXY")
        for host in environment.get(name, "").split(",")
        if host.strip()
    ]
    if "*" in spared:
        return
    value = ",".join(dict.fromkeys([*spared, *LOOPBACK]))
    environment["no_proxy"] = environment["NO_PROXY"] = value


def _encoded(password: str) -> str:
    return password if _PLAIN.fullmatch(password) else quote(password, safe="")
