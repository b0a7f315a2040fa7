"""Every clip's mean vector, cached between commands: computed once, then only for rows that changed.

Kept in the user's cache beside exported models, never in the store: it can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.heads.neighbours import mean_vectors
from pipeline.heads.statistics import Statistics
from pipeline.homes import cache_folder


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipVectors:
    """rows (n,) int64, ascending; vectors (n, channels) float16 on disk; their scaling."""

    rows: np.ndarray
    vectors: np.ndarray
    scaling: Statistics

    def __repr__(self) -> str:
        return f"ClipVectors({self.vectors.shape} {self.vectors.dtype})"


def clip_vectors(
    source: Any, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> ClipVectors:
    """The mean vectors of all ready rows of an open store.

    A row is taken from the cache where its digest is what it was. The first call reads all
    features; later ones read what is new and, of a million rows, answer in seconds.
    """
    folder = _folder(source)
    folder.mkdir(parents=True, exist_ok=True)
    table = source.table()
    rows = table.index[table["state"] == "ready"].to_numpy(dtype=np.int64)
    digests = source.digests(rows) if len(rows) else np.zeros(0, np.uint32)
    old, was = _read(folder)
    if old is not None and np.array_equal(old.rows, rows) and np.array_equal(was, digests):
        return old
    channels = int(np.prod(source.shape))
    # A file per process: two commands at once may both write it, and the last one's stays.
    handle, name = tempfile.mkstemp(dir=folder, suffix=".npy")
    os.close(handle)
    vectors: np.ndarray = (
        np.lib.format.open_memmap(name, "w+", np.float16, (len(rows), channels))
        if len(rows)
        else np.zeros((0, channels), np.float16)
    )
    known = np.zeros(len(rows), bool)
    if old is not None and len(old.rows) and len(rows) and old.vectors.shape[1] == channels:
        at = np.minimum(np.searchsorted(old.rows, rows), len(old.rows) - 1)
        known = (old.rows[at] == rows) & (was[at] == digests)
        vectors[known] = old.vectors[at[known]]
    for some, values in mean_vectors(source, rows[~known], on_progress=on_progress):
        indices = np.searchsorted(rows, some)
        vectors[indices] = np.clip(values, -65504, 65504)
        known[indices] = True
    if not known.all():  # damaged rows: left out, and not remembered as known
        Path(name).unlink()
        kept = np.asarray(vectors[known])
        return ClipVectors(rows=rows[known], vectors=kept, scaling=Statistics.of(kept))
    made = ClipVectors(rows=rows, vectors=vectors, scaling=Statistics.of(vectors))
    _write(folder, Path(name), made, digests)
    return made


def _folder(source: Any) -> Path:
    key = f"{source.url}\n{source.fingerprint}"
    return cache_folder() / "vectors" / hashlib.sha256(key.encode()).hexdigest()[:24]


def _read(folder: Path) -> tuple[ClipVectors | None, np.ndarray]:
    """The cached vectors and their digests; whatever is wrong with a cache, it is written again."""
    nothing = np.zeros(0, np.uint32)
    try:
        with np.load(folder / "index.npz") as index:
            vectors = np.load(folder / str(index["vectors"]), mmap_mode="r")
            scaling = Statistics(mean=index["mean"], scale=index["scale"])
            rows, digests = index["rows"], index["digests"]
    except (OSError, ValueError, KeyError, EOFError):
        return None, nothing
    if len(rows) != len(vectors):
        return None, nothing
    return ClipVectors(rows=rows, vectors=vectors, scaling=scaling), digests


def _write(folder: Path, file: Path, made: ClipVectors, digests: np.ndarray) -> None:
    if isinstance(made.vectors, np.memmap):
        made.vectors.flush()
    else:
        np.save(file, made.vectors)
    making = folder / f"{file.stem}.npz"
    np.savez(
        making,
        rows=made.rows,
        digests=digests,
        mean=made.scaling.mean,
        scale=made.scaling.scale,
        vectors=np.array(file.name),
    )
    making.replace(folder / "index.npz")
    for other in folder.glob("*.npy"):
        if other != file:
            with contextlib.suppress(OSError):
                other.unlink()
