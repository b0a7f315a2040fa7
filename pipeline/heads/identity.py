"""A run's identity: everything that decides the result of a training, as one value.

Whatever reuses an earlier run (a resumed training its weights and split, a sweep a finished run, a
comparison its tested clips) checks here, and only here, that the run is the same. `identity.json`
holds it, written before anything else of a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.heads.changes import NAMED, ClipChanges
from pipeline.heads.clips import Clips
from pipeline.heads.config import DEFAULTS, TrainConfig
from pipeline.heads.source import SequenceSource, class_numbers, normalised, texts, usable
from pipeline.heads.splits import Split
from pipeline.heads.steps.videos import StepClips
from pipeline.heads.zoo import config_dict, head_kind
from pipeline.plain import json_digest, write_json
from pipeline.spec import flat

FORMAT = "pixels-once/identity"
FORMAT_VERSION = 1
FILE = "identity.json"
NOT_COMPARED = ("head", "options", "baselines")
"""Settings that are compared elsewhere (the head), or that no weight depends on."""
PARTS = {"train": "t", "validation": "v", "test": "s"}
_UNRECORDED = DEFAULTS.to_dict(whole=True) | {"skeleton": "no"}
"""What a setting was where none is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Identity:
    """What a run was, or would be, trained from.

    `clips` has a line per usable clip, indexed by `video_id`: row, digest, label, group, split (as
    the data gives it), one `view_N` per further view and one `stream_N` per joined stream, the clip's
    digest there. `parts` has a
    text per fold, a letter per clip: t(rain), v(alidation), s (test), - (unused). `settings` are
    resolved: no 0 or `auto` is left. Row numbers are recorded and not compared.
    """

    spec: Mapping[str, Any]
    fingerprint: str
    views: tuple[str, ...]
    backend: str
    head: Mapping[str, Any]
    settings: Mapping[str, Any]
    classes: tuple[str, ...]
    clips: pd.DataFrame
    parts: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"Identity({self.hash[:12]}: head={self.head['name']}, clips={len(self.clips)}, "
            f"classes={len(self.classes)}, folds={len(self.parts)}, spec={self.fingerprint[:12]})"
        )

    @classmethod
    def of(cls, clips: Clips, splits: Sequence[Split], settings: TrainConfig) -> Self:
        """The identity of a training of these clips; `settings` as `resolve` gives them."""
        head = config_dict(head_kind(settings.head).configure(settings.options))
        return cls(
            spec=clips.spec,
            fingerprint=clips.fingerprint,
            views=_views(clips),
            backend=engine.backend_name(),
            head={"name": settings.head, "config": head},
            settings={k: v for k, v in settings.to_dict().items() if k not in NOT_COMPARED},
            classes=clips.classes,
            clips=_clips_table(clips),
            parts=tuple(_letters(clips, split) for split in splits),
        )

    @property
    def hash(self) -> str:
        """SHA-256 of all of it but the row numbers, in hexadecimal."""
        order = self._by_id()
        parts = ["".join(np.array(list(part), dtype=str)[order]) for part in self.parts]
        return json_digest(self._values() | {"clips": self._clips_by_id(), "parts": parts})

    @property
    def made_of(self) -> str:
        """SHA-256 of what a training reads: the features, the clips, their labels and classes."""
        values = self._values()
        del values["head"], values["settings"]
        return json_digest(values | {"clips": self._clips_by_id()})

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "hash": self.hash}
        rest = {"clips": _columns(self.clips), "parts": self.parts}
        write_json(path, head | self._values() | rest)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """What a run recorded, or None where it was begun before identities were recorded.

        Raises `ConfigError` where the record is damaged or of a newer format.
        """
        try:
            values = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            raise ConfigError(f"{folder / FILE} is damaged: train again with --overwrite") from None
        if values.get("format") != FORMAT or values.get("format_version", 0) > FORMAT_VERSION:
            raise ConfigError(
                f"{folder / FILE} is not an identity of format {FORMAT_VERSION} or older: "
                "update pixels-once"
            )
        known: dict[str, Any] = {field.name: values[field.name] for field in fields(cls)}
        known |= {name: tuple(known[name]) for name in ("views", "classes", "parts")}
        known["clips"] = pd.DataFrame(known["clips"]).set_index("video_id")
        identity = cls(**known)
        if identity.hash != values["hash"]:
            raise ConfigError(f"{folder / FILE} was changed by hand: train again with --overwrite")
        return identity

    def align(self, clips: Clips, run: str) -> Clips:
        """These clips as the run that recorded this identity had them: by id, in its rows.

        Clips that were added since are left out; the store may hold the others in other rows.
        Raises `ConfigError` if a clip is gone, or has other features, another label, group or split.
        """
        problems = _features(self, clips.fingerprint, clips.spec, _views(clips))
        changes = ClipChanges.between(self.clips, _clips_table(clips))
        problems += changes.phrases(came=False)
        self._refuse(problems, run)
        places = pd.Series(np.arange(len(clips)), index=clips.table["video_id"].astype(str))
        at = places[self.clips.index].to_numpy(dtype=np.int64)
        rows = self.clips["row"].to_numpy(dtype=np.int64)
        if np.array_equal(at, np.arange(len(clips))) and np.array_equal(rows, clips.rows):
            return clips
        return _taken(clips, at, rows, self.classes)

    def differences(self, now: Identity) -> list[str]:
        """What differs in a training `now`, a phrase each; empty if nothing does."""
        differences = _features(self, now.fingerprint, now.spec, now.views)
        if self.backend != now.backend:
            differences.append(f"Keras' backend {self.backend}, now {now.backend}")
        if self.head["name"] != now.head["name"]:
            differences.append(f"head {self.head['name']}, now {now.head['name']}")
        else:
            unrecorded = head_kind(self.head["name"]).unrecorded()
            differences += _changed_values(self.head["config"], now.head["config"], unrecorded)
        differences += _changed_values(self.settings, now.settings, _UNRECORDED)
        differences += ClipChanges.between(self.clips, now.clips).phrases()
        if not differences and self.classes != now.classes:
            differences.append(f"classes {', '.join(self.classes)}, now {', '.join(now.classes)}")
        return differences or self._other_parts(now)

    def require(self, now: Identity, run: str) -> None:
        """Raise `ConfigError`, which names every difference, unless `now` is this identity."""
        self._refuse(self.differences(now), run)

    def require_no_more(self, clips: Clips, run: str) -> None:
        """Raise `ConfigError` if clips were added since."""
        changes = ClipChanges.between(self.clips, _clips_table(clips))
        self._refuse(ClipChanges(came=changes.came).phrases(), run)

    def changes(self, source: SequenceSource) -> ClipChanges:
        """Which clips of the run differ in its first store now; added clips are not listed."""
        table = usable(normalised(source.table()))
        table = table[table["video_id"].isin(self.clips.index)]
        rows = table.index.to_numpy(dtype=np.int64)
        now = table[[*NAMED]].astype(str)
        now = now.assign(row=rows, digest=np.asarray(source.digests(rows), dtype=np.int64))
        return ClipChanges.between(self.clips, now.set_axis(table["video_id"].astype(str), axis=0))

    def _refuse(self, problems: Sequence[str], run: str) -> None:
        if problems:
            raise ConfigError(
                f"{run} was trained with something else ({'; '.join(problems)}): "
                "bring that back, choose another name, or start over with --overwrite"
            )

    def _other_parts(self, now: Identity) -> list[str]:
        places = pd.Series(np.arange(len(now.clips)), index=now.clips.index)
        at = places[self.clips.index].to_numpy(dtype=np.int64)
        for fold, (mine, theirs) in enumerate(zip(self.parts, now.parts, strict=True)):
            moved = np.array(list(mine)) != np.array(list(theirs))[at]
            if moved.any():
                which = f"the split of fold {fold + 1}" if len(self.parts) > 1 else "the split"
                first = self.clips.index[moved][0]
                return [f"{which} puts {int(moved.sum())} clips elsewhere now ({first} for one)"]
        return []

    def _by_id(self) -> Any:
        return np.argsort(self.clips.index.to_numpy(dtype=str), kind="stable")

    def _clips_by_id(self) -> dict[str, list[Any]]:
        return _columns(self.clips.drop(columns="row").iloc[self._by_id()])

    def _values(self) -> dict[str, Any]:
        """All but the clips and their parts."""
        names = [field.name for field in fields(self) if field.name not in ("clips", "parts")]
        return {name: getattr(self, name) for name in names}


def _clips_table(clips: Clips) -> pd.DataFrame:
    table = clips.table
    columns: dict[str, Any] = {"row": clips.rows, "digest": clips.digests.astype(np.int64)}
    columns |= {name: texts(table, name) for name in NAMED}
    for number, (view, places) in enumerate(clips.views, start=1):
        columns[f"view_{number}"] = view.digests[places].astype(np.int64)
    for name in (name for name in table.columns if str(name).startswith("stream_")):
        columns[name] = table[name].to_numpy(np.int64)
    return pd.DataFrame(columns, index=pd.Index(table["video_id"].astype(str), name="video_id"))


def _columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    names = {"video_id": table.index.tolist()}
    return names | {str(name): table[name].tolist() for name in table.columns}


def _letters(clips: Clips, split: Split) -> str:
    letters = np.full(len(clips), "-")
    for name, letter in PARTS.items():
        letters[clips.positions(getattr(split, name))] = letter
    return "".join(letters.tolist())


def _views(clips: Clips) -> tuple[str, ...]:
    return tuple(view.fingerprint for view, _ in clips.views)


def _features(
    before: Identity, fingerprint: str, spec: Mapping[str, Any], views: tuple[str, ...]
) -> list[str]:
    differences = []
    if before.fingerprint != fingerprint:
        changed = _changed_values(flat(before.spec), flat(spec))
        differences += changed or ["another spec of features"]
    if before.views != views:
        differences.append(f"{len(before.views)} further views, now {len(views)} or others")
    return differences


def _changed_values(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> list[str]:
    """`defaults`: of settings that are not recorded, by an earlier version or at this value."""
    known = {name: (defaults or {}).get(name) for name in (*before, *now)}
    old, new = known | dict(before), known | dict(now)
    return [f"{name} {old[name]}, now {new[name]}" for name in old if old[name] != new[name]]


def _taken(clips: Clips, at: Any, rows: Any, classes: tuple[str, ...]) -> Clips:
    """The clips at these positions under these row numbers, which must ascend."""
    table = clips.table.iloc[at].set_axis(pd.Index(rows, name=clips.table.index.name), axis=0)
    if isinstance(clips, StepClips):
        return clips.taken(at, rows, table, classes)
    return replace(
        clips,
        features=None if clips.features is None else clips.features[at],
        mask=None if clips.mask is None else clips.mask[at],
        labels=class_numbers(table, classes),
        rows=rows,
        stored=clips.stored_rows[at],
        digests=clips.digests[at],
        table=table,
        classes=classes,
        views=tuple((view, places[at]) for view, places in clips.views),
    )
