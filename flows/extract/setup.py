"""The work before a run's first batch: listing its clips, planning, and updating the store's table."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import store
from flows.extract.creation import Asked
from flows.extract.hashes import FileHashes
from flows.extract.listing import find_clips
from flows.extract.long import Listed, splits_long
from flows.extract.plan import Plan, follow_catalog, make_plan
from flows.extract.request import (
    clips_of,
    parts,
    require_batch,
    share_of,
    stage_of,
)
from flows.extract.summary import Summary
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError
from pipeline.features.backbones import channels_of
from pipeline.features.backbones.family import Weights
from pipeline.features.files import answered
from pipeline.features.stage import Stage
from pipeline.spec import Spec
from store import GONE, READY, StoreBusy, Writer

MOST_GONE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is left to do: the `rows` to extract, the path of each, and the summary so far.

    hashes: of files that were hashed for the plan, or will be for their batches.
    """

    plan: Plan
    rows: np.ndarray
    path_of: Callable[[int], str]
    summary: Summary
    hashes: FileHashes


def dry_run(
    settings: FeaturesSettings, listed: Listed, existing: Any | None, spec: Spec
) -> Summary:
    """What a run would do and about how long it may take; nothing is written."""
    catalog, wanted = listed
    planned, rate = int(wanted.sum()), 0.0
    known: dict[str, Any] = {}
    if existing is not None:
        with FileHashes() as hashes:
            plan = plan_run(settings, listed, existing.table(), hashes)
        planned, known = len(plan), {"gone": len(plan.gone), "why": plan.why}
        rate = float(existing.attributes.get("last_run", {}).get("frames_per_second", 0.0))
    return Summary(
        store=settings.store,
        outcome="dry run",
        clips=len(catalog),
        planned=planned,
        **known,
        fingerprint=spec.fingerprint,
        weights=spec.weights,
        # Without a run to learn from: what two cores did with InceptionV3 when this was measured.
        estimate_s=planned * spec.sampling.steps / (rate or 35.0),
        estimate_bytes=planned * spec.row_bytes,
    )


def plan_run(
    settings: FeaturesSettings, listed: Listed, table: pd.DataFrame, hashes: FileHashes
) -> Plan:
    """What to do with every clip and row. Raises `ConfigError` if too many rows have no clip."""
    catalog, wanted = listed
    retry = parts(settings.retry)
    plan = make_plan(catalog, table, wanted=wanted, retry=retry, same_bytes=hashes.same_bytes)
    lost = len(plan.gone)
    if len(table) and lost > MOST_GONE * len(table) and not settings.allow_gone:
        raise ConfigError(
            f"{lost} of the {len(table)} rows of {settings.store} have no clip under "
            f"{clips_of(settings)}: check --videos, or pass --allow-gone to go on without them"
        )
    return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One store of a run, held for writing, and what is left to do in it."""

    asked: Asked
    writer: Writer
    prepared: Prepared

    @property
    def has_work(self) -> bool:
        """Whether rows are to be made, or batches of a run that died to be checked."""
        return bool(len(self.prepared.rows) or self.writer.suspects)


def prepare_all(
    asked: Sequence[Asked], writers: Sequence[Writer], listed: Sequence[Listed]
) -> list[Target]:
    """`prepare` every store of a run, so that stores that get new clips get them in one order."""
    hashes = FileHashes()
    targets: dict[int, Target] = {}
    # The one that has most says in which order.
    order = sorted(range(len(writers)), key=lambda number: -len(writers[number]))
    for number in order:
        one, writer = asked[number], writers[number]
        prepared = prepare(
            one.settings,
            listed[number],
            writer,
            one.spec,
            one.stage,
            one.weights,
            hashes=hashes,
            like=writers[order[0]] if number != order[0] else None,
        )
        targets[number] = Target(asked=one, writer=writer, prepared=prepared)
    return [targets[number] for number in range(len(writers))]


def prepare(
    settings: FeaturesSettings,
    listed: Listed,
    writer: Writer,
    spec: Spec,
    stage: Stage,
    weights: Weights,
    *,
    hashes: FileHashes | None = None,
    like: Writer | None = None,
) -> Prepared:
    """Update the store's table to the catalog; the store remembers the weights and the clips' folder.

    hashes: of the run, where it has taken some already. like: a store in whose order of rows new clips
    are added, so that the batches of both hold the same clips.
    """
    catalog, wanted = listed
    clips = clips_of(settings)
    clips = clips if "://" in clips else str(Path(clips).absolute())
    if (share := share_of(settings, writer)) is not None:  # checked again: now the store is ours
        writer.set_attributes(shard=str(share))
    writer.set_attributes(first_stage={"weights": stage.weights}, clips=clips)
    if channels := channels_of(spec.backbone):
        writer.set_attributes(channels=channels)
    if stage.previews:
        writer.keep_previews()
    hashes = hashes or FileHashes()
    plan = plan_run(settings, listed, writer.table, hashes)
    if like is not None:
        plan = replace(plan, new=in_order_of(plan.new, catalog, like.column("video_id")))
    split = splits_long(settings, writer)
    rows, path_of = _follow(catalog, plan, writer)
    if split:  # now that the rows are there, from which the next run knows how long the files are
        writer.set_attributes(long="split")
    summary = Summary(
        store=settings.store,
        outcome="nothing to do",
        clips=len(catalog),
        files=len(set(catalog["file"]) - {""}),
        classes=len(set(catalog["label"]) - {""}),
        wanted=int(wanted.sum()),
        planned=len(rows),
        gone=len(plan.gone),
        returned=len(plan.returned),
        unknown=len(plan.unknown),
        why=plan.why,
        weights=str(weights),
        precision=stage.precision,
        fingerprint=spec.fingerprint,
    )
    return Prepared(plan=plan, rows=rows, path_of=path_of, summary=summary, hashes=hashes)


def finished(summary: Summary, writer: Writer, started: float) -> Summary:
    """The summary with what is known at the end of a run, whether there was work or not.

    started: by `time.monotonic`.
    """
    return replace(
        summary,
        rows=count_rows(writer.table),
        seconds=time.monotonic() - started,
        reasons=dict(Counter(f["reason"] for f in summary.failures)),
    )


def count_rows(table: pd.DataFrame) -> dict[str, int]:
    """How many rows of a store's table have each status, by name."""
    return {name: int((table["state"] == name).sum()) for name in store.STATUS_NAMES}


def in_order_of(positions: np.ndarray, catalog: pd.DataFrame, ids: np.ndarray) -> np.ndarray:
    """Positions in a catalog in the order in which their ids stand here; others stay behind them.

    >>> catalog = pd.DataFrame({"video_id": ["a", "b", "c"]})
    >>> in_order_of(np.array([0, 1, 2]), catalog, np.array(["c", "a"]))
    array([2, 0, 1])
    """
    row = pd.Index(ids).get_indexer(pd.Index(catalog["video_id"].to_numpy()[positions]))
    return positions[np.argsort(np.where(row < 0, len(ids), row), kind="stable")]


def _follow(
    catalog: pd.DataFrame, plan: Plan, writer: Writer
) -> tuple[np.ndarray, Callable[[int], str]]:
    """Commit what the catalog says; returns the rows to make and row → path."""
    table = writer.table
    # First of all: a row that is still ready when the size and time of its new bytes are committed
    # would, after a kill in between, pass for made from them.
    writer.unmake(plan.make, present=True)
    for name, (rows, values) in follow_catalog(catalog, table, plan).items():
        writer.set(rows, **{name: values})
    writer.mark(plan.gone, GONE, table["reason"].to_numpy()[plan.gone])
    writer.mark(plan.returned, READY, table["reason"].to_numpy()[plan.returned])
    appended = np.zeros(0, int)
    if len(plan.new):
        appended = writer.append(catalog.iloc[plan.new].drop(columns="path"))
    classes = sorted(set(catalog["label"]) - {""})
    if classes != writer.attributes.get("classes"):
        writer.set_attributes(classes=classes)
    writer.flush()
    path_of = catalog["path"].to_numpy()
    position = dict(zip(appended.tolist(), plan.new.tolist(), strict=True))
    position |= dict(zip(plan.known.tolist(), plan.known_positions.tolist(), strict=True))
    rows = np.concatenate([plan.make, appended])
    return rows, lambda row: str(path_of[position[row]])


def run_idle(settings: FeaturesSettings) -> Summary | None:
    """The summary of a run that has nothing to do; None if there may be work for the flow.

    settings: as `checked` returns them.
    Only for folders of clips and stores on this machine: to list others twice may take minutes.
    Raises what the flow raises for clips, a store or settings that do not match.
    """
    started = time.monotonic()
    if settings.dry_run or "://" in settings.store or not _is_folder(clips_of(settings)):
        return None
    if not store.exists(settings.store):
        return None
    existing = store.open(settings.store)
    spec, stage, weights = stage_of(settings, existing)
    require_batch(existing, settings)
    try:
        writer = Writer.acquire(settings.store, owner="features", lease=settings.lease)
    except StoreBusy:
        return None
    with writer:
        listed = find_clips(settings, writer, writer.table)
        # Clips whose time has changed count as work: the flow compares their bytes.
        retry = parts(settings.retry)
        plan = make_plan(listed[0], writer.table, wanted=listed[1], retry=retry)
        work = (plan.new, plan.make, plan.gone, plan.returned, plan.stale, plan.unknown)
        if any(map(len, work)) or writer.suspects:
            return None
        summary = prepare(settings, listed, writer, spec, stage, weights).summary
        return finished(summary, writer, started)


def _is_folder(path: str) -> bool:
    """Whether it is a folder that answers; what the file system has against it the flow says."""
    try:
        return stat.S_ISDIR(answered(path, lambda: os.stat(path)).st_mode)
    except (OSError, ValueError):
        return False
