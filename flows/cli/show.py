"""`pixels-once show`: what is in a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.cli.terminal import headline, print_json, print_table
from flows.settings.resolve import setting

EXAMPLES = "pixels-once show --store clips.zarr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Shows what is in a store: spec, rows by status, labels, reasons, size."""

    store: str = setting(
        "features.zarr", "the store, or a quoted pattern: 'shards/*.zarr'", metavar="PATH"
    )


def run(settings: Settings, *, json: bool) -> int:
    import store
    from flows.exchange.datasheet import facts_of
    from pipeline.spec import IMPORTED

    source = store.open_all(settings.store)
    table = source.table()
    labels = table.loc[table["state"] == "ready", "label"].value_counts()
    reasons = table.loc[table["reason"] != "", "reason"].value_counts()
    files = table["file"].where(table["file"] != "", table["video_id"])
    # A file's bytes count once, whatever parts of it are rows.
    clips_bytes = int(table.loc[~files.duplicated(), "size_bytes"].clip(0).sum())
    facts = facts_of(source) | {
        "store": settings.store,
        "batch": source.batch,
        "clips_bytes": clips_bytes,
        "parts": int((table["file"] != "").sum()),
        "files": int(files.nunique()),
        "labels": labels.to_dict(),
        "reasons": reasons.to_dict(),
    }
    stores = [one.url for one in source.stores] if isinstance(source, store.Shards) else []
    if stores:
        facts["stores"] = stores
    if json:
        print_json(facts)
        return 0
    headline(settings.store + (f" ({len(stores)} stores)" if stores else ""))
    spec = source.spec
    sampling = spec["sampling"]
    how = (
        f"imported from {spec.get('source', '')}, {sampling['rule']} sampling"
        if spec["backbone"] == IMPORTED
        else f"by {_first_stage(spec, source.attributes.get('first_stage', {}))} "
        f"(weights {spec['weights'][:19]}…, {spec['precision']}), {sampling['rule']} sampling, "
        f"fit {spec['fit']}, view {spec['view']}"
    )
    print(f"{source.steps} × {source.shape} {source.dtype} {how}")
    print(
        f"fingerprint {source.fingerprint[:16]}… · batch {source.batch} · "
        f"{facts['features_bytes'] / 2**20:,.1f} MiB of features from "
        f"{clips_bytes / 2**20:,.1f} MiB of clips · {facts['groups']} groups"
    )
    if facts["parts"]:
        print(f"{facts['parts']:,} rows are parts of files: {facts['files']:,} files in all")
    if spec["weights"].startswith("random"):
        print("these features come from random weights, not ImageNet's")
    print_table("rows", ("status", "rows"), source.counts().items())
    if len(labels):
        print_table("ready clips by label", ("label", "clips"), labels.items())
    if len(reasons):
        print_table("reasons", ("reason", "rows"), reasons.items())
    return 0


def _first_stage(spec: Mapping[str, Any], remembered: Mapping[str, Any]) -> str:
    """The backbone; of a model file its name, too, as it was when the store was made."""
    from pipeline.features.backbones import model_family

    if spec["backbone"] not in model_family.FILES:
        return str(spec["backbone"])
    return f"{spec['backbone']} {Path(str(remembered.get('weights', ''))).name}"
