"""Where clips and store may be. Apart from `flows.checks`, whose import of Dask takes a second that a
run with nothing to do need not spend.
"""

from __future__ import annotations

from pipeline.errors import ConfigError
from pipeline.features.catalog.remote import refuse_credentials


def require_places(*, store_url: str, videos: str) -> None:
    """Raise `ConfigError` for a store or clips where a run's workers could never be.

    `memory://` lives in one process and the workers are others; a URL with a password in it would
    end up in logs.
    """
    for url in (store_url, videos):
        refuse_credentials(url)
    if store_url.startswith("memory://") or videos.startswith("memory://"):
        raise ConfigError(
            "memory:// exists in one process only and the workers are others: use a folder or an "
            "object store"
        )
