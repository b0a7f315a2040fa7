"""How each format is written. Every writer puts clips into files and says under which key each one is."""

from __future__ import annotations

import itertools
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from flows.exchange.npz import MOST_BYTES, archive_around, npy_head
from flows.exchange.parquet import parquet_module

_TEXTS = ("id", "label", "split", "group")
PARTIAL = ".partial"
"""How the name of a file ends that is not whole yet; no file of a format ends so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One ready row: its real steps only. features (n, *shape), frames (n,) int32, times (n,) float32
    seconds; `stored` is the digest of its row in the store, which the reader compared; `row_steps` are
    the row's steps, padding included.
    """

    row: int
    id: str
    label: str
    split: str
    group: str
    features: NDArray[Any]
    frames: NDArray[np.int32]
    times: NDArray[np.float32]
    fps: float
    frames_declared: int
    stored: int
    row_steps: int

    def line(self) -> dict[str, Any]:
        """The clip in the manifest, but for its file."""
        return {**self.facts(), "digest": self.digest()}

    def digest(self) -> int:
        """The CRC-32C of its features' bytes, (n, *shape)."""
        if len(self.features) == self.row_steps:
            return self.stored  # none of the row's steps is padding
        data = np.ascontiguousarray(self.features).reshape(-1).view(np.uint8)
        return int(google_crc32c.value(data))

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the clip beside its features."""
        return {
            "id": self.id, "label": self.label, "split": self.split, "group": self.group,
            "row": self.row, "frames": self.frames.tolist(), "times": self.times.tolist(),
            "fps": self.fps if np.isfinite(self.fps) else None,
            "frames_declared": self.frames_declared, "stored": self.stored,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """ending of its files · per_clip: a file each, or shards · transposes: whether D × T is known ·
    embeds: what of a clip's facts is in the file, so that a change of it needs the file anew ·
    write(folder, clips with the names of their files, transpose=…) → the key of every clip in its file.
    There is at least one clip, and they are taken one after the other, so that few are in memory.
    """

    ending: str
    write: Callable[..., list[str]]
    per_clip: bool = False
    transposes: bool = False
    embeds: tuple[str, ...] = ("id", "label", "split", "group", "times", "frames")


Named = Iterator[tuple[str, Clip]]


def _write_arrays(folder: Path, clips: Named, *, transpose: bool) -> list[str]:
    keys = []
    for name, clip in clips:
        values = np.ascontiguousarray(clip.features.T if transpose else clip.features)
        with _making(folder / name) as file:
            if name.endswith(".npz"):
                _write_npz(file, clip, values)
            else:
                write_npy(file, values)
        keys.append("")
    return keys


def _write_npz(file: BinaryIO, clip: Clip, values: NDArray[Any]) -> None:
    """What `numpy.savez` writes, without its copies."""
    arrays = {"features": values, "times": clip.times, "frames": clip.frames}
    if sum(each.nbytes for each in arrays.values()) > MOST_BYTES:
        np.savez(file, allow_pickle=False, **arrays)
        return
    head, data = npy_head(values.shape, values.dtype), values.reshape(-1).view(np.uint8).data
    crc = zlib.crc32(data, zlib.crc32(head))
    size = len(head) + values.nbytes
    before, behind = archive_around(head, crc, size, clip.times, clip.frames)
    file.write(before)
    file.write(data)
    file.write(behind)


def write_npy(file: IO[bytes], values: NDArray[Any]) -> int:
    """What `numpy.save` writes of a C-contiguous array, without its copies; returns the bytes."""
    head = npy_head(values.shape, values.dtype)
    file.write(head)
    file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return len(head) + values.nbytes


def _write_hdf5(folder: Path, clips: Named, *, transpose: bool) -> list[str]:
    from flows.exchange.hdf5 import dataset_writer

    keys: list[str] = []
    first = next(clips)
    with (
        _shard(folder, itertools.chain([first], clips)) as (file, rest),
        dataset_writer(file, first[1].row_steps) as write,
    ):
        for _, clip in rest:
            keys.append(f"{clip.row:09d}")
            texts = {name: getattr(clip, name) for name in _TEXTS}
            write(keys[-1], clip.features, texts, {"times": clip.times, "frames": clip.frames})
    return keys


_GROUP = 64
_GROUP_BYTES = 1 << 26


def _write_parquet(folder: Path, clips: Named, *, transpose: bool) -> list[str]:
    parquet_module()  # where it is not installed, that is said
    from flows.exchange.parquet_pages import PageWriter

    count = 0
    with _shard(folder, clips) as (file, rest):
        writer: PageWriter | None = None
        for group in _groups(rest):
            if writer is None:
                writer = PageWriter(file, _arrow_schema(group[0].features), _TEXTS)
            writer.write(
                [(name, [getattr(clip, name) for clip in group]) for name in _TEXTS],
                [clip.features.reshape(len(clip.features), -1) for clip in group],
                [clip.times for clip in group],
                [clip.frames for clip in group],
            )
            count += len(group)
        if writer is not None:
            writer.close()
    return [str(i) for i in range(count)]


def _groups(clips: Named) -> Iterator[list[Clip]]:
    """The clips of each row group: 64, fewer where they are large."""
    group: list[Clip] = []
    size = 0
    for _, clip in clips:
        group.append(clip)
        size += clip.features.nbytes
        if len(group) == _GROUP or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _arrow_schema(features: NDArray[Any]) -> Any:
    import pyarrow

    number = pyarrow.from_numpy_dtype(features.dtype)
    steps = pyarrow.list_(number, int(np.prod(features.shape[1:])))
    kinds = {name: pyarrow.string() for name in _TEXTS}
    kinds |= {"embedding": pyarrow.list_(steps), "times": pyarrow.list_(pyarrow.float32())}
    return pyarrow.schema({**kinds, "frames": pyarrow.list_(pyarrow.int32())})


def _write_tar(folder: Path, clips: Named, *, transpose: bool) -> list[str]:
    keys = []
    with _shard(folder, clips) as (file, rest):
        for _, clip in rest:
            text = json.dumps(clip.line(), ensure_ascii=False).encode()
            head = len(npy_head(clip.features.shape, clip.features.dtype))
            size = head + clip.features.nbytes
            file.write(_member(f"{clip.row:09d}.npy", size))
            keys.append(f"{file.tell()}:{size}")
            write_npy(file, clip.features)
            file.write(bytes(-size % tarfile.BLOCKSIZE))
            file.write(_member(f"{clip.row:09d}.json", len(text)))
            file.write(text + bytes(-len(text) % tarfile.BLOCKSIZE))
        file.write(bytes(2 * tarfile.BLOCKSIZE))  # the end, and as much as fills the last record
        file.write(bytes(-file.tell() % tarfile.RECORDSIZE))
    return keys


def _member(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf()


@contextmanager
def _shard(folder: Path, clips: Named) -> Iterator[tuple[BinaryIO, Named]]:
    """The file of these clips, which all have the same, and the clips."""
    first = next(clips)
    with _making(folder / first[0]) as file:
        yield file, itertools.chain([first], clips)


@contextmanager
def _making(path: Path) -> Iterator[BinaryIO]:
    """The open file, which has its name when it is whole. A link with that name is replaced."""
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    try:
        file = _opened(temporary)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _opened(temporary)
    try:
        with file:
            yield file
        os.replace(temporary, path)
    except BaseException:  # whatever ended it, half a file does not stay
        temporary.unlink(missing_ok=True)
        raise


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("x+b")
    except FileExistsError:  # of a run that was killed, or a link that leads elsewhere
        path.unlink()
        return path.open("x+b")


_PER_CLIP: dict[str, Any] = {"write": _write_arrays, "per_clip": True, "transposes": True}
FORMATS = {
    "npy": Format(ending=".npy", **_PER_CLIP, embeds=()),
    "npz": Format(ending=".npz", **_PER_CLIP, embeds=("times", "frames")),
    "activitynet": Format(ending=".npy", **_PER_CLIP, embeds=()),
    "hdf5": Format(ending=".h5", write=_write_hdf5),
    "parquet": Format(ending=".parquet", write=_write_parquet),
    "webdataset": Format(
        ending=".tar",
        write=_write_tar,
        embeds=(*_TEXTS, "times", "frames", "fps", "frames_declared"),
    ),
}
