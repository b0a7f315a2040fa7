"""Whole groups shared out so that every part gets its share of every class.

This is a balanced partition problem, so it is solved the usual way: largest groups first, each
where it helps most, from several seeded orders, then single moves while one still helps. If
several of these splits are as near the wanted shares, the one with more groups in test and
validation is taken: groups are the unit of chance, so a test of many tells more than one of few.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

TRIES = 12
MOVES = 2000
FINE = 4
NEAR = 0.01
"""A part's share of the clips, or of a class, that is no farther off than this is as near."""


def assign_groups(
    groups: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float64],
    seed: int,
) -> npt.NDArray[np.int64]:
    """The part (0 … len(shares) − 1) of every clip; clips of one group share it.

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
        start = _greedy if number < tries else _fine
        parts = start(weighed, target, rng)
        candidates.append((_improve(parts, weighed, target, rng), parts))
    nearest = min(cost for cost, _ in candidates) + NEAR**2 * target.size
    near = [(cost, parts) for cost, parts in candidates if cost <= nearest]
    size = target.sum(axis=1)
    # All but a largest part, which trains; of equal parts (folds) each is a test.
    judged = np.flatnonzero((size > 0) & ((size < size.max()) | (size.min() == size.max())))
    # The part with the fewest first; among equals the nearest, and of those the first found.
    _, best = max(near, key=lambda pair: (_groups_of(pair[1], judged), -pair[0]))
    return best[of_clip]


def _groups_of(parts: npt.NDArray[np.int64], judged: npt.NDArray[np.int64]) -> list[int]:
    """How many groups each of the judged parts has, the fewest first."""
    return sorted(np.bincount(parts, minlength=judged.max() + 1)[judged].tolist())


def _fine(
    weighed: npt.NDArray[np.float64], target: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Like `_greedy`, but all parts save the largest are filled with the smallest groups first."""
    size = weighed.sum(axis=1) * rng.uniform(0.8, 1.25, len(weighed))
    largest = int(np.argmax(target.sum(axis=1)))
    small = (target.sum(axis=1) > 0) & (np.arange(len(target)) != largest)
    parts = np.full(len(weighed), largest, dtype=np.int64)
    filled = np.zeros_like(target)
    for g in np.argsort(size, kind="stable"):
        gap = target - filled
        gain = np.where(small, (2 * gap * weighed[g] - weighed[g] ** 2).sum(axis=1), -np.inf)
        part = int(np.argmax(gain))
        if gain[part] > 0:
            parts[g] = part
            filled[part] += weighed[g]
    _fill_empty(parts, weighed, np.flatnonzero(target.sum(axis=1) > 0))
    return parts


def _greedy(
    weighed: npt.NDArray[np.float64], target: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    size = weighed.sum(axis=1) * rng.uniform(0.8, 1.25, len(weighed))
    parts = np.zeros(len(weighed), dtype=np.int64)
    filled = np.zeros_like(target)
    wanted = target.sum(axis=1) > 0
    for g in np.argsort(-size, kind="stable"):
        gap = target - filled
        # The fall of Σ gap² when this group joins a part.
        gain = (2 * gap * weighed[g] - weighed[g] ** 2).sum(axis=1)
        parts[g] = int(np.argmax(np.where(wanted, gain, -np.inf)))
        filled[parts[g]] += weighed[g]
    _fill_empty(parts, weighed, np.flatnonzero(wanted))
    return parts


def _fill_empty(
    parts: npt.NDArray[np.int64], weighed: npt.NDArray[np.float64], wanted: npt.NDArray[np.int64]
) -> None:
    """Give every wanted part a group, the smallest that another can spare."""
    for part in wanted:
        if not (parts == part).any():
            crowded = np.bincount(parts, minlength=wanted.max() + 1)
            donors = np.flatnonzero(crowded[parts] > 1)
            if len(donors):
                parts[donors[np.argmin(weighed[donors].sum(axis=1))]] = part


def _improve(
    parts: npt.NDArray[np.int64],
    weighed: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> float:
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
