"""Several stores as views of the same clips: what must be equal in them, and what may differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.errors import SpecMismatch
from pipeline.heads.clips import Clips
from pipeline.heads.source import Array, Mask, Rows, texts
from pipeline.spec import differing

MAY_DIFFER = frozenset({"view", "fit", "interpolation", "precision", "sampling.offset"})
"""What may differ between two views of a clip: how its frames are fitted, and which frame of a
segment: the same rule takes as many steps over the same span, each at most a segment earlier
or later. What a number of a step means (backbone, weights, rule, dtype) may not."""


def with_views(clips: Clips, others: Sequence[Clips]) -> Clips:
    """The same clips with other views of them: training draws among all of them.

    Raises `SpecMismatch` for another first stage, length or dtype, for a view that lacks clips or
    has other labels or other bytes under their ids, and for one store given twice.
    """
    seen = {clips.fingerprint}
    holdouts = {holdout.name: holdout for holdout in clips.holdouts}
    views = []
    for other in others:
        name = _name(other)
        if other.fingerprint in seen:
            raise SpecMismatch(
                f"{name} holds the same features as a store named before it (spec "
                f"{other.fingerprint[:12]}): name each view once"
            )
        seen.add(other.fingerprint)
        _require_same_meaning(clips, other, name)
        places = _places(clips, other, name)
        labels = np.full(len(other), -1, dtype=np.int64)
        labels[places] = clips.labels
        views.append((replace(other, classes=clips.classes, labels=labels), places))
        for holdout in other.holdouts:
            if holdouts.setdefault(holdout.name, holdout).video_ids != holdout.video_ids:
                raise SpecMismatch(
                    f"{name} has other clips in its test set {holdout.name} than the first store: "
                    "freeze one of them under another name"
                )
    kept = tuple(holdouts[name] for name in sorted(holdouts))
    return replace(clips, views=tuple(views), holdouts=kept)


def _require_same_meaning(clips: Clips, other: Clips, name: str) -> None:
    if (other.steps, other.shape) != (clips.steps, clips.shape):
        raise SpecMismatch(
            f"{name} has steps of {other.shape} × {other.steps}, the first store "
            f"{clips.shape} × {clips.steps}: make both with one backbone and one FRAMES"
        )
    different = differing(other.spec, clips.spec).items()
    refused = [f"{k} {values}" for k, values in different if k not in MAY_DIFFER]
    if refused:
        raise SpecMismatch(
            f"{name} is no view of the first store's clips, its steps mean something else "
            f"({', '.join(refused[:4])}): only {', '.join(sorted(MAY_DIFFER))} may differ"
        )


def _places(clips: Clips, other: Clips, name: str) -> Rows:
    """The clips' positions in the view, (n,) int64; raises `SpecMismatch` if they are not the same."""
    ids = texts(clips.table, "video_id")
    position = {str(v): i for i, v in enumerate(other.table["video_id"])}
    places = np.array([position.get(str(v), -1) for v in ids], dtype=np.int64)
    _refuse(ids, places < 0, f"{name} lacks", "run `features` for it on the same clips")
    for column, what, remedy in (
        ("label", "has other labels for", "run `features` for both on the same clips"),
        ("sha256", "was made from other bytes of", "run `features` for both on the same clips"),
    ):
        if column in clips.table and column in other.table:
            mine = texts(clips.table, column)
            theirs = texts(other.table, column)[places]
            known = (mine != "") & (theirs != "")
            _refuse(ids, known & (mine != theirs), f"{name} {what}", remedy)
    return places


def _refuse(ids: Array, wrong: Mask, what: str, remedy: str) -> None:
    if wrong.any():
        first = ids[int(np.argmax(wrong))]
        raise SpecMismatch(
            f"{what} {int(wrong.sum())} of {len(ids)} clips (such as {first}): {remedy}"
        )


def _name(clips: Clips) -> str:
    return f"the view {url}" if (url := str(getattr(clips.source, "url", ""))) else "a view"
