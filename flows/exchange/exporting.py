"""A store's ready rows as files that other programs read, each unit read back before it counts.

A unit is some neighbouring rows: their files, or one shard that holds them. Its lines go into
`manifest.jsonl` when it has been read back, so a run that was stopped goes on behind the last of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

import store
from flows.exchange.entries import ABOUT, MANIFEST, Entry
from flows.exchange.formats import FORMATS, Clip
from flows.exchange.names import file_names
from flows.exchange.sources import Source
from pipeline.errors import ConfigError, UnreadableClip

ANNOTATIONS = "annotations.json"
UNIT = 256
"""Rows that are in memory at once: 42 MB of InceptionV3 features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export did: rows written now, rows that were there, and the folder."""

    written: int
    kept: int
    out: str


def export_store(
    url: str,
    out: str,
    *,
    format: str,
    transpose: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write the store's ready rows into the folder `out`; what is there already stays.

    Raises `ConfigError` where `out` holds something else, or what was written does not read back.
    """
    writer = FORMATS[format]
    source = store.open(url)
    if transpose and (not writer.transposes or len(source.shape) != 1):
        raise ConfigError(
            f"--transpose is for npy, npz and activitynet of vectors, not for {format}"
        )
    folder = Path(out).expanduser().absolute()
    about = {
        "format": format,
        "transpose": transpose,
        "fingerprint": source.fingerprint,
        "steps": source.steps,
        "shape": list(source.shape),
        "dtype": str(source.dtype),
        "source": source.spec.get("source") or f"pixels-once {source.fingerprint[:12]}",
        "spec": source.spec,
    }
    _claim(folder, about)
    table = source.table()
    ready = table[table["state"] == "ready"]
    rows = ready.index.to_numpy()
    files = file_names(table["video_id"].tolist(), writer.ending) if writer.per_clip else []
    position = {row: i for i, row in enumerate(table.index.tolist())}
    done = _done(folder, source)
    kept = 0
    with (folder / MANIFEST).open("ab") as manifest:
        for start in range(0, len(rows), UNIT):
            unit = rows[start : start + UNIT]
            if all(row in done for row in unit.tolist()):
                kept += len(unit)
            else:
                clips = list(_clips(source, ready, unit))
                if writer.per_clip:
                    names = [files[position[clip.row]] for clip in clips]
                else:
                    names = [f"features-{start // UNIT:06d}{writer.ending}"] * len(clips)
                keys = writer.write(folder, names, clips, transpose=transpose)
                _append(manifest, folder, clips, names, keys, transpose=transpose)
            if on_progress is not None:
                on_progress(start + len(unit), len(rows))
    if format == "activitynet":
        _write_annotations(folder)
    return Exported(written=len(rows) - kept, kept=kept, out=str(folder))


def _claim(folder: Path, about: dict[str, Any]) -> None:
    """Make the folder this export's, or see that it is."""
    path = folder / ABOUT
    if path.is_file():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            theirs = {}
        if theirs != json.loads(json.dumps(about)):
            raise ConfigError(
                f"{folder} holds another export ({theirs.get('format')}, "
                f"{str(theirs.get('fingerprint'))[:12]}): name another OUT"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something else: name an empty or a new OUT")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f".{ABOUT}").write_text(json.dumps(about, indent=1), encoding="utf-8")
    os.replace(folder / f".{ABOUT}", path)


def _done(folder: Path, source: store.Store) -> set[int]:
    """Rows whose line is in the manifest, and whose features are still those of then."""
    path = folder / MANIFEST
    if not path.exists():
        return set()
    whole, found = 0, {}
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            said = json.loads(line)
            found[int(said["row"])] = (said["stored"], said["file"])
    os.truncate(path, whole)  # a line that a killed run left half
    rows = np.array([row for row in found if row < len(source)], dtype=np.int64)
    digests = source.digests(rows).tolist() if len(rows) else []
    return {
        row
        for row, digest in zip(rows.tolist(), digests, strict=True)
        if found[row][0] == digest and (folder / found[row][1]).is_file()
    }


def _clips(source: store.Store, table: Any, unit: np.ndarray) -> Iterator[Clip]:
    loaded = source.load(unit)
    frames, times = source.steps_of(loaded.rows)
    stored = source.digests(loaded.rows)
    for i, row in enumerate(loaded.rows.tolist()):
        said, steps = table.loc[row], int(loaded.mask[i].sum())
        yield Clip(
            row=row, id=said["video_id"], label=said["label"], split=said["split"],
            group=said["group"], features=loaded.features[i, :steps], frames=frames[i, :steps],
            times=times[i, :steps], fps=float(said["fps"]),
            frames_declared=int(said["frames_declared"]), stored=int(stored[i]),
        )  # fmt: skip


def _append(
    manifest: Any,
    folder: Path,
    clips: list[Clip],
    names: list[str],
    keys: list[str],
    *,
    transpose: bool,
) -> None:
    """Read a unit back and add its lines. Raises `ConfigError` where it is not what was written."""
    lines = [
        {**clip.line(), "file": name, "key": key}
        for clip, name, key in zip(clips, names, keys, strict=True)
    ]
    _require_same(Source(folder, [], transpose), lines)  # by the reader of imports
    manifest.write("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode())
    manifest.flush()


def _require_same(source: Source, lines: list[dict[str, Any]]) -> None:
    for line in lines:
        entry = Entry(id=line["id"], file=line["file"], key=line["key"])
        try:
            foreign = source.read(entry)
            data = np.ascontiguousarray(foreign.read(0, foreign.shape[0]))
        except UnreadableClip as error:
            raise ConfigError(
                f"{line['file']} cannot be read back ({error}): look at the disk"
            ) from None
        if google_crc32c.value(data.reshape(-1).view(np.uint8)) != line["digest"]:
            raise ConfigError(
                f"{line['file']} is not what was written: look at the disk, and run again"
            )


def _write_annotations(folder: Path) -> None:
    """The JSON of ActivityNet, as temporal detection toolkits read it, written clip by clip."""
    subsets = {"train": "training", "val": "validation", "test": "testing"}
    making = folder / f".{ANNOTATIONS}"
    labels: dict[str, int] = {}
    with (folder / MANIFEST).open("rb") as lines, making.open("w", encoding="utf-8") as out:
        out.write('{"version": "1.3", "database": {')
        for number, line in enumerate(lines):
            said = json.loads(line)
            times, frames = said["times"], said["frames"]
            fps = said["fps"] or 0.0
            stride = float(np.mean(np.diff(frames))) if len(frames) > 1 else 0.0
            step = float(np.mean(np.diff(times))) if len(times) > 1 else 0.0
            declared = said["frames_declared"]
            total = declared if declared > 0 else (frames[-1] + 1 if frames else 0)
            duration = total / fps if fps > 0 else (times[-1] if times else 0.0) + step
            found = []
            if said["label"]:
                index = labels.setdefault(said["label"], len(labels))
                found = [{"segment": [0.0, duration], "label": said["label"], "label_id": index}]
            values = {
                "subset": subsets.get(said["split"], "training"), "duration": duration, "fps": fps,
                "frame": total, "feat_stride": stride, "num_frames": 1, "annotations": found,
            }  # fmt: skip
            key = said["file"].removesuffix(".npy")
            out.write(f"{',' * bool(number)}\n{json.dumps(key)}: {json.dumps(values)}")
        out.write("\n}}\n")
    os.replace(making, folder / ANNOTATIONS)
