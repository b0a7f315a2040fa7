"""`pixels-once relabel`: other labels, splits and groups for clips of a store, without their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.cli.terminal import print_json, print_table
from flows.settings.resolve import setting
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from flows.exchange.labels import Changes

EXAMPLES = """
pixels-once relabel --store clips.zarr --labels manifest.csv --dry-run
pixels-once relabel --store clips.zarr --labels manifest.csv
"""

_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Changes labels, splits and groups of a store's clips, in one commit; features stay as they are.

    Named test sets keep their clips. A later `features` takes labels from its list of clips again: give
    it the same manifest.
    """

    store: str = setting("features.zarr", "the store", metavar="PATH")
    labels: str = setting(
        "",
        "CSV file with id (or path) and any of label, split and group (required)",
        metavar="FILE",
    )
    lease: bool = setting(True, "hold the store's lease while writing")
    dry_run: bool = setting(False, "show what would change; do nothing")


def run(settings: Settings, *, json: bool) -> int:
    import store
    from flows.exchange.labels import changes_of, read_labels

    if not settings.labels:
        raise ConfigError("relabel needs --labels: a CSV file with id and label, split or group")
    labels = read_labels(settings.labels)
    if settings.dry_run:
        table = store.open(settings.store).table()
        changes = changes_of(labels, table)
        lines = _checked(settings, changes).lines(table)
    else:
        with store.Writer.acquire(settings.store, owner="relabel", lease=settings.lease) as writer:
            table = writer.table
            changes = changes_of(labels, table)
            lines = _checked(settings, changes).lines(table)
            if not json:
                _show(settings, changes, lines)
            for name in changes.changed:
                writer.set(changes.rows, **{name: changes.values[name].to_numpy()})
            writer.flush()
            # Without changes, too: a run that was killed may have left them out.
            writer.set_attributes(classes=set(writer.column("label").tolist()) - {""})
    if json:
        print_json(
            {
                "store": settings.store,
                "dry_run": settings.dry_run,
                "changed": {name: len(rows) for name, rows in changes.changed.items()},
                "changes": [dict(zip(_HEAD, line, strict=True)) for line in lines],
                "unknown": changes.unknown,
            }
        )
    elif settings.dry_run:
        _show(settings, changes, lines)
    return 0


_HEAD = ("clip", "column", "before", "after")


def _checked(settings: Settings, changes: Changes) -> Changes:
    if not len(changes.rows):
        raise ConfigError(
            f"none of the {len(changes.unknown)} ids in {settings.labels} is in {settings.store}: ids "
            "are paths below the clips' folder, as in the column video_id of `store.open(…).table()`"
        )
    return changes


def _show(settings: Settings, changes: Changes, lines: list[tuple[str, str, str, str]]) -> None:
    if lines:
        more = f" (the first {_SHOWN} of {len(lines):,})" if len(lines) > _SHOWN else ""
        print_table(f"changes{more}", _HEAD, lines[:_SHOWN])
    counts = ", ".join(f"{len(rows):,} {name}s" for name, rows in changes.changed.items())
    would = "would change" if settings.dry_run else "change"
    print(f"{settings.store}: {counts or 'no value'} {would}")
    if changes.unknown:
        print(f"{len(changes.unknown):,} ids are not in the store:")
        for name in changes.unknown:
            print(f"  {name}")
