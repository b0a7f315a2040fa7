"""Arrays in files that others wrote, read with nothing trusted: no pickle, no claim taken for memory.

A header is read first and held against the size of what it heads. What is then read is a span of steps,
so a file costs no more memory than a row of the store, whatever it claims or unpacks to.
"""

from __future__ import annotations

import functools
import io
import math
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, UnreadableClip

MOST_BYTES = 1 << 28
"""Of what must be read whole: D × T, an array in Fortran order, a chunk of HDF5."""
_MOST_HEADER = 1 << 12
_MOST_MEMBERS = 4096
_NPZ_FEATURES = ("features", "feats", "feat", "embedding", "x", "arr_0")
Stream = Callable[[], AbstractContextManager[IO[bytes]]]
"""Opens the bytes of an array, from its header on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """One clip's array: its shape and dtype, and a reader of some of its steps.

    `read(start, stop)` returns (stop − start, *shape[1:]); it raises `UnreadableClip`. `times` (n,)
    float32 seconds and `frames` (n,) int32 are None where the file does not tell them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int, int], NDArray[Any]]
    times: NDArray[np.float32] | None = None
    frames: NDArray[np.int32] | None = None


def open_npy(path: Path, *, offset: int = 0, size: int = -1, transpose: bool = False) -> Foreign:
    """A `.npy` file, or one that lies inside another (`offset`, `size`: of a tar archive's member)."""
    size = path.stat().st_size if size < 0 else size

    @contextmanager
    def stream() -> Iterator[IO[bytes]]:
        with path.open("rb") as file:
            file.seek(offset)
            yield file

    return _npy(stream, size, transpose=transpose)


def open_npz(path: Path, *, transpose: bool = False) -> Foreign:
    """A `.npz` file: its array `features`, or the only one of two axes or more."""
    with readable(), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise UnreadableClip("unreadable", f"the archive has {len(members)} members")
    named = {member.filename.removesuffix(".npy"): member for member in members}

    def opened(member: zipfile.ZipInfo) -> Foreign:
        @contextmanager
        def stream() -> Iterator[IO[bytes]]:
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                yield file

        return _npy(stream, member.file_size, transpose=transpose and member is chosen)

    chosen = next((named[name] for name in _NPZ_FEATURES if name in named), None)
    if chosen is None:
        many = [member for member in members if len(opened(member).shape) > 1]
        if len(many) != 1:
            raise UnreadableClip(
                "unreadable", f"which of {', '.join(sorted(named)[:5]) or 'no'} arrays is not said"
            )
        chosen = many[0]
    features = opened(chosen)
    extras: dict[str, Any] = {}
    for ours, kind in (("times", np.float32), ("frames", np.int32)):
        member = named.get(ours)
        if member is not None and member is not chosen:
            extra = opened(member)
            if extra.shape == features.shape[:1] and extra.dtype.kind in "iuf":
                _require_small(extra.shape, extra.dtype)
                with np.errstate(invalid="ignore"):  # what does not fit is left out later
                    extras[ours] = extra.read(0, extra.shape[0]).astype(kind)
    return replace(features, **extras)


def array_of(value: Any, *, transpose: bool = False) -> Foreign:
    """An array that is in memory, or an HDF5 data set: anything with shape, dtype and slices."""
    dtype = np.dtype(value.dtype)
    if dtype.hasobject:
        raise UnreadableClip("pickled", "it holds Python objects or text")
    shape = tuple(int(n) for n in value.shape)
    _require_small(getattr(value, "chunks", None) or (), dtype)  # any step costs a whole chunk
    if transpose and len(shape) == 2:
        _require_small(shape, dtype)
        return Foreign(
            shape=shape[::-1], dtype=dtype, read=lambda a, b: np.asarray(value[:, a:b]).T
        )
    return Foreign(shape=shape, dtype=dtype, read=lambda a, b: np.asarray(value[a:b]))


def _npy(stream: Stream, size: int, *, transpose: bool) -> Foreign:
    with readable(), stream() as file:
        begin = file.tell()  # not 0 inside a tar archive
        shape, fortran, dtype = _header(file)
        start = file.tell() - begin
    if dtype.hasobject:
        raise UnreadableClip("pickled", "the array holds Python objects")
    if not shape:
        raise UnreadableClip("wrong_shape", "the array is a single number")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != size - start:
        raise UnreadableClip(
            "unreadable", f"the header claims {claimed} bytes and {size - start} are there"
        )
    whole = (fortran or transpose) and len(shape) > 1
    if whole:
        _require_small(shape, dtype)

    def span(first: int, count: int) -> NDArray[Any]:
        with readable(), stream() as file:
            file.seek(start + first, io.SEEK_CUR)
            data = file.read(count)
        if len(data) != count:
            raise UnreadableClip("unreadable", "the file ends before its array does")
        return np.frombuffer(data, np.uint8)

    if whole:

        def read(first: int, stop: int) -> NDArray[Any]:
            every = span(0, claimed).view(dtype).reshape(shape, order="F" if fortran else "C")
            return (every.T if transpose else every)[first:stop]

        return Foreign(shape=shape[::-1] if transpose else shape, dtype=dtype, read=read)
    row = math.prod(shape[1:]) * dtype.itemsize
    return Foreign(
        shape=shape,
        dtype=dtype,
        read=lambda a, b: span(a * row, (b - a) * row).view(dtype).reshape(b - a, *shape[1:]),
    )


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    head = file.read(12)
    if head[:6] != b"\x93NUMPY":
        kind = "pickled" if head[:1] == b"\x80" else "unreadable"
        raise UnreadableClip(kind, "the file is no NumPy array")
    version = head[6]
    width = 2 if version == 1 else 4
    length = int.from_bytes(head[8 : 8 + width], "little")
    if version not in (1, 2, 3) or length > _MOST_HEADER:
        raise UnreadableClip("unreadable", f"a header of version {version} and {length} bytes")
    text = head[8 + width :] + file.read(length - (4 - width))
    if len(text) != length:
        raise UnreadableClip("unreadable", "the file ends in its header")
    return _parsed(version, head[8 : 8 + width] + text)


@functools.lru_cache(maxsize=64)  # many files have the same header
def _parsed(version: int, header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = getattr(np.lib.format, f"read_array_header_{min(version, 2)}_0")
    try:
        shape, fortran, dtype = read(io.BytesIO(header))
    except MemoryError:  # brackets nested too deep for the parser
        raise UnreadableClip("unreadable", "the header is no array's") from None
    if any(n < 0 for n in shape):
        raise UnreadableClip("unreadable", f"the header claims the shape {shape}")
    return tuple(int(n) for n in shape), bool(fortran), dtype


def _require_small(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise `too_large` for what would be read whole."""
    if math.prod(shape) * dtype.itemsize > MOST_BYTES:
        raise UnreadableClip("too_large", f"{shape} {dtype} would be read at once")


@contextmanager
def readable() -> Iterator[None]:
    """Turn what a file that is no array raises into `UnreadableClip`."""
    try:
        yield
    except (UnreadableClip, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UnreadableClip("missing") from error
    except Exception as error:  # each library raises its own
        if isinstance(error, OSError) and error.errno is not None:
            raise UnreadableClip("unreachable", str(error.strerror)) from error
        raise UnreadableClip("unreadable", f"{type(error).__name__}: {error}"[:200]) from error


def tar_members(path: Path) -> list[tuple[str, int, int]]:
    """(name, offset, size) of every regular file of a tar archive that is not compressed."""
    found = []
    with readable(), tarfile.open(path, "r:") as archive:
        for member in archive:
            if member.isreg():
                found.append((member.name, member.offset_data, member.size))
            with suppress(AttributeError):
                archive.members.clear()  # type: ignore[attr-defined]  # else each header of a million stays in memory
    return found


_MOST_RATIO = 1032  # of deflate
_SPARE = 1024  # what a chunk that does not compress, and its checksum, may have beyond its size
_PART = 1 << 20


def require_bounded_chunks(dataset: Any) -> None:
    """Raise `UnreadableClip` where a large deflated chunk unpacks to more than a chunk has."""
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
        if chunk.size * _MOST_RATIO > MOST_BYTES:
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


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is a list of any kind."""
    import pyarrow.types as types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def parquet_module() -> Any:
    """`pyarrow.parquet`. Raises `ConfigError` with the remedy if it is not installed."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed: pip install 'pixels-once[parquet]'"
        ) from None
    return parquet
