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

from flows.exchange.npz import find_features
from pipeline.errors import UnreadableClip

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

    `read(start, stop)` returns (stop − start, *shape[1:]); it raises `UnreadableClip`. `fill`, where
    the format allows it, reads the same steps into a C-contiguous array of that shape and dtype, without
    a copy between. `times` (n,) float32 seconds and `frames` (n,) int32 are None where the file does not
    tell them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int, int], NDArray[Any]]
    fill: Callable[[int, int, NDArray[Any]], None] | None = None
    times: NDArray[np.float32] | None = None
    frames: NDArray[np.int32] | None = None

    def read_into(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read steps into `out`, (stop − start, *shape[1:]), converted to its dtype."""
        if self.fill is not None and out.dtype == self.dtype and out.flags.c_contiguous:
            self.fill(start, stop, out)
            return
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, self.read(start, stop), casting="unsafe")


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
    found = _as_exported(path, transpose=transpose)
    if found is not None:
        return found
    with readable():
        archive = zipfile.ZipFile(path)  # closed with the last reader of an array in it
        members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise UnreadableClip("unreadable", f"the archive has {len(members)} members")
    named = {member.filename.removesuffix(".npy"): member for member in members}
    if len(named) < len(members):
        raise UnreadableClip("unreadable", "the archive has two arrays of one name")

    def opened(member: zipfile.ZipInfo) -> Foreign:
        @contextmanager
        def stream() -> Iterator[IO[bytes]]:
            with archive.open(member) as file:
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


def _as_exported(path: Path, *, transpose: bool) -> Foreign | None:
    """An archive as exports write it; its checksum is compared where all of it is read."""
    with readable(), path.open("rb", buffering=0) as file:
        found = find_features(file.fileno())
    if found is None:
        return None
    features = open_npy(path, offset=found.offset, size=found.size, transpose=transpose)
    fill = features.fill
    if features.shape[:1] != found.times.shape or fill is None:  # it is transposed
        return None

    def checked(first: int, stop: int, out: NDArray[Any]) -> None:
        fill(first, stop, out)
        whole = (first, stop) == (0, features.shape[0])
        data = out.reshape(-1).view(np.uint8).data
        if whole and zlib.crc32(data, found.head_crc) != found.crc:
            raise UnreadableClip("unreadable", "its bytes do not match the archive's checksum")

    def read(first: int, stop: int) -> NDArray[Any]:
        out = np.empty((stop - first, *features.shape[1:]), features.dtype)
        checked(first, stop, out)
        return out

    return replace(features, read=read, fill=checked, times=found.times, frames=found.frames)


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

    def fill(first: int, stop: int, out: NDArray[Any]) -> None:
        value.read_direct(out, np.s_[first:stop])

    return Foreign(
        shape=shape,
        dtype=dtype,
        read=lambda a, b: np.asarray(value[a:b]),
        fill=fill if hasattr(value, "read_direct") else None,
    )


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
    if len(shape) == 1 or not (fortran or transpose):
        return _rows(stream, start, shape, dtype)
    _require_small(shape, dtype)  # it is read as a whole

    def read(first: int, stop: int) -> NDArray[Any]:
        data = np.empty(claimed, np.uint8)
        _fill(stream, start, data.data)
        every = data.view(dtype).reshape(shape, order="F" if fortran else "C")
        return (every.T if transpose else every)[first:stop]

    return Foreign(shape=shape[::-1] if transpose else shape, dtype=dtype, read=read)


def _rows(stream: Stream, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Foreign:
    """An array in C order, `start` bytes behind the stream's beginning."""
    row = math.prod(shape[1:]) * dtype.itemsize

    def read(first: int, stop: int) -> NDArray[Any]:
        data = np.empty((stop - first) * row, np.uint8)
        _fill(stream, start + first * row, data.data)
        return data.view(dtype).reshape(stop - first, *shape[1:])

    def fill(first: int, stop: int, out: NDArray[Any]) -> None:
        _fill(stream, start + first * row, out.reshape(-1).view(np.uint8).data)

    return Foreign(shape=shape, dtype=dtype, read=read, fill=fill)


def _fill(stream: Stream, start: int, target: memoryview) -> None:
    with readable(), stream() as file:
        file.seek(start, io.SEEK_CUR)
        if not _filled(file, target):
            raise UnreadableClip("unreadable", "the file ends before its array does")


def _filled(file: IO[bytes], target: memoryview) -> bool:
    """Read until `target` is full; False at the file's end."""
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])  # type: ignore[attr-defined]
        if not count:
            return False
        done += count
    return True


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
            if member.issparse():
                raise UnreadableClip("unreadable", f"{member.name} is stored with holes")
            if member.isreg():
                found.append((member.name, member.offset_data, member.size))
            with suppress(AttributeError):
                archive.members.clear()  # type: ignore[attr-defined]  # else each header of a million stays in memory
        end = archive.offset
        # A damaged header ends a walk through an archive as its end does.
        with path.open("rb") as file:
            file.seek(end)
            if any(file.read(tarfile.BLOCKSIZE)):
                raise UnreadableClip("unreadable", f"the header at byte {end} is damaged")
    return found
