"""Small stores for tests: two-step sequences whose values say which row and version they are."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import zarr

import store

SPEC = {"sampling": {"rule": "uniform", "steps": 3}, "weights": "random:0"}
FINGERPRINT = hashlib.sha256(
    json.dumps(SPEC, sort_keys=True, separators=(",", ":")).encode()
).hexdigest()
LAYOUT = store.Layout(steps=3, shape=(5,), batch=4)
ROOT = Path(__file__).parents[2]


def create(url: str, layout: store.Layout = LAYOUT, **options: Any) -> str:
    software = {"zarr": "3"}
    store.create(
        url, layout=layout, spec=SPEC, fingerprint=FINGERPRINT, software=software, **options
    )
    return url


def clips(count: int, start: int = 0) -> pd.DataFrame:
    numbers = np.arange(start, start + count)
    return pd.DataFrame(
        {
            "video_id": [f"a b/clip-{n} 🎬.avi" for n in numbers],
            "label": np.where(numbers % 2, "walk", "run"),
            "split": np.where(numbers % 3, "train", "test"),
            "group": [f"g{n % 4:02d}" for n in numbers],
            "size_bytes": numbers + 1000,
        }
    )


def features_of(rows: Any, version: int = 0, steps: int = 3, width: int = 5) -> np.ndarray:
    """(n, steps, width): every value is row + 1 + 64 × version; step 2 is padding."""
    values = np.asarray(rows, dtype=np.float16) + 1 + 64 * version
    out = np.broadcast_to(values[:, None, None], (len(values), steps, width)).copy()
    out[:, 2:] = 0
    return out


def put_batch(writer: store.Writer, batch: int, version: int = 0) -> None:
    """What a run does with one batch, from pending to committed."""
    rows = np.array(writer.rows_of(batch))
    writer.mark(rows, store.PENDING)
    writer.flush()
    writer.in_flight([batch])
    digests = store.write_batch(writer.url, batch, features_of(rows, version), token=writer.token)
    mask = np.array([True, True, False])
    writer.set(rows, digest=digests, frames_decoded=2, fps=25, decoder="opencv", sha256="0" * 64)
    writer.set(rows, width=64, height=48, frames_declared=2)
    writer.put_steps(rows, mask, np.where(mask, [0, 7, 0], -1), np.where(mask, [0, 0.5, 0], np.nan))
    writer.mark(rows, store.READY)
    writer.flush()
    writer.in_flight([])


def filled(url: str, rows: int = 10) -> str:
    """A store of ready rows: a copy of one that was made before."""
    files, path = fsspec.url_to_fs(url)
    files.put(f"{_template(rows)}/", path, recursive=True)
    return url


@functools.cache
def _template(rows: int) -> str:
    folder = tempfile.TemporaryDirectory(prefix="filled-")
    atexit.register(folder.cleanup)
    url = create(f"{folder.name}/clips.zarr")
    with store.Writer.acquire(url, owner="test") as writer:
        writer.append(clips(rows))
        for batch in range(-(-rows // LAYOUT.batch)):
            put_batch(writer, batch)
        writer.set_attributes(classes=["run", "walk"])
    return url


def arrays(url: str) -> dict[str, Any]:
    """Everything in a store, as plain values that compare."""
    group = zarr.open_group(url, mode="r")
    return {n: group[n][:].astype(object).tolist() for n in sorted(group.array_keys())}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two stores hold the same, array for array (NaN equals NaN)."""
    return repr(one) == repr(other)


def child(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A Python process of its own that can import `store` and this module."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
