"""No leak of test clips into training: what is refused, and what `leakage.csv` reports.

Every fit passes `require_apart`, every evaluation of a saved head `require_unseen`; both refuse in
one sentence with the ids. Checked: no clip, no bytes of a clip, and no group (where the split keeps
groups whole) of a test or validation clip is also in training, and nothing that one of the store's
test sets keeps out is trained on. Reported: test clips that look the same as a training clip, or are
of its group as the user asked for.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.clips import Clips
from pipeline.heads.holdout import named
from pipeline.heads.source import Float32, Mask, Names, Rows, shared_contents, texts
from pipeline.heads.spans import SPAN, fragments
from pipeline.heads.splits import GROUPED, PARTS, Split
from pipeline.heads.statistics import FLOOR, Statistics, channels_of

PAIRS = (("test", "train"), ("validation", "train"), ("test", "validation"))
SHOWN = 3


class LeakError(ConfigError):
    """A clip that tests, or its group or bytes, is also trained on."""


def require_apart(clips: Clips, split: Split) -> None:
    """Raise `LeakError` if a part of the split has clips that another must not have.

    Rows and bytes are never in two parts. Groups are not if the split keeps them whole, or its
    named test set does. What one of the test sets keeps out is in the test only.
    """
    at = {name: clips.positions(getattr(split, name)) for name in PARTS}
    numbers = np.arange(len(clips)).astype(str).astype(object)
    known, groups = shared_contents(clips.table), texts(clips.table, "group")
    for judged, other in PAIRS:
        place = "training" if other == "train" else other
        checks = [(numbers, "are also in"), (known, "have the bytes of clips in")]
        if _keeps_groups(clips, split, judged):
            checks.append((groups, "are of groups that are also in"))
        for keys, what in checks:
            words = f"{judged} clips {what} {place}"
            _refuse(clips, split, at[judged], at[other], keys, words)
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


def unseen(clips: Clips, positions: Rows, trained: pd.DataFrame, *, groups: bool) -> Mask:
    """Which of the clips at `positions` a head has not seen in training, (n,) bool.

    trained: what it was fitted on and stopped by, with video_id, group, sha256 and digest. `groups`:
    whether a clip of a group that it has seen counts as seen.
    """
    columns = ["video_id", "group", "sha256", "digest", SPAN]
    judged = clips.table.iloc[positions]
    judged = judged.assign(**{SPAN: fragments(judged)})
    both = pd.concat([part.reindex(columns=columns, fill_value="") for part in (judged, trained)])
    both["digest"] = pd.to_numeric(both["digest"], errors="coerce").fillna(0).astype(np.int64)
    keys = [texts(both, "video_id"), shared_contents(both), texts(both, "group")][
        : 3 if groups else 2
    ]
    n = len(judged)
    seen: Mask = np.any([_shared(values[:n], values[n:]) for values in keys], axis=0)
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
    pairs = [f"{ids[i]} with {twin[keys[i]]}" for i in wrong]
    given = split.how == "given"
    remedy = "correct the split column, or use split=grouped" if given else "train again"
    raise LeakError(
        f"{len(wrong)} of {len(judged)} {what} ({_shown(pairs)}), "
        f"so this {split.how} split is refused: {remedy}"
    )


def _shared(mine: Names, theirs: Names) -> Mask:
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


def _shown(ids: Names | list[str]) -> str:
    return ", ".join(map(str, ids[:SHOWN])) + ", …" * (len(ids) > SHOWN)


NEAR = 0.98
"""From this cosine on, two clips' mean features count as near-identical. Copies of one video at
another bitrate lie above 0.99, neighbouring shots of one scene mostly below 0.95."""
NEAR_IDENTICAL, SAME_GROUP = "near identical", "same group"


def leakage_table(clips: Clips, split: Split, statistics: Statistics) -> pd.DataFrame:
    """Test clips that are near-identical to a training or validation clip, or share a training group.

    statistics: of the training clips

    Columns test, other, part, similarity, why (`NEAR_IDENTICAL` or `SAME_GROUP`).
    """
    near = near_identical(clips, split, statistics).assign(why=NEAR_IDENTICAL)
    straddle = straddling(clips, split).assign(why=SAME_GROUP)
    return pd.concat([near, straddle], ignore_index=True) if len(straddle) else near


def near_identical(
    clips: Clips, split: Split, statistics: Statistics, *, near: float = NEAR
) -> pd.DataFrame:
    """Test clips with a near-identical training or validation clip, the nearest first.

    Columns test, other, part, similarity: the cosine of both clips' mean standardised features.
    An empty frame is a clean split; a long one means that the test figures are too good.
    """
    test = clips.positions(split.test)
    ids = clips.table["video_id"].to_numpy()
    vectors = _pooled(clips, clips.positions(split.train), statistics)
    tables = []
    for part in ("train", "validation"):
        at = clips.positions(getattr(split, part))
        if not len(at) or not len(test):
            continue
        similarity = vectors[test] @ vectors[at].T
        nearest = similarity.argmax(axis=1)
        best = similarity[np.arange(len(test)), nearest]
        alike = best >= near
        columns = {"test": ids[test[alike]], "other": ids[at[nearest[alike]]], "part": part}
        tables.append(pd.DataFrame(columns | {"similarity": best[alike]}))
    if not tables:
        return pd.DataFrame(columns=["test", "other", "part", "similarity"])
    table = pd.concat(tables, ignore_index=True)
    return table.sort_values("similarity", ascending=False, ignore_index=True)


def _pooled(clips: Clips, training: Rows, statistics: Statistics) -> Float32:
    """(clips, channels) unit vectors: each clip's mean over its real steps, standardised."""
    channels = channels_of(clips.shape)
    vectors = np.full((len(clips), channels), np.nan, np.float32)
    for features, mask, at in clips.batches(np.arange(len(clips)), 32):
        for i, position in enumerate(at):
            steps = features[i][mask[i]].reshape(-1, channels).astype(np.float32)
            vectors[position] = steps.mean(axis=0)
    if np.isnan(vectors).any():
        raise RuntimeError("some clips' mean features were not computed")
    # Deviations between clips are smaller than between frames: scale by their own.
    vectors -= statistics.mean
    spread = vectors[training].std(axis=0)
    vectors *= np.where(spread > 0, 1 / np.maximum(spread, FLOOR * np.median(spread) + 1e-30), 0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.maximum(lengths, 1e-12)
    return vectors
