"""Settings of a look into a store."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowSettings:
    """What is in a store: spec, rows by status, labels, reasons, size."""

    store: str = setting("features.zarr", "the store", metavar="PATH")
