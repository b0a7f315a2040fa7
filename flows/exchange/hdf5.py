"""HDF5 unpacks a chunk to its end, whatever the chunk's size is said to be: it is unpacked here first."""

from __future__ import annotations

import math
import zlib
from typing import Any

from flows.exchange import arrays
from pipeline.errors import UnreadableClip

_MOST_RATIO = 1032  # of deflate
_SPARE = 1024  # what a chunk that does not compress, and its checksum, may have beyond its size
_PART = 1 << 20


def require_bounded_chunks(dataset: Any) -> None:
    """Raise `UnreadableClip` where a chunk, deflated, unpacks to more than a chunk has.

    Chunks that are too small for that to matter are not looked at.
    """
    import h5py

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
