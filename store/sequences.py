"""What a reader returns, and in which order: pure values and functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNKS_IN_WINDOW = 8
"""Chunks that a shuffled stream mixes at once: 84 MB of InceptionV3 features at 64 rows each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Masked sequences of some clips.

    `features` (n, steps, *shape) of the store's dtype, zero where `mask` (n, steps) is false;
    `rows` (n,) int64 are their numbers in the store.
    """

    features: NDArray[Any]
    mask: NDArray[np.bool_]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return (
            f"Sequences(features {self.features.shape} {self.features.dtype}, "
            f"mask {self.mask.shape} {self.mask.mean() if self.mask.size else 0:.0%} real, "
            f"rows {self.rows.shape})"
        )

    def take(self, index: Any) -> Sequences:
        """The sequences at these positions (a slice or an index array)."""
        return Sequences(
            features=self.features[index], mask=self.mask[index], rows=self.rows[index]
        )


def concatenate(parts: list[Sequences]) -> Sequences:
    """One value of several, in order."""
    if len(parts) == 1:
        return parts[0]
    return Sequences(
        features=np.concatenate([part.features for part in parts]),
        mask=np.concatenate([part.mask for part in parts]),
        rows=np.concatenate([part.rows for part in parts]),
    )


def windows(
    rows: NDArray[np.int64], batch: int, *, shuffle: bool, seed: int, epoch: int
) -> Iterator[NDArray[np.int64]]:
    """The rows in the order of a stream, cut into windows of at most eight chunks each.

    Unshuffled, the given order. Shuffled, the chunks in random order and the rows of each window
    mixed: every chunk is then read once. A pure function of the rows, seed and epoch.
    """
    if shuffle:
        rng = np.random.default_rng([seed, epoch])
        ordered = np.sort(rows)
        chunks = np.split(ordered, np.flatnonzero(np.diff(ordered // batch)) + 1)
        order = rng.permutation(len(chunks))
        for start in range(0, len(order), CHUNKS_IN_WINDOW):
            window = np.concatenate([chunks[i] for i in order[start : start + CHUNKS_IN_WINDOW]])
            if len(window):
                yield rng.permutation(window)
        return
    start, seen = 0, set[int]()
    for i, chunk in enumerate((rows // batch).tolist()):
        if chunk not in seen and len(seen) == CHUNKS_IN_WINDOW:
            yield rows[start:i]
            start, seen = i, set()
        seen.add(chunk)
    if start < len(rows):
        yield rows[start:]
