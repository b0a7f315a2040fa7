"""`.npz` archives of one clip, written and found again without zipfile, whose every member costs more
than a clip's bytes.

An archive is the one that `numpy.load` reads: stored members `features.npy`, `times.npy`, `frames.npy`,
each with its CRC-32. Archives that others wrote are not found here, and are read with zipfile.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = (1 << 32) - (1 << 24)
"""Of an archive; a larger one has other headers."""
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_VERSION, _DATE = 20, 0x21  # 1 January 1980: the same clip makes the same file
_NAMES = (b"features.npy", b"times.npy", b"frames.npy")
_MOST_TAIL = 1 << 20
_HEAD = 1 << 10


@dataclass(frozen=True, slots=True)
class Found:
    """A clip's archive: where its features are, with their checksum, and the small arrays.

    offset, size: of `features.npy` · crc: of what stands in it behind the first `head` bytes, given their
    own checksum `head_crc` · times (n,) float32 · frames (n,) int32.
    """

    offset: int
    size: int
    head: int
    head_crc: int
    crc: int
    times: NDArray[np.float32]
    frames: NDArray[np.int32]


def archive_around(
    head: bytes, crc: int, size: int, times: NDArray[Any], frames: NDArray[Any]
) -> tuple[bytes, bytes]:
    """What stands before and behind the features' bytes. head, size: of their `.npy`."""
    parts = [b"", *(npy_head(v.shape, v.dtype) + v.tobytes() for v in (times, frames))]
    crcs = [crc, *map(zlib.crc32, parts[1:])]
    sizes = [size, *map(len, parts[1:])]
    told = [
        (_VERSION, 0, 0, 0, _DATE, crc, size, size, len(name), 0)
        for name, crc, size in zip(_NAMES, crcs, sizes, strict=True)
    ]
    local = [
        _LOCAL.pack(b"PK\3\4", *values) + name for values, name in zip(told, _NAMES, strict=True)
    ]
    starts = [0]
    for begin, length in zip(local, sizes, strict=True):
        starts.append(starts[-1] + len(begin) + length)
    directory = b"".join(
        _CENTRAL.pack(b"PK\1\2", _VERSION, *values, 0, 0, 0, 0o600 << 16, start) + name
        for values, name, start in zip(told, _NAMES, starts, strict=False)
    )
    end = _END.pack(b"PK\5\6", 0, 0, 3, 3, len(directory), starts[-1], 0)
    others = b"".join(begin + part for begin, part in zip(local[1:], parts[1:], strict=True))
    return local[0] + head, others + directory + end


def find_features(descriptor: int) -> Found | None:
    """The features of an open archive, None unless it is, but for them, the very one written here."""
    begin = os.pread(descriptor, _HEAD, 0)
    first = _LOCAL.size + len(_NAMES[0])
    if len(begin) < first + 10 or begin[:4] != b"PK\3\4" or begin[_LOCAL.size : first] != _NAMES[0]:
        return None
    crc, size = _LOCAL.unpack_from(begin)[6:8]
    head = begin[first : first + 10 + int.from_bytes(begin[first + 8 : first + 10], "little")]
    behind = os.fstat(descriptor).st_size - first - size
    if begin[first : first + 8] != b"\x93NUMPY\1\0" or not 0 < behind <= _MOST_TAIL:
        return None
    tail = os.pread(descriptor, behind, first + size)
    count = _steps_in(behind)
    if count is None or len(tail) != behind or len(head) > size:
        return None
    arrays: list[NDArray[Any]] = []
    at = 0
    for name, kind in zip(_NAMES[1:], (np.float32, np.int32), strict=True):
        at += _LOCAL.size + len(name) + len(npy_head((count,), np.dtype(kind)))
        arrays.append(np.frombuffer(tail, kind, count, at))
        at += 4 * count
    if archive_around(head, crc, size, *arrays) != (begin[: first + len(head)], tail):
        return None
    return Found(first, size, len(head), zlib.crc32(head), crc, *arrays)


def _steps_in(behind: int) -> int | None:
    """How many steps a clip has with so many bytes behind its features."""
    empty = np.empty(0, np.float32), np.empty(0, np.int32)
    count, rest = divmod(behind - len(archive_around(b"", 0, 0, *empty)[1]), 8)
    # Headers of `.npy` are padded to 64 bytes, so they have one length up to millions of steps.
    return count if count >= 0 and not rest else None


@functools.lru_cache(maxsize=1024)
def npy_head(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """What stands before an array in C order in a `.npy` file."""
    buffer = io.BytesIO()
    described = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": described, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()
