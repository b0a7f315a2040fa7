"""What a packed store says of itself: counts, spec, software, licence, source."""

from __future__ import annotations

import json
from typing import Any

import store
from pipeline.spec import Spec


def facts_of(source: store.Store | store.Shards) -> dict[str, Any]:
    """A store in numbers, as JSON values: its rows, what its ready ones are, its spec."""
    table = source.table()
    ready = table[table["state"] == "ready"]
    counts = {
        name: ready.loc[ready[name] != "", name].value_counts() for name in ("label", "split")
    }
    return {
        "rows": source.counts(),
        "labels": {str(label): int(count) for label, count in counts["label"].items()},
        "splits": {str(split): int(count) for split, count in counts["split"].items()},
        "groups": int(ready.loc[ready["group"] != "", "group"].nunique()),
        "steps": source.steps,
        "shape": list(source.shape),
        "dtype": str(source.dtype),
        "features_bytes": Spec.from_dict(source.spec).row_bytes * len(table),
        "fingerprint": source.fingerprint,
        "spec": source.spec,
        "software": source.software,
    }


def datasheet_of(source: store.Store, name: str, *, license: str, origin: str) -> dict[str, Any]:
    """The datasheet as JSON values. license, origin: as told by who packs; may be empty."""
    return {
        "name": name,
        "format": source.attributes["format"],
        "format_version": source.attributes["format_version"],
        "license": license,
        "source": origin,
        **facts_of(source),
        "classes": source.classes,
        "test_sets": sorted(source.test_sets),
    }


def readme_of(sheet: dict[str, Any]) -> str:
    """The datasheet as a page, with how to read what lies beside it."""
    rows = ", ".join(f"{count:,} {state}" for state, count in sheet["rows"].items() if count)
    spec = json.dumps(sheet["spec"], indent=1, ensure_ascii=False)
    labels = "\n".join(f"| {label} | {count:,} |" for label, count in sheet["labels"].items())
    return f"""# {sheet["name"]}

Masked sequences of features, one per video clip: {rows or "no rows"}; {sheet["steps"]} steps of
shape {tuple(sheet["shape"])} in {sheet["dtype"]}.

- Licence: {sheet["license"] or "not told"}
- Source: {sheet["source"] or "not told"}
- Fingerprint: `{sheet["fingerprint"]}`
- Written by: {", ".join(f"{k} {v}" for k, v in sheet["software"].items()) or "not told"}

| label | ready clips |
| --- | ---: |
{labels}

This archive is a Zarr group, not compressed, and is read where it lies:

```python
import xarray, zarr

clips = xarray.open_zarr(zarr.storage.ZipStore("{sheet["name"]}", mode="r"), consolidated=False)
ready = clips.isel(video=(clips.status == 1).values)  # features (video, step, channel), mask, label
```

The same numbers are in `datasheet.json`. What decides a feature's value:

```json
{spec}
```
"""
