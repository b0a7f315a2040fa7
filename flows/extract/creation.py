"""The stores of a run: made where they are not there, and held for writing."""

from __future__ import annotations

import contextlib
import platform
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import store
from flows.settings.features import FeaturesSettings
from pipeline.engine import version
from pipeline.features.backbones import family_of
from pipeline.features.backbones.family import Weights
from pipeline.features.stage import Stage
from pipeline.homes import free_space
from pipeline.spec import Spec
from store import Layout, Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One store of a run: what it is to hold. existing: the open store; None if it is to be made."""

    settings: FeaturesSettings
    existing: Any | None
    spec: Spec
    stage: Stage
    weights: Weights


def hold(asked: Sequence[Asked], clips: Sequence[int], until: contextlib.ExitStack) -> list[Writer]:
    """Writers of the stores, in their order; those that are not there are made.

    clips: how many each will hold, if it is new. until: releases the leases when it closes.
    Raises `store.StoreBusy` where another run holds one of them, and as `require_room`.
    """
    each_with = zip(asked, clips, strict=True)
    require_room([(each, count) for each, count in each_with if each.existing is None])
    writers = {}
    # In one order, whoever asks: two runs that wait for each other's stores would wait for ever.
    # New ones last, so that none is made where another is busy.
    for each in sorted(asked, key=lambda one: (one.existing is None, one.settings.store)):
        settings = each.settings
        if each.existing is None:
            _create(settings, each.spec)
        wait_s = float("inf") if settings.if_busy == "wait" else 0.0
        writer = Writer.acquire(
            settings.store, owner="features", lease=settings.lease, wait_s=wait_s
        )
        writers[settings.store] = until.enter_context(writer)
    return [writers[each.settings.store] for each in asked]


def require_room(asked: Sequence[tuple[Asked, int]]) -> None:
    """Raise `store.StoreUnwritable` if a disk cannot hold so many, `ConfigError` without an engine."""
    needed: dict[Path, int] = defaultdict(int)
    first: dict[Path, str] = {}
    for each, clips in asked:
        url = each.settings.store
        if "://" not in url or url.startswith("file://"):  # object stores have no limit
            folder, free = free_space(Path(url.removeprefix("file://")).absolute())
            needed[folder] += clips * each.spec.row_bytes
            first.setdefault(folder, url)
            if needed[folder] > free:
                raise store.StoreUnwritable(
                    f"{first[folder]} needs about {needed[folder] / 2**20:,.0f} MiB and {folder} has "
                    f"{free / 2**20:,.0f} MiB free: free some space, or put STORE on another disk"
                )
        if not each.settings.scheduler:  # the workers are on this machine: before they start
            family_of(each.spec.backbone).require(each.settings.engine)


def _create(settings: FeaturesSettings, spec: Spec) -> None:
    steps, shape, dtype = spec.sampling.steps, spec.shape, spec.dtype
    store.create(
        settings.store,
        layout=Layout(steps=steps, shape=shape, dtype=dtype, batch=settings.batch),
        spec=spec.to_dict(),
        fingerprint=spec.fingerprint,
        software=software(),
        lease=settings.lease,
    )


def software() -> dict[str, str]:
    """Versions of what writes a store."""
    names = ("pixels-once", "keras", "numpy", "opencv-python-headless", "av", "zarr")
    versions = {"python": platform.python_version()} | {name: version(name) for name in names}
    return {name: text for name, text in versions.items() if text}
