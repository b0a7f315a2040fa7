"""Parquet files of embeddings, written and found again without a pass over their numbers.

Arrow computes a level for every number of a nested list, which takes ten times as long as its bytes.
Here each clip is a page of its own: its levels are some runs that follow from its shape, and its numbers
lie in the page as they are in memory. Pages that were written in any other way are not found, and are
read by Arrow. See parquet.apache.org/docs/file-format and parquet.thrift of apache/parquet-format.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flows.exchange.raw import RawFile
from flows.exchange.thrift import i32, i64, listed, struct, text, varint, zigzag

Column = tuple[str, Sequence[str]]
"""The name of a column, and its texts."""
MAGIC = b"PAR1"
_CREATED_BY = "pixels-once version 1"
_PLAIN, _RLE = 0, 3  # encodings
_BYTES, _FIXED = 6, 7  # physical types with a length of their own, and of two bytes here
_OPTIONAL, _REPEATED = 1, 2
_EMBEDDING = ("embedding", "list", "element", "list", "element")
_MOST_STEPS = 4096  # of a page that is looked for
_MOST_PAGE = 1 << 31


@dataclass(frozen=True, slots=True)
class Number:
    """How numbers of a dtype are stored: physical type, converted type, fields of the logical type."""

    stored: str
    type: int
    converted: int | None = None
    logical: bytes = b""


@dataclass(frozen=True, slots=True)
class Place:
    """One clip's numbers in a file: (steps, width) of `dtype` from `offset` on."""

    offset: int
    steps: int
    width: int
    dtype: np.dtype[Any]


class PageWriter:
    """Writes row groups into an open file, then its footer. All clips have one width and dtype."""

    def __init__(self, file: IO[bytes], schema: Any, texts: Sequence[str]) -> None:
        """schema: Arrow's, of the texts, `embedding`, `times` and `frames`, for readers with Arrow."""
        self._file, self._schema, self._texts = file, schema, texts
        self._groups: list[bytes] = []
        self._rows = 0
        self._at = file.write(MAGIC)
        self._dtype = np.dtype(
            schema.field("embedding").type.value_type.value_type.to_pandas_dtype()
        )

    def write(
        self,
        texts: Iterable[Column],
        embeddings: Sequence[NDArray[Any]],
        times: Sequence[NDArray[np.float32]],
        frames: Sequence[NDArray[np.int32]],
    ) -> None:
        """A row group. embeddings: each (steps, width), C-contiguous · times, frames: each (steps,)."""
        chunks = [self._chunk((name,), _BYTES, [_text_page(values)]) for name, values in texts]
        number = _NUMBERS[self._dtype.name]
        chunks.append(self._chunk(_EMBEDDING, number.type, map(_embedding_page, embeddings)))
        for name, arrays, kind in (("times", times, "float32"), ("frames", frames, "int32")):
            path = (name, "list", "element")
            chunks.append(self._chunk(path, _NUMBERS[kind].type, [_list_page(arrays, kind)]))
        size = sum(size for _, size in chunks)
        columns = listed(12, [chunk for chunk, _ in chunks])
        fields = {1: columns, 2: i64(size), 3: i64(len(embeddings))}
        self._groups.append(struct(fields))
        self._rows += len(embeddings)

    def close(self) -> None:
        """Write the footer."""
        arrow = base64.b64encode(self._schema.serialize().to_pybytes()).decode()
        pair = struct({1: text("ARROW:schema"), 2: text(arrow)})
        footer = struct(
            {
                1: i32(2),
                2: listed(12, _schema(self._texts, _NUMBERS[self._dtype.name])),
                3: i64(self._rows),
                4: listed(12, self._groups),
                5: listed(12, [pair]),
                6: text(_CREATED_BY),
            }
        )
        self._file.write(footer + len(footer).to_bytes(4, "little") + MAGIC)

    def _chunk(
        self, path: Sequence[str], type: int, pages: Iterable[tuple[bytes, Any, int]]
    ) -> tuple[bytes, int]:
        """Write a column's pages; returns what the footer says of them, and their bytes."""
        begin, count = self._at, 0
        for head, values, number in pages:
            self._at += self._file.write(head) + self._file.write(values)
            count += number
        size = self._at - begin
        about = {
            1: i32(type), 2: listed(5, [zigzag(_PLAIN), zigzag(_RLE)]),
            3: listed(8, [text(part)[1] for part in path]), 4: i32(0), 5: i64(count),
            6: i64(size), 7: i64(size), 9: i64(begin),
        }  # fmt: skip
        return struct({2: i64(begin), 3: (12, struct(about))}), size


def find_pages(file: Any, group: int, raw: RawFile) -> list[Place] | None:
    """Where the embeddings of a row group lie in `raw`, None if they are not pages as written here.

    file: `pyarrow.parquet.ParquetFile` of the same file. Nothing it claims is believed: every page begins
    with the very bytes that would be written for its shape, and ends inside of the column.
    """
    told = file.metadata.row_group(group)
    columns = [told.column(i) for i in range(told.num_columns)]
    column = next((c for c in columns if c.path_in_schema == ".".join(_EMBEDDING)), None)
    try:
        kind = file.schema_arrow.field("embedding").type.value_type
        width, dtype = int(kind.list_size), np.dtype(kind.value_type.to_pandas_dtype())
    except (AttributeError, KeyError, TypeError, NotImplementedError):
        return None
    number = _NUMBERS.get(dtype.name)
    if column is None or number is None or number.stored != dtype.name or not width:
        return None
    if column.compression != "UNCOMPRESSED" or column.has_dictionary_page or column.file_path:
        return None
    at, end = column.data_page_offset, column.data_page_offset + column.total_compressed_size
    if not 0 < at <= end <= raw.size or told.num_rows > end - at:
        return None
    places = []
    for _ in range(told.num_rows):
        found = _find_page(raw, at, end, width, dtype)
        if found is None:
            return None
        places.append(found)
        at = found.offset + found.steps * width * dtype.itemsize
    return places if at == end else None


def _find_page(raw: RawFile, at: int, end: int, width: int, dtype: np.dtype[Any]) -> Place | None:
    begin = raw.head(at, _HEAD)
    count = _values_claimed(begin)
    steps, rest = divmod(count, width)
    if rest or not 0 < steps <= _MOST_STEPS or count * dtype.itemsize > end - at:
        return None
    head = _embedding_head(steps, width, dtype.itemsize)
    offset = at + len(head)
    if offset + count * dtype.itemsize > end or not _begins(raw, at, begin, head):
        return None
    return Place(offset, steps, width, dtype)


_HEAD = 1 << 10


def _begins(raw: RawFile, at: int, begin: bytes, head: bytes) -> bool:
    """Whether the bytes at `at`, of which `begin` are the first, begin with `head`."""
    return begin.startswith(head) or (len(head) > len(begin) and raw.head(at, len(head)) == head)


def _values_claimed(head: bytes) -> int:
    """How many values a page has that begins as `_page_head` writes it; 0 where it does not."""
    at = 2  # the type of the page
    for name in (0x15, 0x15, 0x2C):  # both sizes, and the data page's own header
        if at >= len(head) or head[at] != name:
            return 0
        at += 1
        while name == 0x15 and at < len(head) and head[at] & 0x80:
            at += 1
        at += name == 0x15
    value = shift = 0
    for byte in head[at + 1 :]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    return value >> 1


# Pages: (what stands before the values, the values, how many there are).


def _text_page(values: Sequence[str]) -> tuple[bytes, bytes, int]:
    encoded = [value.encode() for value in values]
    data = b"".join(len(each).to_bytes(4, "little") + each for each in encoded)
    return _page_head(len(values), b"", _run(len(values), 1), len(data)), data, len(values)


def _list_page(arrays: Sequence[NDArray[Any]], kind: str) -> tuple[bytes, bytes, int]:
    """Lists of numbers, some of which may be empty."""
    repeated = b"".join(_run(1, 0) + _run(len(each) - 1, 1) for each in arrays)
    defined = b"".join(_run(len(each), 3) if len(each) else _run(1, 1) for each in arrays)
    data = np.concatenate(arrays).astype(np.dtype(kind).newbyteorder("<")).tobytes()
    count = sum(max(len(each), 1) for each in arrays)
    return _page_head(count, repeated, defined, len(data)), data, count


def _embedding_page(values: NDArray[Any]) -> tuple[bytes, Any, int]:
    """One clip: a list of its steps, which are lists of numbers."""
    steps, width = values.shape
    if not steps:
        return _page_head(1, _run(1, 0), _run(1, 1), 0), b"", 1
    stored = np.ascontiguousarray(values, np.dtype(_NUMBERS[values.dtype.name].stored))
    head = _embedding_head(steps, width, stored.dtype.itemsize)
    if stored.nbytes + len(head) >= _MOST_PAGE:
        raise ValueError(f"an embedding of {stored.nbytes} bytes does not fit into a page")
    return head, stored.reshape(-1).view(np.uint8).data, steps * width


@functools.lru_cache(maxsize=1024)
def _embedding_head(steps: int, width: int, itemsize: int) -> bytes:
    others = _run(width - 1, 2)
    repeated = _run(1, 0) + others + (_run(1, 1) + others) * (steps - 1)
    count = steps * width
    return _page_head(count, repeated, _run(count, 5), count * itemsize)


def _page_head(count: int, repeated: bytes, defined: bytes, size: int) -> bytes:
    """A page's header, and its levels: `repeated` is empty for a column that is no list."""
    parts = [repeated, defined] if repeated else [defined]
    levels = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    about = struct({1: i32(count), 2: i32(_PLAIN), 3: i32(_RLE), 4: i32(_RLE)})
    whole = i32(len(levels) + size)
    return struct({1: i32(0), 2: whole, 3: whole, 5: (12, about)}) + levels


def _run(count: int, level: int) -> bytes:
    """`count` times one level, in the hybrid encoding of runs."""
    return varint(count << 1) + bytes([level]) if count > 0 else b""


# The schema, in order of depth.


def _schema(texts: Sequence[str], number: Number) -> list[bytes]:
    string = Number("", _BYTES, 0, struct({1: (12, struct({}))}))
    leaves = [_leaf(name, string) for name in texts]
    embedding = _list_of("embedding", _list_of("element", [_leaf("element", number)]))
    times = _list_of("times", [_leaf("element", _NUMBERS["float32"])])
    frames = _list_of("frames", [_leaf("element", _NUMBERS["int32"])])
    root = struct({4: text("schema"), 5: i32(len(texts) + 3)})
    return [root, *leaves, *embedding, *times, *frames]


def _list_of(name: str, element: list[bytes]) -> list[bytes]:
    logical = (12, struct({3: (12, struct({}))}))
    fields = {3: i32(_OPTIONAL), 4: text(name), 5: i32(1), 6: i32(3), 10: logical}
    inner = struct({3: i32(_REPEATED), 4: text("list"), 5: i32(1)})
    return [struct(fields), inner, *element]


def _leaf(name: str, number: Number) -> bytes:
    fields = {1: i32(number.type), 3: i32(_OPTIONAL), 4: text(name)}
    if number.type == _FIXED:
        fields[2] = i32(2)
    if number.converted is not None:
        fields[6] = i32(number.converted)
    if number.logical:
        fields[10] = (12, number.logical)
    return struct(fields)


_UINT8 = struct({10: (12, struct({1: (3, b"\x08"), 2: (2, b"")}))})  # 8 bits, no sign
_NUMBERS = {
    "float16": Number("float16", _FIXED, None, struct({15: (12, struct({}))})),
    "float32": Number("float32", 4),
    "float64": Number("float64", 5),
    "int32": Number("int32", 1),
    "uint8": Number("int32", 1, 11, _UINT8),
}
