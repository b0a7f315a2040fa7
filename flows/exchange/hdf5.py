"""HDF5: which data sets of a file are clips, how one that others wrote is read, and how ours are written.

Neither other files' data nor other files' names are followed, and no chunk is unpacked to more than it
has.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from h5py import h5d, h5l, h5t
from numpy.typing import NDArray

from flows.exchange import arrays
from flows.exchange.arrays import Foreign, array_of
from flows.exchange.hdf5_file import MOST_ATTRIBUTE, ContiguousWriter
from flows.exchange.raw import RawFile
from pipeline.errors import UnreadableClip

Write = Callable[[str, NDArray[Any], Mapping[str, str], Mapping[str, NDArray[Any]]], None]
"""Writes a data set: its name, values, and the attributes that are texts and those that are numbers."""


def datasets_in(path: Path, attributes: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """The name of every data set of at least one axis, sorted, with those of its attributes."""
    keys: list[str] = []

    def visit(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim and _is_inside(item):
            keys.append(key)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
        for key in sorted(keys):
            values = file[key].attrs
            yield key, {name: str(values[name]) for name in attributes if name in values}


class Hdf5File:
    """An open file, whose data sets are read one after the other."""

    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path)
        self._raw = RawFile(path)
        self._is_bare = not self._file.id.get_create_plist().get_userblock()
        self._bounded: set[str] = set()  # whose chunks were looked at before

    def close(self) -> None:
        self._raw.close()
        self._file.close()

    def open(self, key: str, *, transpose: bool) -> Foreign:
        """One data set. Raises `UnreadableClip` for one in another file, which a manifest can name."""
        if not self._is_linked_inside(key):
            raise UnreadableClip("unreadable", "its data are in another file")
        found = None if transpose else self._in_place(h5d.open(self._file.id, key.encode()))
        if found is not None:
            return found
        dataset = self._file[key]
        if not _is_inside(dataset):
            raise UnreadableClip("unreadable", "its data are in another file")
        # A claim that costs its file nothing.
        if dataset.size and not dataset.id.get_storage_size():
            raise UnreadableClip("unreadable", "its values were never written")
        if key not in self._bounded:
            require_bounded_chunks(dataset)
            self._bounded.add(key)
        return array_of(dataset, transpose=transpose)

    def _is_linked_inside(self, key: str) -> bool:
        """Whether no part of the path to a data set is a link that could lead to another file."""
        links = self._file.id.links
        if "/" not in key:
            return bool(links.get_info(key.encode()).type == h5l.TYPE_HARD)
        parts = key.strip("/").split("/")
        paths = ("/".join(parts[: i + 1]) for i in range(len(parts)))
        return all(links.get_info(path.encode()).type == h5l.TYPE_HARD for path in paths)

    def _in_place(self, dataset: Any) -> Foreign | None:
        """The data set read past HDF5, whose every call costs more than a row: one span of the file.

        None where it is not that: in chunks or another file, converted, cut short, behind a user block.
        """
        offset = dataset.get_offset()  # None for chunks, other files, and what was never written
        kind, shape = dataset.get_type(), dataset.shape
        dtype = next((dtype for dtype, known in _PLAIN if kind.equal(known)), None)
        if offset is None or dtype is None or not shape or not self._is_bare:
            return None
        size = math.prod(shape) * dtype.itemsize
        if not size or dataset.get_storage_size() != size or offset + size > self._raw.size:
            return None
        return self._raw.array(offset, shape, dtype)


def _is_inside(dataset: Any) -> bool:
    return not (dataset.is_virtual or dataset.external)


@contextmanager
def dataset_writer(file: BinaryIO, steps: int) -> Iterator[Write]:
    """What writes the data sets of an empty open file; at the end the file is whole.

    steps: of the longest data set, each of which has attributes of as many numbers of four bytes.
    """
    if 4 * steps > MOST_ATTRIBUTE:
        # By its name: h5py would go through Python for every byte of a Python file.
        with h5py.File(file.name, "w") as other:
            yield functools.partial(_write_dataset, other)
        return
    writer = ContiguousWriter(file)
    yield lambda key, values, texts, numbers: writer.add(
        key, values, {name: _text(text) for name, text in texts.items()}, numbers
    )
    writer.close()


def _write_dataset(
    file: h5py.File,
    key: str,
    values: NDArray[Any],
    texts: Mapping[str, str],
    numbers: Mapping[str, NDArray[Any]],
) -> None:
    # A large attribute fits only where attributes are not kept in the data set's header.
    made = file.create_dataset(key, data=values, track_order=True)
    for name, text in texts.items():
        made.attrs[name] = _text(text)
    for name, each in numbers.items():
        made.attrs[name] = each


_PLAIN = [(np.dtype(name), h5t.py_create(np.dtype(name))) for name in ("f2", "f4", "u1", "f8")]


def _text(value: str) -> str:
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")  # where a text would end


_MOST_RATIO = 1032  # of deflate
_SPARE = 1024  # what a chunk that does not compress, and its checksum, may have beyond its size
_PART = 1 << 20


def require_bounded_chunks(dataset: Any) -> None:
    """Raise `UnreadableClip` where a large deflated chunk unpacks to more than a chunk has."""
    filters = dataset.id.get_create_plist()
    codes = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
    if h5py.h5z.FILTER_DEFLATE not in codes:
        return
    if codes.count(h5py.h5z.FILTER_DEFLATE) > 1:
        raise UnreadableClip("unreadable", "its chunks are compressed twice")
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize + _SPARE
    large: list[tuple[tuple[int, ...], int]] = []

    def visit(chunk: Any) -> None:
        if chunk.size * _MOST_RATIO > arrays.MOST_BYTES:
            large.append((chunk.chunk_offset, chunk.size))

    dataset.id.chunk_iter(visit)
    for offset, stored in large:
        if stored > size or not _fits(dataset.id.read_direct_chunk(offset)[1], size):
            raise UnreadableClip("too_large", f"a chunk unpacks to more than its {size} bytes")


def _fits(data: bytes, size: int) -> bool:
    stream, total = zlib.decompressobj(), 0
    while data and total <= size:
        total += len(stream.decompress(data, _PART))
        data = stream.unconsumed_tail
    return total <= size
