"""How each format is written. Every writer puts clips into files and says under which key each one is."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import h5py
import numpy as np
from numpy.typing import NDArray

from flows.exchange.arrays import parquet_module
from pipeline.plain import whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One ready row: its real steps only. features (n, *shape), frames (n,) int32, times (n,) float32
    seconds; `stored` is the digest of its row in the store.
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

    def line(self) -> dict[str, Any]:
        """The clip in the manifest. `digest` is the CRC-32C of its features' bytes, (n, *shape)."""
        data = np.ascontiguousarray(self.features).reshape(-1).view(np.uint8)
        return {**self.facts(), "digest": google_crc32c.value(data)}

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
    write(folder, names, clips, transpose=…) → the key of every clip in its file.
    """

    ending: str
    write: Callable[..., list[str]]
    per_clip: bool = False
    transposes: bool = False
    embeds: tuple[str, ...] = ("id", "label", "split", "group", "times", "frames")


def _write_arrays(
    folder: Path, names: list[str], clips: list[Clip], *, transpose: bool
) -> list[str]:
    for name, clip in zip(names, clips, strict=True):
        values = np.ascontiguousarray(clip.features.T if transpose else clip.features)
        with _making(folder / name) as file:
            if name.endswith(".npz"):
                np.savez(file, features=values, times=clip.times, frames=clip.frames)
            else:
                np.lib.format.write_array(file, values, allow_pickle=False)
    return [""] * len(clips)


def _write_hdf5(folder: Path, names: list[str], clips: list[Clip], *, transpose: bool) -> list[str]:
    keys = [f"{clip.row:09d}" for clip in clips]
    with _making(folder / names[0]) as target, h5py.File(target, "w") as file:
        for key, clip in zip(keys, clips, strict=True):
            data = file.create_dataset(key, data=clip.features)
            for name in ("id", "label", "split", "group"):
                data.attrs[name] = getattr(clip, name)
            data.attrs["times"], data.attrs["frames"] = clip.times, clip.frames
    return keys


def _write_parquet(
    folder: Path, names: list[str], clips: list[Clip], *, transpose: bool
) -> list[str]:
    parquet = parquet_module()
    import pyarrow

    def nested(clip: Clip) -> Any:
        flat = pyarrow.array(np.ascontiguousarray(clip.features).reshape(-1))
        width = int(np.prod(clip.features.shape[1:]))
        return pyarrow.FixedSizeListArray.from_arrays(flat, width)

    steps = [nested(clip) for clip in clips]
    ends = np.cumsum([0, *map(len, steps)]).astype(np.int32)
    columns: dict[str, Any] = {
        name: pyarrow.array([getattr(clip, name) for clip in clips], pyarrow.string())
        for name in ("id", "label", "split", "group")
    }
    columns["embedding"] = pyarrow.ListArray.from_arrays(ends, pyarrow.concat_arrays(steps))
    for name, kind in (("times", pyarrow.float32()), ("frames", pyarrow.int32())):
        columns[name] = pyarrow.array([getattr(c, name) for c in clips], pyarrow.list_(kind))
    with _making(folder / names[0]) as file:
        table = pyarrow.table(columns)
        parquet.write_table(
            table, file, row_group_size=64, compression="none", use_dictionary=False
        )
    return [str(i) for i in range(len(clips))]


def _write_tar(folder: Path, names: list[str], clips: list[Clip], *, transpose: bool) -> list[str]:
    keys = []
    with _making(folder / names[0]) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for clip in clips:
            buffer = io.BytesIO()
            np.lib.format.write_array(
                buffer, np.ascontiguousarray(clip.features), allow_pickle=False
            )
            text = json.dumps(clip.line(), ensure_ascii=False).encode()
            for ending, data in (("npy", buffer.getvalue()), ("json", text)):
                member = tarfile.TarInfo(f"{clip.row:09d}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
                if ending == "npy":
                    end = -(-file.tell() // 512) * 512
                    keys.append(f"{end - -(-len(data) // 512) * 512}:{len(data)}")
    return keys


@contextmanager
def _making(path: Path) -> Iterator[BinaryIO]:
    """The open file, which has its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as temporary, temporary.open("w+b") as file:
        yield file


_TEXTS = ("id", "label", "split", "group")
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
