"""A run of `features` as its rooms need it: the settings, resolved once and taken apart."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from flows.extract.plan import check_retry
from flows.settings import FeaturesSettings, RefreshSettings
from flows.settings.resolve import check_settings
from pipeline.errors import ConfigError
from pipeline.features.catalog.remote import refuse_credentials, without_query, without_secrets

DEMO_CLIPS = "demo-clips"
"""The folder of the built-in clips, where no clips are named."""

_whole: dict[str, str] = {}  # a URL without its query → the URL


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipChoice:
    """Which clips: a folder, file or manifest, narrowed to classes and numbers (0: no limit)."""

    videos: str
    ucf_splits: str = ""
    classes: tuple[str, ...] = ()
    limit: int = 0
    per_class: int = 0

    @property
    def is_demo(self) -> bool:
        """Whether these are the built-in clips."""
        return not self.videos

    def __str__(self) -> str:
        return self.videos or DEMO_CLIPS


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterChoice:
    """Which Dask cluster: a running scheduler, a class by its path, or local processes (0: as fits).

    gpu: auto, require or never · wait_s: how long to wait when all workers have gone.
    """

    scheduler: str = ""
    class_path: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    adapt: dict[str, Any] = field(default_factory=dict)
    gpu: str = "auto"
    workers: int = 0
    wait_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a run of `features` was asked for. url: the store's address.

    retry: reasons of rows to make again · lease_wait_s: how long to wait while another run holds the
    store. What decides the features' values is `flows.extract.specs.stage_of`'s to resolve.
    """

    url: str
    clips: ClipChoice
    cluster: ClusterChoice
    retry: tuple[str, ...] = ()
    allow_gone: bool = False
    lease: bool = True
    lease_wait_s: float = 0.0
    skips_if_busy: bool = False

    @classmethod
    def of(cls, settings: FeaturesSettings) -> Request:
        """The request in a command's settings.

        Raises `ConfigError` for a setting that cannot be, and for clips or a store that no worker
        could reach.
        """
        check_settings(settings)
        settings = with_store(settings)
        require_addresses(settings)
        retry = _parts(settings.retry)
        check_retry(retry)
        return cls(
            url=settings.store,
            clips=ClipChoice(
                videos=settings.videos,
                ucf_splits=settings.ucf_splits,
                classes=_parts(settings.classes),
                limit=settings.limit,
                per_class=settings.per_class,
            ),
            cluster=ClusterChoice(
                scheduler=settings.scheduler,
                class_path=settings.cluster,
                options=settings.cluster_options,
                adapt=settings.adapt,
                gpu=settings.gpu,
                workers=settings.workers,
                wait_s=settings.worker_wait,
            ),
            retry=retry,
            allow_gone=settings.allow_gone,
            lease=settings.lease,
            lease_wait_s=float("inf") if settings.if_busy == "wait" else 0.0,
            skips_if_busy=settings.if_busy == "skip",
        )


def with_store(settings: FeaturesSettings) -> FeaturesSettings:
    """The settings with the default store's name filled in."""
    if settings.store:
        return settings
    return replace(settings, store="features.zarr" if settings.videos else "demo.zarr")


def require_addresses(settings: FeaturesSettings | RefreshSettings) -> None:
    """Raise `ConfigError` for a store or clips that a run's workers could never reach.

    `memory://` lives in one process and the workers are others; a URL with a password or a query (a
    signature, often) in it would end up in logs and in Prefect's database, with a run's parameters.
    """
    for url in (settings.store, settings.videos):
        refuse_credentials(url)
        if without_query(url) != url:
            raise ConfigError(
                f"the URL {without_secrets(url)} carries what may be a signature, and would be kept "
                "with the run: list the clip in a CSV manifest, whose rows are not"
            )
        if url.startswith("memory://"):
            raise ConfigError(
                "memory:// exists in one process only and the workers are others: use a folder or an "
                "object store"
            )


def without_signature(url: str) -> str:
    """The URL without its query, which this process alone remembers (`with_signature`)."""
    bare = without_query(url)
    if bare != url:
        _whole[bare] = url
    return bare


def with_signature(url: str) -> str:
    """The URL as the user gave it to this process."""
    return _whole.get(url, url)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)
