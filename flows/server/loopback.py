"""No process of ours asks a proxy for this machine itself."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def spare_loopback(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add this machine to `no_proxy` where a proxy is set, for this process and all that it starts.

    The Prefect server of a run and its Dask dashboard listen on loopback; a proxy that were asked for
    them would look on its own machine, or not answer for minutes. Both spellings get what either had,
    for some libraries read the small letters first and some the capitals only.
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
    value = ",".join(dict.fromkeys([*spared, *_LOOPBACK]))
    environment["no_proxy"] = environment["NO_PROXY"] = value
