"""The check that every training and every evaluation of a saved head passes: no leak of test clips.

Every fit passes `require_apart`, every evaluation of a saved head `require_unseen`; both refuse in
one sentence with the ids. Checked: no clip, no bytes of a clip, and no group (where the split keeps
groups whole) of a test or validation clip is also in training, and nothing that one of the store's
test sets keeps out is trained on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.clips import Clips
from pipeline.heads.holdout import named
from pipeline.heads.source import Names, Rows, texts
from pipeline.heads.splits import GROUPED, Split
from pipeline.heads.units import contents

PAIRS = (("test", "train"), ("validation", "train"), ("test", "validation"))
SHOWN = 3


class LeakError(ConfigError):
    """A clip that tests, or its group or bytes, is also trained on."""


def require_apart(clips: Clips, split: Split) -> None:
    """Raise `LeakError` if a part of the split has clips that another must not have.

    Rows and bytes are never in two parts. Groups are not if the split keeps them whole, or its
    named test set does. What one of the test sets keeps out is in the test only.
    """
    at = {name: clips.positions(getattr(split, name)) for name in ("train", "validation", "test")}
    numbers = np.arange(len(clips)).astype(str).astype(object)
    known, groups = contents(clips.table), texts(clips.table, "group")
    for judged, other in PAIRS:
        place = "training" if other == "train" else other
        pair = at[judged], at[other]
        _refuse(clips, split, *pair, numbers, f"{judged} clips are also in {place}")
        what = f"{judged} clips have the bytes of clips in {place}"
        _refuse(clips, split, *pair, known, what)
        if _keeps_groups(clips, split, judged):
            what = f"{judged} clips are of groups that are also in {place}"
            _refuse(clips, split, *pair, groups, what)
    for holdout in clips.holdouts:
        out = holdout.kept_out(clips.table)
        for name in ("train", "validation"):
            wrong = at[name][out[at[name]]]
            if len(wrong):
                raise LeakError(
                    f"{len(wrong)} {name} clips are kept out of every training by the test set "
                    f"{holdout.name} ({_shown(_ids(clips)[wrong])}): train again"
                )


def straddling(clips: Clips, split: Split) -> pd.DataFrame:
    """Test clips whose group is also trained on, as the user asked for (given, stratified).

    Columns test, other, part, similarity (NaN: not measured): a line per clip, with the first training
    clip of its group. Empty for a split that keeps groups whole.
    """
    test, train = clips.positions(split.test), clips.positions(split.train)
    ids, groups = _ids(clips), texts(clips.table, "group")
    first = _first(groups[train], ids[train])
    others = [first.get(group, "") for group in groups[test]]
    columns = {"test": ids[test], "other": others, "part": "train", "similarity": np.nan}
    table = pd.DataFrame(columns)
    return table[table["other"] != ""].reset_index(drop=True)


def unseen(
    clips: Clips, positions: Rows, trained: pd.DataFrame, *, groups: bool
) -> npt.NDArray[np.bool_]:
    """Which of the clips at `positions` a head has not seen in training, (n,) bool.

    trained: what it was fitted on and stopped by, with video_id, group, sha256 and digest. `groups`:
    whether a clip of a group that it has seen counts as seen.
    """
    columns = ["video_id", "group", "sha256", "digest"]
    judged = clips.table.iloc[positions]
    both = pd.concat([part.reindex(columns=columns, fill_value="") for part in (judged, trained)])
    both["digest"] = pd.to_numeric(both["digest"], errors="coerce").fillna(0).astype(np.int64)
    seen = np.zeros(len(judged), dtype=bool)
    keys = [texts(both, "video_id"), contents(both)]
    for values in [*keys, texts(both, "group")] if groups else keys:
        mine, theirs = values[: len(judged)], values[len(judged) :]
        seen |= _shared(mine, theirs)
    return ~seen


def require_unseen(
    name: str, clips: Clips, positions: Rows, trained: pd.DataFrame, *, groups: bool
) -> None:
    """Raise `LeakError` if a head is to be evaluated on clips that it has seen."""
    seen = ~unseen(clips, positions, trained, groups=groups)
    if seen.any():
        ids = _ids(clips)[positions[seen]]
        raise LeakError(
            f"{name} cannot be evaluated on these clips, it was trained on {len(ids)} of "
            f"{len(positions)} of them, their groups or their bytes ({_shown(ids)}): train it again "
            "without them"
        )


def _keeps_groups(clips: Clips, split: Split, judged: str) -> bool:
    if judged == "test" and split.test_set:
        return named(clips.holdouts, split.test_set).whole_groups
    return split.how in GROUPED


def _refuse(clips: Clips, split: Split, judged: Rows, other: Rows, keys: Names, what: str) -> None:
    """Raise `LeakError` where clips at `judged` and at `other` share a key that is not empty."""
    wrong = judged[_shared(keys[judged], keys[other])]
    if not len(wrong):
        return
    ids = _ids(clips)
    twin = _first(keys[other], ids[other])
    pairs = [f"{ids[i]} with {twin[keys[i]]}" for i in wrong[:SHOWN]]
    remedy = (
        "correct the split column, or use split=grouped" if split.how == "given" else "train again"
    )
    raise LeakError(
        f"{len(wrong)} of {len(judged)} {what} ({', '.join(pairs)}{', …' * (len(wrong) > SHOWN)}), "
        f"so this {split.how} split is refused: {remedy}"
    )


def _shared(mine: Names, theirs: Names) -> npt.NDArray[np.bool_]:
    """Which of `mine` are among `theirs`; empty ones are not."""
    shared = pd.Series(mine, dtype=object).isin(set(theirs) - {""})
    return np.asarray(shared.to_numpy(dtype=bool))


def _first(keys: Names, ids: Names) -> dict[str, str]:
    """The first id of every key that is not empty."""
    first = dict(zip(keys[::-1], ids[::-1], strict=True))
    first.pop("", None)
    return first


def _ids(clips: Clips) -> Names:
    return texts(clips.table, "video_id")


def _shown(ids: Names) -> str:
    return ", ".join(map(str, ids[:SHOWN])) + ", …" * (len(ids) > SHOWN)
