"""HDF5 files of contiguous data sets with a few attributes, written without a call of HDF5 for each.

HDF5 takes several times as long for a data set and its attributes as a disk takes for a clip's bytes.
What it would write is plain: the values one after the other and then, at the file's end, the attributes'
texts, a header for each data set, and the root group with their names. This is the format's oldest
layout, which h5py writes by default and every reader knows; it has no checksums. See "HDF5 File Format
Specification Version 3.0", whose sections are named below.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from h5py import h5t
from numpy.typing import NDArray

MOST_ATTRIBUTE = 60_000
"""Bytes of an attribute, of the 64 KiB that a message of a header has."""
_NOWHERE = (1 << 64) - 1  # the undefined address
_SUPERBLOCK = struct.Struct("<8s8B2HI4Q2QII2Q")
_MOST_TEXTS = (1 << 16) - 1  # of a global heap
_LEAST_HEAP = 4096
_CHILDREN = 32  # of the root group's B-tree, which is one node; 32 as most files have it
_LEAST_NAMES = 8  # of a symbol table node, as most files have it
_SPACE, _TYPE, _FILL, _LAYOUT, _ATTRIBUTE, _SYMBOLS = 1, 3, 5, 8, 12, 17  # messages of a header


@dataclass(frozen=True, slots=True)
class _DataSet:
    """What is told of a data set whose values are written from `at` on."""

    name: bytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    at: int
    texts: Mapping[str, str]
    numbers: Mapping[str, NDArray[Any]]


class ContiguousWriter:
    """Writes data sets into an empty open file, one after the other, then what they are found by."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._at = file.write(bytes(_SUPERBLOCK.size))
        self._sets: list[_DataSet] = []

    def add(
        self,
        name: str,
        values: NDArray[Any],
        texts: Mapping[str, str],
        numbers: Mapping[str, NDArray[Any]],
    ) -> None:
        """Write a data set. texts, numbers: its attributes, texts without NUL, numbers (n,) each."""
        data = np.ascontiguousarray(values)
        at = self._at if data.nbytes else _NOWHERE
        told = _DataSet(name.encode(), data.shape, data.dtype, at, texts, numbers)
        self._sets.append(told)
        self._at += self._file.write(data.reshape(-1).view(np.uint8).data)

    def close(self) -> None:
        """Write the rest. Raises `ValueError` for more texts than one file has here."""
        self._at += self._file.write(bytes(-self._at % 8))
        self._sets.sort(key=lambda told: told.name)
        texts = [text.encode() for told in self._sets for text in told.texts.values()]
        if len(texts) > _MOST_TEXTS:
            raise ValueError(f"a file of {len(texts)} texts cannot be: write fewer data sets")
        heap = self._put(_global_heap(texts))
        headers, number = [], 1
        for told in self._sets:
            headers.append(self._put(_data_set_header(told, heap, number)))
            number += len(told.texts)
        root = self._put_group([told.name for told in self._sets], headers)
        self._file.seek(0)
        self._file.write(_superblock(*root, names=_names_of_a_leaf(len(headers)), end=self._at))

    def _put(self, block: bytes) -> int:
        """Write a block, padded to whole words; returns where it is."""
        at = self._at
        self._at += self._file.write(_padded(block))
        return at

    def _put_group(self, names: Sequence[bytes], headers: Sequence[int]) -> tuple[int, int, int]:
        """Write the root group of these names, which are sorted; where its header, tree and heap are."""
        heap, places = self._put_names(names)
        size = _names_of_a_leaf(len(names))
        leaves, keys = [], [0]
        for first in range(0, len(names), size):
            some = slice(first, first + size)
            leaves.append(self._put(_leaf(places[some], headers[some], size)))
            keys.append(places[some][-1])
        tree = self._put(_tree(leaves, keys))
        return self._put(_header([(_SYMBOLS, struct.pack("<2Q", tree, heap))])), tree, heap

    def _put_names(self, names: Sequence[bytes]) -> tuple[int, list[int]]:
        """Write the local heap of the group's names: where it is, and where in it each name is."""
        data, places = bytearray(8), []  # the empty name first
        for name in names:
            places.append(len(data))
            data += _padded(name + b"\0")
        head = struct.pack("<4s4x3Q", b"HEAP", len(data), 1, self._at + 32)  # 1: nothing is free
        return self._put(head + data), places


# Blocks of the file, each with the section that describes it.


def _superblock(header: int, tree: int, heap: int, *, names: int, end: int) -> bytes:
    """II.A, version 0."""
    versions = (0, 0, 0, 0, 0, 8, 8, 0)  # and the bytes of an address and of a length
    return _SUPERBLOCK.pack(
        b"\x89HDF\r\n\x1a\n", *versions, names // 2, _CHILDREN // 2, 0,
        0, _NOWHERE, end, _NOWHERE, 0, header, 1, 0, tree, heap,
    )  # fmt: skip


def _names_of_a_leaf(count: int) -> int:
    """How many names a symbol table node has room for, so that one node of the tree has all of them."""
    least = -(-count // _CHILDREN)
    return max(_LEAST_NAMES, least + least % 2)


def _tree(leaves: Sequence[int], keys: Sequence[int]) -> bytes:
    """III.A.1, one node of a group: each leaf between its greatest name and that of the leaf before."""
    links = [keys[0], *(n for pair in zip(leaves, keys[1:], strict=True) for n in pair)]
    head = struct.pack("<4s2BH2Q", b"TREE", 0, 0, len(leaves), _NOWHERE, _NOWHERE)
    return head + struct.pack(
        f"<{2 * _CHILDREN + 1}Q", *links, *[0] * (2 * _CHILDREN + 1 - len(links))
    )


def _leaf(names: Sequence[int], headers: Sequence[int], size: int) -> bytes:
    """III.B, a symbol table node with room for `size` names."""
    entries = b"".join(struct.pack("<2Q24x", *pair) for pair in zip(names, headers, strict=True))
    head = struct.pack("<4sBxH", b"SNOD", 1, len(names))
    return head + entries.ljust(40 * size, b"\0")


def _global_heap(texts: Iterable[bytes]) -> bytes:
    """III.E, the texts numbered from 1; what is left of it is its object 0."""
    data = b"".join(
        _padded(struct.pack("<2H4xQ", number, 1, len(text)) + text)
        for number, text in enumerate(texts, 1)
    )
    size = max(_LEAST_HEAP, 16 + len(data) + 16)
    rest = struct.pack("<8xQ", size - 16 - len(data))
    return struct.pack("<4sB3xQ", b"GCOL", 1, size) + (data + rest).ljust(size - 16, b"\0")


def _data_set_header(told: _DataSet, heap: int, number: int) -> bytes:
    """IV.A.1 of a data set; its texts are those of the heap from `number` on."""
    kinds = tuple((name, each.shape, each.dtype) for name, each in told.numbers.items())
    form, places = _form(told.shape, told.dtype, tuple(told.texts), kinds)
    header, left = bytearray(form), iter(places)
    size = told.dtype.itemsize * math.prod(told.shape)
    struct.pack_into("<2B2Q", header, next(left), 3, 1, told.at, size)  # IV.A.2.i, version 3
    for at, text in enumerate(told.texts.values(), number):
        struct.pack_into("<IQI", header, next(left), len(text.encode()), heap, at)
    for values in told.numbers.values():
        at = next(left)
        header[at : at + values.nbytes] = values.tobytes()
    return bytes(header)


@functools.lru_cache(maxsize=256)
def _form(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    texts: tuple[str, ...],
    numbers: tuple[tuple[str, tuple[int, ...], np.dtype[Any]], ...],
) -> tuple[bytes, list[int]]:
    """A data set's header with zeros for what differs between some of one form, and where that is."""
    fill = struct.pack("<8B", 2, 2, 1, 1, 0, 0, 0, 0)  # IV.A.2.f, version 2: never filled
    messages = [(_SPACE, _space(shape), -1), (_TYPE, _type(dtype), -1), (_FILL, fill, -1)]
    messages.append((_LAYOUT, b"", 18))
    messages += [(_ATTRIBUTE, _attribute_head(name, (), None), 16) for name in texts]
    for name, count, kind in numbers:
        size = kind.itemsize * math.prod(count)
        messages.append((_ATTRIBUTE, _attribute_head(name, count, kind), size))
    contents = [head + bytes(max(size, 0)) for _, head, size in messages]  # -1: all of it is known
    places, at = [], 16
    for (_, head, size), content in zip(messages, contents, strict=True):
        places += [at + 8 + len(head)] if size >= 0 else []
        at += 8 + len(_padded(content))
    return _header(
        [(kind, each) for (kind, _, _), each in zip(messages, contents, strict=True)]
    ), places


def _header(messages: Sequence[tuple[int, bytes]]) -> bytes:
    """IV.A.1.a, version 1, with messages (kind, content)."""
    data = b"".join(
        struct.pack("<2HB3x", kind, len(_padded(content)), kind in (_TYPE, _FILL))
        + _padded(content)
        for kind, content in messages
    )
    return struct.pack("<BxH2I4x", 1, len(messages), 1, len(data)) + data


def _attribute_head(name: str, shape: tuple[int, ...], dtype: np.dtype[Any] | None) -> bytes:
    """IV.A.2.m, version 1, before the value; no dtype: a text."""
    parts = [name.encode() + b"\0", _type(dtype), _space(shape)]
    return struct.pack("<Bx3H", 1, *map(len, parts)) + b"".join(map(_padded, parts))


def _space(shape: tuple[int, ...]) -> bytes:
    """IV.A.2.b, version 1."""
    return struct.pack(f"<2B6x{len(shape)}Q", 1, len(shape), *shape)


def _type(dtype: np.dtype[Any] | None) -> bytes:
    """IV.A.2.d, numbers as HDF5 encodes them; None: a text in UTF-8 of any length, which is 16 bytes."""
    if dtype is None:
        return struct.pack("<4B2I4B2H", 0x19, 1, 1, 0, 16, 0x10, 1, 0, 0, 0, 0, 8)
    encoded: bytes = h5t.py_create(dtype, logical=True).encode()
    return encoded[2:]  # behind two bytes that are not in files


def _padded(data: bytes | bytearray) -> bytes:
    return bytes(data) + bytes(-len(data) % 8)
