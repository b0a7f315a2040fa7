"""Which clips were added, removed or changed between two runs: to record, and as phrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

NAMED = ("label", "group", "split")

Renamed = tuple[tuple[str, str, str], ...]
"""(clip's id, what it was, what it is now), …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipChanges:
    """Ids of clips that were added (`came`), are `gone`, or have other `features`; and the renamed."""

    came: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    label: Renamed = ()
    group: Renamed = ()
    split: Renamed = ()

    @classmethod
    def between(cls, before: pd.DataFrame, now: pd.DataFrame) -> ClipChanges:
        """The changes between two tables as `Identity.clips` holds them."""
        both = before.index.intersection(now.index, sort=False)
        old, new = before.loc[both], now.loc[both]
        other = np.zeros(len(both), dtype=bool)
        for name in old.columns.intersection(new.columns):
            if name == "digest" or str(name).startswith(("view_", "stream_")):
                other |= old[name].to_numpy() != new[name].to_numpy()
        return cls(
            came=tuple(now.index.difference(before.index, sort=False)),
            gone=tuple(before.index.difference(now.index, sort=False)),
            features=tuple(both[other]),
            **{name: _renamed(old[name], new[name]) for name in NAMED},
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, without what did not change."""
        return {name: [*value] for name, value in asdict(self).items() if value}

    def phrases(self, *, came: bool = True) -> list[str]:
        """A phrase for each kind of change, with the first clip's id; `came`: added clips too."""
        phrases = [
            _phrase(self.gone, "is gone", "are gone"),
            _phrase(self.features, "has other features", "have other features"),
        ]
        for name in NAMED:
            renamed: Renamed = getattr(self, name)
            words = [f"{old or 'none'}, now {new or 'none'}" for _, old, new in renamed[:1]]
            ids = [clip for clip, _, _ in renamed]
            phrases.append(_phrase(ids, f"has another {name}", f"have another {name}", *words))
        if came:
            phrases.append(_phrase(self.came, "is new", "are new"))
        return [phrase for phrase in phrases if phrase]


def _renamed(old: pd.Series[Any], new: pd.Series[Any]) -> Renamed:
    other = old.to_numpy(dtype=str) != new.to_numpy(dtype=str)
    ids = old.index[other].tolist()
    return tuple(zip(ids, old[other].tolist(), new[other].tolist(), strict=True))


def _phrase(ids: Sequence[str], singular: str, plural: str, *first: str) -> str:
    """How many clips there are and the first of them; `first`: what is said of it. "" for no clip."""
    if not ids:
        return ""
    one = len(ids) == 1
    example = ": ".join([ids[0] if one else f"{ids[0]} for one", *first])
    return f"{len(ids)} clip{'' if one else 's'} {singular if one else plural} ({example})"
