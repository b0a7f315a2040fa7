"""What stands before a run's first batch: its clips, its plan, and the store's table brought up to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.extract.addresses import with_signature
from flows.extract.plan import Plan, follow_catalog, make_plan
from flows.extract.summary import Summary
from flows.settings import FeaturesSettings
from pipeline.errors import ConfigError
from pipeline.features.catalog import discover, narrow
from pipeline.features.catalog.remote import is_remote
from pipeline.features.files import sha256
from pipeline.spec import Spec
from store import GONE, READY, Writer

DEMO_CLIPS = "demo-clips"
MOST_GONE = 0.2


def find_clips(settings: FeaturesSettings) -> tuple[pd.DataFrame, np.ndarray]:
    """The catalog, and which of its clips are wanted (bool per clip)."""
    if not settings.videos and not Path(DEMO_CLIPS).is_dir():
        from pipeline.features.demo import write_demo_clips

        write_demo_clips(Path(DEMO_CLIPS))
    catalog = discover(
        with_signature(settings.videos) or DEMO_CLIPS, ucf_splits=settings.ucf_splits or None
    )
    wanted = narrow(
        catalog,
        classes=[c for c in settings.classes.split(",") if c],
        limit=settings.limit,
        per_class=settings.per_class,
    )
    return catalog, wanted


def dry_run(
    settings: FeaturesSettings,
    catalog: pd.DataFrame,
    wanted: np.ndarray,
    existing: Any | None,
    spec: Spec,
) -> Summary:
    """What a run would do and about how long it may take; nothing is written."""
    table = existing.table() if existing is not None else None
    plan = None if table is None else plan_run(settings, catalog, wanted, table)
    planned = int(wanted.sum()) if plan is None else len(plan)
    rate = 0.0
    if existing is not None:
        rate = float(existing.attributes.get("last_run", {}).get("frames_per_second", 0.0))
    # Without a run to learn from: what two cores did with InceptionV3 when this was measured.
    estimate = planned * spec.sampling.steps / (rate or 35.0)
    return Summary(
        store=settings.store,
        outcome="dry run",
        clips=len(catalog),
        planned=planned,
        gone=0 if plan is None else len(plan.gone),
        why={} if plan is None else plan.why,
        fingerprint=spec.fingerprint,
        weights=spec.weights,
        estimate_s=estimate,
        estimate_bytes=planned * spec.row_bytes,
    )


def plan_run(
    settings: FeaturesSettings, catalog: pd.DataFrame, wanted: np.ndarray, table: pd.DataFrame
) -> Plan:
    """What to do with every clip and row. Raises `ConfigError` where too many rows have no clip."""
    plan = make_plan(
        catalog,
        table,
        wanted=wanted,
        retry=retried_reasons(settings),
        same_bytes=_same_bytes,
    )
    lost = len(plan.gone)
    if len(table) and lost > MOST_GONE * len(table) and not settings.allow_gone:
        raise ConfigError(
            f"{lost} of the {len(table)} rows of {settings.store} have no clip under "
            f"{settings.videos or DEMO_CLIPS}: check --videos, or pass --allow-gone to go on without them"
        )
    return plan


def _same_bytes(path: str, stored: str) -> bool | None:
    if is_remote(path):  # to fetch it costs what is to be saved
        return False
    try:
        return sha256(path) == stored
    except OSError:  # listed, but not to be read now
        return None


def retried_reasons(settings: FeaturesSettings) -> list[str]:
    """The reasons whose rows `--retry` names."""
    return [reason.strip() for reason in settings.retry.split(",") if reason.strip()]


def prepare(catalog: pd.DataFrame, plan: Plan, writer: Writer) -> tuple[np.ndarray, Any]:
    """Bring the store's table up to the catalog; returns the rows to make and row → path."""
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
