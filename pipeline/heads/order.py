"""In which order clips are trained on: a pure function of their rows, a seed and an epoch.

The same whether the sequences are in memory or streamed. Where they are few, any order; where they
are more than a window holds, blocks of neighbouring rows are dealt out to windows, and each window is
shuffled as a whole, so that a stream reads every block once.
"""

from __future__ import annotations

import numpy as np

from pipeline.heads.source import Rows

BLOCK = 64
"""Neighbouring rows that share one window: those of a chunk in a store of the default batch."""
WINDOW_BYTES = 1 << 31
"""Sequences in a window, counted in float32: 1 GiB of float16 features, 3,276 clips of InceptionV3."""


def shuffled(
    positions: Rows, rows: Rows, seed: tuple[int, int], *, window: int
) -> tuple[Rows, list[int]]:
    """(positions in the order of this epoch, where each window ends in it).

    `rows` (n,) are the row numbers of all clips, `window` how many clips one holds. Windows are dealt
    from strata of neighbouring blocks: where rows are sorted by class, each window has all classes.
    """
    rng = np.random.default_rng(seed)
    if len(positions) <= window:
        return rng.permutation(positions), [len(positions)]
    ordered = np.sort(positions)
    blocks = np.split(ordered, np.flatnonzero(np.diff(rows[ordered] // BLOCK)) + 1)
    count = -(-len(blocks) // max(1, window // BLOCK))
    hands: list[list[Rows]] = [[] for _ in range(count)]
    for start in range(0, len(blocks), count):
        stratum = blocks[start : start + count]
        for hand, block in zip(rng.permutation(count), stratum, strict=False):
            hands[hand].append(block)
    windows = [
        rng.permutation(np.concatenate(hands[i])) for i in rng.permutation(count) if hands[i]
    ]
    return np.concatenate(windows), np.cumsum([len(w) for w in windows]).tolist()


def pieces(ends: list[int], size: int, most: int) -> list[tuple[int, int]]:
    """Spans of an order to read at a time: up to a window's end or `most` clips, in whole batches."""
    most = max(size, most // size * size)
    spans, start = [], 0
    for end in ends:
        end = min(-(-end // size) * size, ends[-1])
        while start < end:
            stop = min(start + most, end)
            spans.append((start, stop))
            start = stop
    return spans
