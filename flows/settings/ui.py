"""Settings of the Prefect server with its UI."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class UiSettings:
    """The Prefect server with its UI, until Ctrl-C; runs started meanwhile report to it."""

    host: str = setting(
        "127.0.0.1", "address to listen on; 0.0.0.0 for other machines", metavar="HOST"
    )
    port: int = setting(4200, "port to listen on", metavar="N", least=1, most=65535)
    database: str = setting(
        "",
        "where it keeps its history: postgresql+asyncpg://USER@HOST/NAME (default: SQLite in the "
        "Prefect home); a password is read from the environment where the URL says "
        "USER:${PREFECT_SERVER_DATABASE_PASSWORD}@HOST",
        metavar="URL",
    )
