"""Whole videos in batches: padded on the right to one of a few lengths, each in a row of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.heads.batches import filled_up
from pipeline.heads.source import Array, Float32, Mask, Rows
from pipeline.heads.steps.videos import StepClips

SHORTEST = 16
LEAST_SEQUENCES = 6
"""Of an epoch: with one training video it would be a single update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Steps `first` to `last` (exclusive) of the video at `position`: one sequence of a head."""

    position: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first


def stretches(clips: StepClips, positions: Rows) -> list[Stretch]:
    """All sequences of the videos at these positions, in their order."""
    return [
        Stretch(position=int(i), first=first, last=last)
        for i in positions
        for first, last in clips.videos[i].stretches
    ]


def padded_length(steps: int) -> int:
    """The least of 16, 24, 32, 48, 64, 96, … that holds so many steps: few shapes, a third of padding.

    >>> padded_length(17), padded_length(760)
    (24, 768)
    """
    size = SHORTEST
    while size < steps:
        if size * 3 // 2 >= steps:
            return size * 3 // 2
        size *= 2
    return size


def batched(
    parts: Sequence[Stretch], size: int, seed: tuple[int, ...] | None = None
) -> list[list[Stretch]]:
    """The sequences, at most `size` of one padded length together, each once.

    seed: of (run, epoch) or (run, epoch, turn), the order they are shuffled by; without one they stay in
        order within a length
    """
    by_length: dict[int, list[Stretch]] = {}
    rng = None if seed is None else np.random.default_rng(seed)
    order = np.arange(len(parts)) if rng is None else rng.permutation(len(parts))
    for i in order:
        by_length.setdefault(padded_length(len(parts[i])), []).append(parts[i])
    batches = [
        alike[start : start + size]
        for _, alike in sorted(by_length.items())
        for start in range(0, len(alike), size)
    ]
    return batches if rng is None else [batches[i] for i in rng.permutation(len(batches))]


def sequences(clips: StepClips, batch: Sequence[Stretch], rows: int) -> tuple[Array, Mask]:
    """(features (rows, steps, *shape), mask (rows, steps)) of a batch, filled up with its first one."""
    steps = padded_length(max(map(len, batch)))
    features = np.zeros((rows, steps, *clips.shape), np.float32)
    mask = np.zeros((rows, steps), np.bool_)
    for row in range(rows):
        part = batch[row if row < len(batch) else 0]
        features[row, : len(part)] = clips.features_of(part.position)[part.first : part.last]
        mask[row, : len(part)] = True
    return features, mask


def training_batches(
    clips: StepClips,
    positions: Rows,
    size: int,
    seed: tuple[int, int],
    *,
    fill: bool,
    weights: Float32,
    label_smoothing: float,
) -> Iterator[tuple[Array, Mask, Float32, int]]:
    """(features, mask, targets (rows, steps, classes + 1), real steps) of one epoch.

    Every sequence is in it once; fewer than `LEAST_SEQUENCES` are in it as often as makes so many.
    fill: whether every batch has `size` rows; copies count nothing. weights: (classes,) what a step of
    each class counts
    """
    parts = stretches(clips, positions)
    batches = batched(parts, size, seed)
    for turn in range(1, -(-LEAST_SEQUENCES // max(1, len(parts)))):
        batches += batched(parts, size, (*seed, turn))
    for batch in batches:
        rows = filled_up(len(batch), size)[0] if fill else np.arange(len(batch))
        features, mask = sequences(clips, batch, len(rows))
        targets = np.zeros((*mask.shape, len(clips.classes) + 1), np.float32)
        for row, part in enumerate(batch):
            own = clips.videos[part.position].targets[part.first : part.last].astype(np.float32)
            counts = (own * weights).sum(axis=1) / np.maximum(own.sum(axis=1), 1)
            targets[row, : len(part), -1] = np.where(own.any(axis=1), counts, weights.mean())
            targets[row, : len(part), :-1] = smoothed(own, label_smoothing, clips.multi_label)
        yield features, mask, targets, sum(map(len, batch))


def smoothed(targets: Float32, share: float, multi_label: bool) -> Float32:
    """(n, classes) targets with this share spread over all classes, or, of several labels, to a half."""
    even = 0.5 if multi_label else 1 / targets.shape[1]
    return np.asarray(targets * (1 - share) + share * even, dtype=np.float32)


def step_weights(clips: StepClips, positions: Rows, *, balanced: bool) -> Float32:
    """(classes,) what a step of each class counts: 1, or by inverse frequency with mean 1 over steps."""
    counts = np.sum([clips.videos[i].targets.sum(axis=0) for i in positions], axis=0)
    if not balanced:
        return np.ones(len(counts), np.float32)
    present = np.count_nonzero(counts)
    return np.asarray(counts.sum() / (present * np.maximum(counts, 1)), dtype=np.float32)
