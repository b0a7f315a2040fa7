"""Clips cut into parts: pure functions from a table and a seed to a part number for each clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.seeds import derived_seed
from pipeline.heads.source import Array, Float64, Rows, group_names, shared_contents, texts

DRAWS = 50
"""Cuts that are tried for one more repeat before there seems to be no other."""
NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "development"),
    "test": ("test", "testing"),
}
"""Part → its names in the `split` column; blanks around them and case do not count."""


def by_groups(clips: pd.DataFrame, shares: Sequence[float], seed: int) -> Rows:
    """The part (0 … len(shares) − 1) of every clip, whole groups together."""
    wanted = np.asarray(shares, dtype=float)
    return assign_groups(group_names(clips), label_numbers(clips), wanted, seed)


def repeated_folds(
    clips: pd.DataFrame, folds: int, seed: int, repeats: int
) -> list[tuple[int, Rows]]:
    """(seed, the fold of every clip) of each repeat: whole groups together, no two cut alike.

    The first has the run's own seed, so it is the cross-validation without repeats; the others have
    seeds derived from it by name. Raises `ConfigError` if no further cut is found.
    """
    groups = group_names(clips)
    drawn: list[tuple[int, Rows]] = []
    known: set[frozenset[frozenset[str]]] = set()
    for repeat in range(repeats):
        for draw in range(DRAWS):
            name = (f"repeat {repeat}", f"draw {draw}")
            own = derived_seed(seed, "folds", *name) if repeat or draw else seed
            fold = by_groups(clips, [1 / folds] * folds, own)
            cut = frozenset(frozenset(groups[fold == number]) for number in range(folds))
            if cut not in known:
                break
        else:
            raise ConfigError(
                f"{len(set(groups))} groups were cut into {folds} folds in {len(known)} ways, and no "
                f"other was found: ask for at most {len(known)} repeats"
            )
        known.add(cut)
        drawn.append((own, fold))
    return drawn


def stratified(clips: pd.DataFrame, shares: Sequence[float], seed: int) -> Rows:
    """Each class cut in the same proportions; the first part takes what rounding leaves.

    Clips of equal bytes, and parts of a file that overlap, go where the first of them goes.
    """
    content = shared_contents(clips)
    content[content == ""] = texts(clips, "video_id")[content == ""]
    unit, _ = pd.factorize(content)
    _, first = np.unique(unit, return_index=True)
    return _each_class(label_numbers(clips)[first], shares, seed)[unit]


def inner_validation(training: pd.DataFrame, share: float, seed: int) -> Rows:
    """0 (train) or 1 (validation) for each clip, by whole groups if there are enough."""
    _, sizes = np.unique(group_names(training).astype(str), return_counts=True)
    if len(sizes) >= 4 and sizes.max() <= len(training) / 2:
        return by_groups(training, (1 - share, share), seed)
    return stratified(training, (1 - share, share), seed)


def inner_folds(training: pd.DataFrame, folds: int, seed: int) -> Rows:
    """The inner fold (from 0) that leaves each clip out, by whole groups if there are enough.

    With fewer than two groups for each fold there are fewer folds, two at least: a clip of a known group
    says nothing of others. Only where that would leave a class without any fold to learn it from, or
    with fewer than four groups, groups are cut through. All 0, which is no fold, where there are
    fewer than two clips for each.
    """
    if len(training) < 2 * folds:
        return np.zeros(len(training), dtype=np.int64)
    whole = min(folds, len(set(group_names(training))) // 2)
    if whole > 1:
        parts = by_groups(training, [1 / whole] * whole, seed)
        if whole == folds or _everywhere(label_numbers(training), parts):
            return parts
    return stratified(training, [1 / folds] * folds, seed)


def _everywhere(labels: Rows, parts: Rows) -> bool:
    """Whether every class with two clips or more has some in more than one part."""
    counts = np.zeros((labels.max() + 1, parts.max() + 1), dtype=np.int64)
    np.add.at(counts, (labels, parts), 1)
    return bool(((counts > 0).sum(axis=1) >= np.minimum(counts.sum(axis=1), 2)).all())


def given_parts(clips: pd.DataFrame) -> list[str]:
    """The part that the `split` column gives each clip: train, validation, test, or "".

    A column in which no name is known (`fold1`, `a`) gives no parts. Raises `ConfigError` where
    some are: a misspelt name would leave its clips out.
    """
    names = clips["split"].astype(str).str.strip().str.lower()
    part_of = {name: part for part, known in NAMES.items() for name in known}
    parts = names.map(part_of).fillna("").astype(str)
    unknown = names[(parts == "") & (names != "")].value_counts()
    if len(unknown) and (parts != "").any():
        shown = ", ".join(f"{name!r} on {count}" for name, count in unknown.items())
        raise ConfigError(
            f"the split column has names that are not known ({shown} of {len(clips)} clips): "
            f"use {', '.join(NAMES)}, or leave it empty"
        )
    return list(parts)


def given_split(clips: pd.DataFrame, seed: int, share: float, *, test: bool) -> Rows:
    """0 (train), 1 (validation), 2 (test) or −1 for each clip, by the `split` column.

    If it names no validation clips, a `share` of the training clips becomes validation.
    test: whether it must name test clips
    """
    parts = given_parts(clips)
    wanted = ("train", "test") if test else ("train",)
    missing = [name for name in wanted if name not in parts]
    if missing:
        raise ConfigError(
            f"the data's own split has no {' and no '.join(missing)} clips: "
            "use split=grouped or split=stratified"
        )
    numbers = {part: number for number, part in enumerate(NAMES)}
    where: Rows = np.fromiter((numbers.get(part, -1) for part in parts), np.int64, len(parts))
    if not (where == 1).any():
        where[where == 0] = inner_validation(clips[where == 0], share, seed)
    return where


def label_numbers(clips: pd.DataFrame) -> Rows:
    """Each clip's class as a number, (clips,) int64."""
    _, labels = np.unique(clips["label"].astype(str).to_numpy(dtype=str), return_inverse=True)
    return labels.astype(np.int64)


def _each_class(labels: Rows, shares: Sequence[float], seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    where = np.zeros(len(labels), dtype=np.int64)
    wanted = np.asarray(shares, dtype=float) / sum(shares)
    for label in range(int(labels.max(initial=-1)) + 1):
        members = rng.permutation(np.flatnonzero(labels == label))
        counts = np.floor(wanted * len(members) + 0.5).astype(int)
        counts[1:] = np.where(wanted[1:] > 0, np.maximum(counts[1:], 1), 0)
        while counts[1:].sum() > max(len(members) - 1, 0):
            counts[1 + int(np.argmax(counts[1:]))] -= 1
        stops = np.cumsum(counts[1:])
        for part, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True), start=1):
            where[members[start:stop]] = part
    return where


TRIES = 12
MOVES = 2000
FINE = 4
NEAR = 0.01
"""A part's share of the clips, or of a class, that is no farther off than this is as near."""


def assign_groups(groups: Array, labels: Rows, shares: Float64, seed: int) -> Rows:
    """The part (0 … len(shares) − 1) of every clip, so that every part gets its share of every class.

    Clips of one group share their part. This is a balanced partition problem, so it is solved the
    usual way: largest groups first, each where it helps most, from several seeded orders, then single
    moves while one still helps. If several of these splits are as near the wanted shares, the one with
    more groups in test and validation is taken: groups are the unit of chance, so a test of many tells
    more than one of few.

    `groups` (n,) any comparable, `labels` (n,) int class numbers, `shares` the wanted proportions
    (scaled to 1). Every part with a share above 0 gets a group where there are enough groups.
    """
    _, of_clip = np.unique(groups, return_inverse=True)
    counts = np.zeros((of_clip.max() + 1, labels.max() + 1))
    np.add.at(counts, (of_clip, labels), 1.0)
    totals = counts.sum(axis=0)
    # One more column, the clips of all classes together, keeps the parts' sizes right too.
    weighed = np.concatenate([counts / np.maximum(totals, 1), counts.sum(1, keepdims=True)], axis=1)
    weighed[:, -1] *= np.count_nonzero(totals) / len(labels)
    target = np.outer(shares / shares.sum(), weighed.sum(axis=0))
    rng = np.random.default_rng(seed)
    tries, fine = (TRIES, FINE) if len(counts) <= 5000 else (1, 1)
    candidates = []
    for number in range(tries + fine):
        parts = _dealt(weighed, target, rng, fine=number >= tries)
        candidates.append((_improve(parts, weighed, target, rng), parts))
    nearest = min(cost for cost, _ in candidates) + NEAR**2 * target.size
    near = [(cost, parts) for cost, parts in candidates if cost <= nearest]
    size = target.sum(axis=1)
    # All but a largest part, which trains; of equal parts (folds) each is a test.
    judged = np.flatnonzero((size > 0) & ((size < size.max()) | (size.min() == size.max())))
    # The part with the fewest first; among equals the nearest, and of those the first found.
    _, best = max(near, key=lambda pair: (_groups_of(pair[1], judged), -pair[0]))
    return best[of_clip]


def _groups_of(parts: Rows, judged: Rows) -> list[int]:
    """How many groups each of the judged parts has, the fewest first."""
    return sorted(np.bincount(parts, minlength=judged.max() + 1)[judged].tolist())


def _dealt(weighed: Float64, target: Float64, rng: np.random.Generator, *, fine: bool) -> Rows:
    """The largest groups first, each where it helps most.

    fine: all parts save the largest are filled, with the smallest groups first
    """
    size = weighed.sum(axis=1) * rng.uniform(0.8, 1.25, len(weighed))
    wanted = target.sum(axis=1) > 0
    largest = int(np.argmax(target.sum(axis=1)))
    filling = wanted & (np.arange(len(target)) != largest) if fine else wanted
    parts = np.full(len(weighed), largest, dtype=np.int64)
    filled = np.zeros_like(target)
    for g in np.argsort(size if fine else -size, kind="stable"):
        gap = target - filled
        # The fall of Σ gap² when this group joins a part.
        gain = np.where(filling, (2 * gap * weighed[g] - weighed[g] ** 2).sum(axis=1), -np.inf)
        part = int(np.argmax(gain))
        if gain[part] > 0 or not fine:
            parts[g] = part
            filled[part] += weighed[g]
    _fill_empty(parts, weighed, np.flatnonzero(wanted))
    return parts


def _fill_empty(parts: Rows, weighed: Float64, wanted: Rows) -> None:
    """Give every wanted part a group, the smallest that another can spare."""
    for part in wanted:
        if not (parts == part).any():
            crowded = np.bincount(parts, minlength=wanted.max() + 1)
            donors = np.flatnonzero(crowded[parts] > 1)
            if len(donors):
                parts[donors[np.argmin(weighed[donors].sum(axis=1))]] = part


def _improve(parts: Rows, weighed: Float64, target: Float64, rng: np.random.Generator) -> float:
    """Move single groups while that lowers Σ (filled − target)²; returns the cost reached."""
    filled = np.zeros_like(target)
    np.add.at(filled, parts, weighed)
    members = np.bincount(parts, minlength=len(target))
    wanted = target.sum(axis=1) > 0
    order = rng.permutation(len(parts))
    moved, looked = True, 0
    while moved and looked < MOVES:
        moved = False
        for g in order:
            looked += 1
            here, w = parts[g], weighed[g]
            if members[here] == 1:
                continue
            gap = filled - target
            change = (2 * gap * w + w**2).sum(axis=1) + (-2 * gap[here] * w + w**2).sum()
            change[here] = 0.0
            there = int(np.argmin(np.where(wanted, change, np.inf)))
            if change[there] < -1e-12:
                filled[here] -= w
                filled[there] += w
                members[here] -= 1
                members[there] += 1
                parts[g], moved = there, True
    return float(((filled - target) ** 2).sum())
