"""Reading a store: a snapshot of its table, and features that match the snapshot's digests."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from store.arrays import NEEDED, by_chunk, layout_of, open_arrays, open_group, row_numbers, span
from store.chunks import decode, read_previews
from store.columns import TABLE, frame, named, read_column, read_columns, require_columns
from store.errors import StoreDamaged, StoreWarning, translated
from store.files import FileSequence, sequence_of
from store.labelled import LabelledBatches
from store.layout import COLUMNS, READY, STEP_COLUMNS
from store.place import Options, Place
from store.sequences import FeatureRows, Sequences, windows
from store.snapshot import counts_of, require_ready, stream

_THREADS = 4


class Store:
    """A snapshot of a store. Status and digests are read at once, other columns when asked for.

    frozen: rows that are rewritten later are left out instead of returned in their new version.
    Raises `StoreNotFound`, `StoreMismatch` (something else is there), `StoreTooNew`.

    >>> import store
    >>> s = store.open("features.zarr")           # doctest: +SKIP
    >>> s.table().query("state == 'ready'")       # doctest: +SKIP
    >>> s.load([0, 1]).features.shape             # doctest: +SKIP
    (2, 40, 2048)

    While a run writes, `load` and `batches` return only rows whose features match the snapshot's
    digests; rows that were rewritten since are returned in their new version if they are ready again (not
    from a `frozen` snapshot), else they are left out with a `StoreWarning`. `refresh` returns a new
    snapshot.
    """

    def __init__(self, url: str, *, storage_options: Options = None, frozen: bool = False) -> None:
        self._frozen = frozen
        self._place = Place(url, storage_options)
        self.url: str = self._place.url
        with translated(self.url):
            group = open_group(self._place)
            # Status first: what it calls ready was committed before it.
            names = ("status", *STEP_COLUMNS, *COLUMNS[:-1], "features")
            self._arrays = open_arrays(group, names, needed=NEEDED)
            self._size = self._arrays["status"].shape[0]
            self._status = read_column(self._arrays, "status", self._size)
            self._digest = read_column(self._arrays, "digest", self._size)
        self._feature_rows = FeatureRows(self._place, self._arrays["features"])
        self.attributes: dict[str, Any] = dict(group.attrs)
        self.spec: dict[str, Any] = dict(self.attributes["spec"])
        self.fingerprint: str = str(self.attributes["fingerprint"])
        self.classes: list[str] = list(self.attributes.get("classes", []))
        self.software: dict[str, str] = dict(self.attributes.get("software", {}))
        self.test_sets: dict[str, Any] = dict(self.attributes.get("test_sets", {}))
        layout = layout_of(self._arrays["features"])
        self.batch: int = layout.batch
        self.steps: int = layout.steps
        self.shape: tuple[int, ...] = layout.shape
        self.dtype: np.dtype[Any] = np.dtype(layout.dtype)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n:,} {state}" for state, n in self.counts().items() if n) or "no rows"
        return (
            f"Store({self.url}: {counts}; features ({self.steps}, "
            f"{', '.join(map(str, self.shape))}) {self.dtype}; "
            f"{len(self.classes)} classes; {self.fingerprint[:12]})"
        )

    def __len__(self) -> int:
        """Rows that exist: those with an id."""
        return len(self._rows)

    def table(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """The per-clip columns, or only those named; the index `row` is the row's number.

        `status` is the format's number, `state` its name. A new frame at each call. All columns are kept
        for the next call, about 400 bytes a row; those that are named are not.
        Raises `ValueError` for a name that no column has.
        """
        if names is None:
            return frame(self._columns, self._rows)
        require_columns(names, TABLE)
        some = self._read({*names, "video_id", "status"} - {"state"})
        return frame(some, named(some))[list(names)]

    def counts(self) -> dict[str, int]:
        """How many rows have each status, by its name."""
        return counts_of(self._status)

    def load(self, rows: ArrayLike | None = None) -> Sequences:
        """Features and masks of these rows, in their order; of all ready rows where None.

        Raises `ValueError` where a row is not ready. Rows whose features do not match their
        digests are left out with a `StoreWarning`.
        """
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
        """A stream of `Sequences` of `size` rows (the last may be short), every row once.

        Holds at most two windows of eight chunks, one being read while the other is used. The
        order is a function of rows, seed and epoch alone. `share`: (k, n) streams the rows of each
        n-th chunk from the k-th on, so that n readers have every row once between them.
        """
        asked = self._ready(rows)
        if size < 1:
            raise ValueError(f"a batch of {size} rows cannot be: give 1 or more")
        order = windows(asked, self.batch, shuffle=shuffle, seed=seed, epoch=epoch, share=share)
        return stream(self._load, order, size)

    def previews(self, rows: ArrayLike) -> list[list[bytes]]:
        """The pictures of these rows, in their order: see `store.read_previews`."""
        return read_previews(self.url, rows)

    def torch_dataset(
        self, rows: ArrayLike | None = None, size: int = 32, *, shuffle: bool = True, seed: int = 0
    ) -> Any:
        """Batches of these rows (all ready ones where None) for PyTorch's `DataLoader`.

        A `store.torch_dataset.TorchDataset`. Raises `ImportError` without PyTorch.
        """
        from store.torch_dataset import TorchDataset

        return TorchDataset(
            LabelledBatches(self, self._ready(rows), size, shuffle=shuffle, seed=seed)
        )

    def tf_dataset(
        self, rows: ArrayLike | None = None, size: int = 32, *, shuffle: bool = True, seed: int = 0
    ) -> Any:
        """Batches of these rows (all ready ones where None) as a `tf.data.Dataset`.

        Each iteration over it is the next epoch. Raises `ImportError` without TensorFlow.
        """
        from store.tf_dataset import tf_dataset

        return tf_dataset(
            LabelledBatches(self, self._ready(rows), size, shuffle=shuffle, seed=seed)
        )

    def steps_of(self, rows: ArrayLike) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Where each step came from: (frame_index int32, timestamp float32 seconds), (n, steps)."""
        index = self._index(rows)
        with translated(self.url):
            return self._steps("frame_index", index), self._steps("timestamp", index)

    def sequence(self, file: str) -> FileSequence:
        """All steps of one file in order of time, whatever rows they are in: see `FileSequence`."""
        return sequence_of(self, file)

    def digests(self, rows: ArrayLike) -> NDArray[np.uint32]:
        """The recorded digests of these rows, (n,) uint32: equal digests, equal features."""
        return np.asarray(self._digest[self._index(rows)])

    def refresh(self) -> Store:
        """The store as it is now."""
        return Store(self.url, storage_options=self._place.options, frozen=self._frozen)

    def reopened(self) -> Store:
        """This snapshot, opened again: what another process has opened cannot be shared with it."""
        return _reopened(*self._origin())

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, self._origin()

    def _origin(self) -> tuple[Any, ...]:
        return self.url, self._place.options, self._frozen, self._size, self._status, self._digest

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        return self._read(COLUMNS)

    def _read(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        known = {"status": self._status, "digest": self._digest}
        with translated(self.url):
            others = read_columns(self._arrays, self._size, set(names) - set(known))
        everything = {**others, **known}
        return {name: everything[name] for name in COLUMNS if name in names}

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        return named(self._columns)

    def _index(self, rows: ArrayLike) -> NDArray[np.int64]:
        return row_numbers(rows, self._size, self.url)

    def _ready(self, rows: ArrayLike | None) -> NDArray[np.int64]:
        if rows is None:
            return np.flatnonzero(self._status == READY)
        return require_ready(self._status, self._index(rows))

    def _load(self, index: NDArray[np.int64]) -> Sequences:
        with translated(self.url):
            # The mask before the features: if the features still match the snapshot's digest, the mask
            # read before them is of the same version.
            mask = self._steps("mask", index)
            features, sound = self._features(index, self._digest)
            if sound.all():
                return Sequences(features=features, mask=mask, rows=index)
            if not self._frozen:
                again = index[~sound]
                now = self.refresh()
                ready = now._status[again] == READY
                fresh, right = now._features(again, now._digest)
                mask[~sound], features[~sound] = now._steps("mask", again), fresh
                sound[~sound] = ready & right
        left_out = index[~sound]
        if len(left_out):
            named = ", ".join(map(str, left_out[:5].tolist()))
            warnings.warn(
                f"{len(left_out)} rows of {self.url} were left out (rows {named}"
                f"{', …' * (len(left_out) > 5)}): their features do not match their digests; "
                "a run is writing them, or run `pixels-once verify`",
                StoreWarning,
                stacklevel=3,
            )
        return Sequences(features=features[sound], mask=mask[sound], rows=index[sound])

    def _features(
        self, index: NDArray[np.int64], digests: NDArray[np.uint32]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        array = self._arrays["features"]
        out = np.empty((len(index), *array.shape[1:]), array.dtype)
        sound = np.zeros(len(index), bool)

        def read(where: NDArray[np.int64]) -> None:
            rows = index[where]
            with suppress(StoreDamaged):
                sound[where] = self._feature_rows.read(rows, out, where) == digests[rows]

        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(read, (at for _, at in by_chunk(index, self.batch))))
        return out, sound

    def _steps(self, name: str, index: NDArray[np.int64]) -> NDArray[Any]:
        array = self._arrays[name]
        out = np.zeros((len(index), self.steps), array.dtype)
        for chunk, at in by_chunk(index, array.chunks[0]):
            start, stop = span(array, chunk)
            out[at] = decode(array, start, stop)[index[at] - start]
        return out


def _reopened(
    url: str,
    options: Options,
    frozen: bool,
    size: int,
    status: NDArray[np.uint8],
    digest: NDArray[np.uint32],
) -> Store:
    """The store as a snapshot of that size, status and digests had it."""
    opened = Store(url, storage_options=options, frozen=frozen)
    opened._size, opened._status, opened._digest = size, status, digest
    return opened
