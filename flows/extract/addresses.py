"""Which addresses of clips and store a cluster can reach.

Apart from `flows.extract.worker_checks`, whose import of Dask takes a second that a run with nothing
to do need not spend.
"""

from __future__ import annotations

from pipeline.errors import ConfigError
from pipeline.features.catalog.remote import refuse_credentials, without_query, without_secrets

_whole: dict[str, str] = {}  # a URL without its query → the URL


def require_places(*, store_url: str, videos: str) -> None:
    """Raise `ConfigError` for a store or clips where a run's workers could never be.

    `memory://` lives in one process and the workers are others; a URL with a password or a query (a
    signature, often) in it would end up in logs and in Prefect's database, with a run's parameters.
    """
    for url in (store_url, videos):
        refuse_credentials(url)
        if without_query(url) != url:
            raise ConfigError(
                f"the URL {without_secrets(url)} carries what may be a signature, and would be kept "
                "with the run: list the clip in a CSV manifest, whose rows are not"
            )
    if store_url.startswith("memory://") or videos.startswith("memory://"):
        raise ConfigError(
            "memory:// exists in one process only and the workers are others: use a folder or an "
            "object store"
        )


def without_signature(url: str) -> str:
    """The URL without what follows `?`, which this process alone remembers (`with_signature`)."""
    bare = without_query(url)
    if bare != url:
        _whole[bare] = url
    return bare


def with_signature(url: str) -> str:
    """The URL as the user gave it, where it was told to this process."""
    return _whole.get(url, url)
