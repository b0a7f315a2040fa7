"""Many stores as one: different clips of one spec, `STORE='shards/*.zarr'`.

A row's number is its place among the ids of all clips, so the number does not depend on which store
holds the clip: what is computed from shards is, bit for bit, what one store of the same clips in that
order gives.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from store.arrays import exists, row_numbers
from store.columns import TABLE, require_columns
from store.errors import StoreMismatch, StoreNotFound
from store.files import FileSequence, sequence_of
from store.layout import READY
from store.place import Options, Place, Url, is_pattern, matches
from store.reader import Store
from store.sequences import Sequences, concatenate, windows
from store.snapshot import counts_of, require_ready, stream

_THREADS = 8


def stores_of(url: Url, *, storage_options: Options = None) -> list[str]:
    """The stores that a pattern names, sorted; the one address itself if it is no pattern.

    A store whose own name has a `*`, `?` or `[` is itself. Raises `StoreNotFound` if nothing matches.
    """
    text = os.fspath(url)
    if not is_pattern(text) or exists(text, storage_options=storage_options):
        return [text]
    found = matches(text, storage_options)
    if not found:
        raise StoreNotFound(
            f"no feature store matches {Place(text, storage_options).url}: check the pattern"
        )
    return found


def open_all(url: Url, *, storage_options: Options = None, frozen: bool = False) -> Store | Shards:
    """The store at an address, or all stores that a pattern names as one. Raises as both do."""
    text = os.fspath(url)
    found = stores_of(text, storage_options=storage_options)
    if found == [text]:
        return Store(text, storage_options=storage_options, frozen=frozen)
    return Shards(text, found, storage_options=storage_options, frozen=frozen)


class Shards:
    """A snapshot of several stores, with the methods of a `Store`; `stores` are theirs.

    url: the pattern. urls: the stores that it names. Rows are in order of the clips' ids, parts of one
    file in order of time. `classes` and `test_sets` are those of all stores, `attributes` and `batch`
    those of the first.

    Raises `StoreMismatch` for a store of another spec than most, naming it and how it differs, and for
    a clip that is in two of them.
    """

    def __init__(
        self,
        url: str,
        urls: Sequence[str],
        *,
        storage_options: Options = None,
        frozen: bool = False,
    ) -> None:
        self._options = storage_options
        self._frozen = frozen
        self.url: str = Place(url, storage_options).url
        with ThreadPoolExecutor(_THREADS) as threads:
            self.stores: list[Store] = list(
                threads.map(
                    lambda one: Store(one, storage_options=storage_options, frozen=frozen), urls
                )
            )
        self.urls = [one.url for one in self.stores]
        _require_one_spec(self.stores)
        first = self.stores[0]
        self.attributes: dict[str, Any] = dict(first.attributes)
        self.spec: dict[str, Any] = dict(first.spec)
        self.fingerprint: str = first.fingerprint
        self.classes: list[str] = sorted({name for one in self.stores for name in one.classes})
        self.software: dict[str, str] = dict(first.software)
        self.test_sets = merged_sets([one.test_sets for one in self.stores])
        self.batch, self.steps, self.shape = first.batch, first.steps, first.shape
        self.dtype: np.dtype[Any] = first.dtype
        self._table = self._numbered()
        self._status = self._table["status"].to_numpy().astype(np.uint8)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n:,} {state}" for state, n in self.counts().items() if n) or "no rows"
        return f"Shards({self.url}: {len(self.stores)} stores; {counts}; {self.fingerprint[:12]})"

    def __len__(self) -> int:
        """Rows of all stores."""
        return len(self._table)

    def table(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """The per-clip columns, or only those named, as of one store. A new frame at each call."""
        if names is None:
            return self._table.copy()
        require_columns(names, TABLE)
        return self._table[list(names)].copy()

    def counts(self) -> dict[str, int]:
        """How many rows have each status, by its name."""
        return counts_of(self._status)

    def load(self, rows: ArrayLike | None = None) -> Sequences:
        """Features and masks of these rows, in their order; of all ready rows where None."""
        return self._load(self._ready(rows))

    def batches(
        self,
        rows: ArrayLike | None = None,
        size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Sequences]:
        """A stream of `Sequences` of `size` rows, as `Store.batches` has it."""
        asked = self._ready(rows)
        if size < 1:
            raise ValueError(f"a batch of {size} rows cannot be: give 1 or more")
        order = windows(asked, self.batch, shuffle=shuffle, seed=seed, epoch=epoch, share=share)
        return stream(self._load, order, size)

    def steps_of(self, rows: ArrayLike) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Where each step came from: (frame_index int32, timestamp float32 seconds), (n, steps)."""
        index = self._index(rows)
        frames = np.full((len(index), self.steps), -1, np.int32)
        times = np.full((len(index), self.steps), np.nan, np.float32)
        for one, at, local in self._parts(index):
            frames[at], times[at] = one.steps_of(local)
        return frames, times

    def sequence(self, file: str) -> FileSequence:
        """All steps of one file in order of time, whatever rows they are in: see `FileSequence`."""
        return sequence_of(self, file)

    def digests(self, rows: ArrayLike) -> NDArray[np.uint32]:
        """The recorded digests of these rows, (n,) uint32: equal digests, equal features."""
        return self._table["digest"].to_numpy()[self._index(rows)].astype(np.uint32)

    def previews(self, rows: ArrayLike) -> list[list[bytes]]:
        """The pictures of these rows, in their order: see `read_previews`."""
        index = self._index(rows)
        pictures: list[list[bytes]] = [[] for _ in index]
        for one, at, local in self._parts(index):
            for place, found in zip(at.tolist(), one.previews(local), strict=True):
                pictures[place] = found
        return pictures

    def refresh(self) -> Shards:
        """The stores that the pattern names now, as they are now."""
        urls = stores_of(self.url, storage_options=self._options)
        return Shards(self.url, urls, storage_options=self._options, frozen=self._frozen)

    def _numbered(self) -> pd.DataFrame:
        tables = [one.table() for one in self.stores]
        _require_different_clips(self.stores, tables)
        rows = pd.concat([table.reset_index() for table in tables], ignore_index=True)
        which = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        file = rows["file"].where(rows["file"] != "", rows["video_id"]).astype(object)
        keys = pd.DataFrame(
            {
                "file": file,
                "start": rows["start_s"].fillna(-1.0),
                "frame": rows["start_frame"],
                "id": rows["video_id"].astype(object),
            }
        )
        order = keys.sort_values(list(keys.columns), kind="stable").index.to_numpy()
        self._at = which[order].astype(np.int64), rows["row"].to_numpy(np.int64)[order]
        table = rows.drop(columns="row").iloc[order].reset_index(drop=True)
        table["state"] = pd.Categorical(
            table["state"], categories=tables[0]["state"].cat.categories
        )
        return table.rename_axis("row")

    def _index(self, rows: ArrayLike) -> NDArray[np.int64]:
        return row_numbers(rows, len(self), self.url)

    def _ready(self, rows: ArrayLike | None) -> NDArray[np.int64]:
        if rows is None:
            return np.flatnonzero(self._status == READY)
        return require_ready(self._status, self._index(rows))

    def _parts(
        self, index: NDArray[np.int64]
    ) -> Iterator[tuple[Store, NDArray[np.int64], NDArray[np.int64]]]:
        """Of each store that has some of these rows: where they are in `index`, and their rows there."""
        which, local = self._at[0][index], self._at[1][index]
        for number in np.unique(which).tolist():
            at = np.flatnonzero(which == number)
            yield self.stores[number], at, local[at]

    def _load(self, index: NDArray[np.int64]) -> Sequences:
        parts, places = [], []
        for one, at, local in self._parts(index):
            read = one.load(local)
            # A row that the store leaves out is left out here.
            at = at[np.isin(local, read.rows)]
            parts.append(Sequences(features=read.features, mask=read.mask, rows=index[at]))
            places.append(at)
        if not parts:
            return self.stores[0].load([])
        if len(parts) == 1:
            return parts[0]
        return concatenate(parts).take(np.argsort(np.concatenate(places), kind="stable"))


def merged_sets(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The named test sets of several stores: of one that several have, what any of them sets apart.

    >>> merged_sets([{"a": {"video_ids": ["x"]}}, {"a": {"video_ids": ["w"]}, "b": {}}])
    {'a': {'video_ids': ['w', 'x']}, 'b': {}}
    """
    merged: dict[str, Any] = {}
    for name, values in ((name, values) for sets in each for name, values in sets.items()):
        known = merged.setdefault(name, dict(values))
        for part, value in values.items():
            if isinstance(value, list):
                known[part] = sorted({*known.get(part, ()), *value})
            elif isinstance(value, bool):  # whether more than the clips themselves stays apart
                known[part] = bool(known.get(part)) or value
    return merged


def _require_one_spec(stores: Sequence[Store]) -> None:
    counts = Counter(one.fingerprint for one in stores)
    (usual, _), *others = counts.most_common()
    if not others:
        return
    rule = next(one for one in stores if one.fingerprint == usual)
    odd = next(one for one in stores if one.fingerprint != usual)
    different = sorted(
        name for name in {*rule.spec, *odd.spec} if rule.spec.get(name) != odd.spec.get(name)
    )
    raise StoreMismatch(
        f"{odd.url} holds features of another spec ({odd.fingerprint[:12]}) than {rule.url} "
        f"({usual[:12]}), in {', '.join(different)}: shards are of one spec, so leave it out of the "
        "pattern"
    )


def _require_different_clips(stores: Sequence[Store], tables: Sequence[pd.DataFrame]) -> None:
    ids = pd.concat([table["video_id"] for table in tables], ignore_index=True)
    twice = ids[ids.duplicated()]
    if not len(twice):
        return
    clip = twice.iloc[0]
    both = [
        one.url for one, table in zip(stores, tables, strict=True) if clip in set(table["video_id"])
    ]
    raise StoreMismatch(
        f"the clip {clip} is in two shards, {both[0]} and {both[1]} (clips in several: {len(twice)}): "
        "shards have different clips, so leave one of these stores out of the pattern"
    )
