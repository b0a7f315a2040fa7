"""A store's ready rows as files that other programs read, each unit read back before it counts.

A unit is some neighbouring rows: their files, or one shard that holds them. Its lines go into
`manifest.jsonl` when it has been read back, so a run that was stopped goes on behind the last of them.
At the end the manifest is written anew, as the store's table is then, and files of rows that are not
ready any more are removed.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pandas as pd
from numpy.typing import NDArray

import store
from flows.exchange.annotations import write_annotations
from flows.exchange.entries import Entry
from flows.exchange.formats import FORMATS, Clip, Format
from flows.exchange.manifest import ABOUT, MANIFEST, FileNames, Notes
from flows.exchange.sources import Source
from pipeline.errors import ConfigError, UnreadableClip
from pipeline.plain import whole, write_json
from store.errors import translated

UNIT = 256
"""Rows of a shard, and rows whose lines are written together."""
_AT_ONCE = 2  # units that are written at once
_PART_BYTES = 1 << 25  # of rows that are in memory for each of them
Line = dict[str, Any]
_TOLD = ("video_id", "label", "split", "group", "fps", "frames_declared")


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
    """Write the store's ready rows into the folder `out`; what is there and the same stays.

    Raises `ConfigError` where `out` holds something else, or what was written does not read back,
    `store.StoreUnwritable` where it cannot be written.
    """
    writer = FORMATS[format]
    source = store.open(url)
    if transpose and (not writer.transposes or len(source.shape) != 1):
        raise ConfigError(
            f"--transpose is for npy, npz and activitynet of vectors, not for {format}"
        )
    if "://" in out:
        raise ConfigError(
            f"{out} is a URL, and export writes to this machine: copy it there afterwards"
        )
    folder = Path(out).expanduser().absolute()
    if "://" not in source.url and folder.resolve().is_relative_to(Path(source.url).resolve()):
        raise ConfigError(f"{folder} is inside of the store {source.url}: name another OUT")
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
    with translated(str(folder), "folder"), _claimed(folder, about):
        export = _Export(source, folder, writer, transpose)
        result = export.run(on_progress or (lambda done, total: None))
        if format == "activitynet":
            write_annotations(folder)
    return result


@contextmanager
def _claimed(folder: Path, about: dict[str, Any]) -> Iterator[None]:
    """Make the folder this export's, or see that it is, and hold it: one export at a time writes."""
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
    else:
        # A run that was killed here has left its temporary file.
        if folder.exists() and (
            not folder.is_dir() or any(path.name != f".{ABOUT}" for path in folder.iterdir())
        ):
            raise ConfigError(f"{folder} holds something else: name an empty or a new OUT")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, about)
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another export writes into {folder}: run again when that has ended"
            ) from None
        except OSError:
            pass  # a disk without locks
        yield


class _Export:
    """One run: what is noted and still holds is kept, all else is written and read back."""

    def __init__(self, source: store.Store, folder: Path, writer: Format, transpose: bool) -> None:
        self._folder, self._writer, self._transpose = folder, writer, transpose
        self._source = source
        self._table = source.table((*_TOLD, "status"))
        self._every = self._table.index.to_numpy()
        self._rows = self._every[self._table["status"].to_numpy() == store.READY]
        shape = (source.steps, *source.shape)
        self._row_bytes = int(np.prod(shape)) * source.dtype.itemsize
        self._notes = Notes(folder / MANIFEST, writer)
        ids = self._table["video_id"]
        told = pd.Series({row: note.id for row, note in self._notes.rows.items()}, dtype=object)
        other = told[told != ids.reindex(told.index).astype(object)]
        if len(other):
            raise ConfigError(
                f"{folder} holds an export of another store, with {other.iloc[0]!r}: name another OUT"
            )
        self._names = FileNames(ids, writer.ending) if writer.per_clip else None

    def _file(self, row: int, id_: str) -> str:
        # By the row's number: which rows are ready changes from run to run.
        if self._names is None:
            return f"features-{row // UNIT:06d}{self._writer.ending}"
        return self._names.of(int(np.searchsorted(self._every, row)), id_)

    def run(self, on_progress: Callable[[int, int], None]) -> Exported:
        rows, kept, written = self._rows, 0, 0
        # First, since a file may be where a folder is needed now.
        for name in self._outdated():
            (self._folder / name).unlink(missing_ok=True)
        units = np.split(rows, np.flatnonzero(np.diff(rows // UNIT)) + 1) if len(rows) else []
        path = self._folder / MANIFEST
        with path.open("ab+") as manifest, whole(path) as making, making.open("wb") as anew:
            if manifest.tell():
                manifest.seek(-1, os.SEEK_END)
                if manifest.read() != b"\n":  # a run that was killed left half a line
                    manifest.write(b"\n")
            for unit, (lines, fresh) in self._made(units):
                text = _text(fresh)
                manifest.write(text)
                manifest.flush()
                written, kept = written + len(fresh), kept + len(lines)
                if lines:
                    text = _text(sorted([*lines, *fresh], key=lambda line: int(line["row"])))
                anew.write(text)
                on_progress(int(np.searchsorted(rows, unit[-1])) + 1, len(rows))
        return Exported(written=written, kept=kept, out=str(self._folder))

    def _outdated(self) -> set[str]:
        """Files that were written and that no ready row has now."""
        found = self._notes.files
        if found:
            ids = self._table["video_id"].loc[self._rows]
            found.difference_update(map(self._file, self._rows.tolist(), ids))
        return found

    def _made(
        self, units: list[NDArray[np.int64]]
    ) -> Iterator[tuple[NDArray[np.int64], tuple[list[Line], list[Line]]]]:
        """Every unit with the lines of its rows, kept ones and new ones: some units are made at once."""
        making: deque[tuple[NDArray[np.int64], Future[tuple[list[Line], list[Line]]]]] = deque()
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            try:
                for unit in units:
                    making.append((unit, threads.submit(self._make, unit)))
                    if len(making) > _AT_ONCE:
                        first, future = making.popleft()
                        yield first, future.result()
                while making:
                    first, future = making.popleft()
                    yield first, future.result()
            finally:
                threads.shutdown(cancel_futures=True)

    def _make(self, unit: NDArray[np.int64]) -> tuple[list[Line], list[Line]]:
        kept = self._kept(unit)
        todo = np.setdiff1d(unit, [line["row"] for line in kept])
        return kept, self._write(todo) if len(todo) else []

    def _kept(self, unit: NDArray[np.int64]) -> list[Line]:
        """The lines of the rows that need not be written again, as the table is now."""
        notes = [self._notes.rows.get(row) for row in unit.tolist()]
        if not any(notes):
            return []
        counts = np.array([note.steps if note else 0 for note in notes])
        nothing = np.zeros((len(unit), self._source.steps, 0))
        lines = [
            {**clip.facts(), "file": self._file(clip.row, clip.id)}
            for clip in self._clips(unit, nothing, counts)
        ]
        return [
            {**line, "digest": note.digest, "key": note.key}
            for line, note, same in zip(lines, notes, self._notes.holds(lines), strict=True)
            if note and same and (self._folder / note.file).is_file()
        ]

    def _write(self, rows: NDArray[np.int64]) -> list[Line]:
        """Write rows and read them back; returns their lines. Raises `ConfigError` if they differ."""
        lines: list[Line] = []

        def named() -> Iterator[tuple[str, Clip]]:
            at_once = max(1, _PART_BYTES // self._row_bytes)
            for start in range(0, len(rows), at_once):
                part = self._source.load(rows[start : start + at_once])
                for clip in self._clips(part.rows, part.features, part.mask.sum(axis=1)):
                    file = self._file(clip.row, clip.id)
                    lines.append({**clip.facts(), "file": file, "digest": clip.digest()})
                    yield file, clip

        clips: Iterator[tuple[str, Clip]] = named()
        first = next(clips, None)
        if first is None:
            return []
        clips = itertools.chain([first], clips)
        keys = self._writer.write(self._folder, clips, transpose=self._transpose)
        lines = [{**line, "key": key} for line, key in zip(lines, keys, strict=True)]
        with closing(Source(self._folder, [], self._transpose)) as source:
            _require_same(source, lines)  # by the reader of imports
        return lines

    def _clips(
        self, rows: NDArray[np.int64], features: NDArray[Any], counts: NDArray[np.int64]
    ) -> Iterator[Clip]:
        frames, times = self._source.steps_of(rows)
        stored = self._source.digests(rows).tolist()
        told = self._table.loc[rows, list(_TOLD)].itertuples(index=False)
        for i, (row, steps, facts) in enumerate(
            zip(rows.tolist(), counts.tolist(), told, strict=True)
        ):
            id_, label, split, group, fps, declared = facts
            yield Clip(
                row=row, id=id_, label=label, split=split, group=group, features=features[i, :steps],
                frames=frames[i, :steps], times=times[i, :steps], fps=float(fps),
                frames_declared=int(declared), stored=stored[i], row_steps=self._source.steps,
            )  # fmt: skip


def _text(lines: list[Line]) -> bytes:
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode()


def _require_same(source: Source, lines: list[Line]) -> None:
    for line in lines:
        entry = Entry(id=line["id"], file=line["file"], key=line["key"])
        try:
            foreign = source.read(entry)
            data = np.ascontiguousarray(foreign.read(0, foreign.shape[0]))
        except UnreadableClip as error:
            raise ConfigError(
                f"{line['file']} cannot be read back ({error}): check the disk"
            ) from None
        if google_crc32c.value(data.reshape(-1).view(np.uint8)) != line["digest"]:
            raise ConfigError(
                f"{line['file']} does not match what was written: check the disk, and run again"
            )
