"""Which batches of several stores are made together, so that a clip is read once for all that lack it.

Stores that were made together have the same clips in the same batches. Where they do not (a store is
ahead, its clips were added in another order, its batches have another size), the batches that have most
clips in common go together; a clip that lies in two groups all the same is read in each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flows.extract.cutting import BatchCutter
from flows.extract.values import Batch, Key
from pipeline.features.stage import Stage


def joint_groups(
    chunks: Sequence[NDArray[np.int64]], clips: Sequence[NDArray[np.int64]]
) -> list[list[Key]]:
    """The batches of each group; every batch is in one.

    chunks: for each store the batch of every row that is to be made, ascending. clips: the number of
    each row's clip, the same in all stores.

    >>> chunks = [np.array([0, 0, 1]), np.array([4, 4])]
    >>> joint_groups(chunks, [np.array([7, 8, 9]), np.array([8, 9])])
    [[(0, 0), (1, 4)], [(0, 1)]]
    """
    most = max((int(of.max()) for of in clips if len(of)), default=-1) + 1
    chunk_of = np.full((len(clips), most), -1, np.int64)
    clips_in: list[dict[int, NDArray[np.int64]]] = []
    for store, of_store in enumerate(clips):
        chunk_of[store, of_store] = chunks[store]
        numbers, begins = np.unique(chunks[store], return_index=True)
        parts = np.split(of_store, begins[1:]) if len(numbers) else []
        clips_in.append(dict(zip(numbers.tolist(), parts, strict=True)))
    sizes = [max(map(len, each.values()), default=0) for each in clips_in]
    free = [set(each) for each in clips_in]
    groups = []
    # From the largest batches: several small ones may fit beside one of them.
    for store in sorted(range(len(clips)), key=lambda number: -sizes[number]):
        for number, mine in clips_in[store].items():
            if number not in free[store]:
                continue
            free[store].discard(number)
            group = [(store, number)]
            for other in (other for other in range(len(clips)) if other != store):
                room = max(len(mine), sizes[other])
                near, counts = np.unique(chunk_of[other, mine], return_counts=True)
                for candidate in near[np.argsort(-counts, kind="stable")].tolist():
                    if candidate in free[other] and len(clips_in[other][candidate]) <= room:
                        room -= len(clips_in[other][candidate])
                        free[other].discard(candidate)
                        group.append((other, candidate))
            groups.append(sorted(group))
    return groups


class JointBatches:
    """The batches of a run's stores, grouped. `clips`: how many are read, in all groups.

    cutters, stages: of the stores. rows: those of each that are to be made. ids: of all rows of each.
    """

    def __init__(
        self,
        cutters: Sequence[BatchCutter],
        stages: tuple[Stage, ...],
        rows: Sequence[NDArray[np.int64]],
        ids: Sequence[NDArray[np.object_]],
    ) -> None:
        self._cutters, self._stages = cutters, stages
        pairs = zip(cutters, rows, strict=True)
        self._rows = [cutter.chunks(of_store) for cutter, of_store in pairs]
        if len(cutters) == 1:
            self._groups = [[(0, number)] for number in self._rows[0]]
            self.clips = len(rows[0])
            return
        names = [of[np.sort(its)] for of, its in zip(ids, rows, strict=True)]
        codes = pd.factorize(np.concatenate(names))[0].astype(np.int64)
        clips = np.split(codes, np.cumsum([len(of_store) for of_store in names])[:-1])
        chunks = [_numbers(of_store) for of_store in self._rows]
        self._groups = joint_groups(chunks, clips)
        group_of = {key: at for at, group in enumerate(self._groups) for key in group}
        groups = [group_of[s, n] for s, of_store in enumerate(chunks) for n in of_store.tolist()]
        self.clips = len(np.unique(np.array(groups, np.int64) * (len(codes) + 1) + codes))

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self._groups)

    def __iter__(self) -> Iterator[Batch]:
        """The batches, each as the stores are when it is asked for."""
        for group in self._groups:
            first, *beside = (
                replace(
                    self._cutters[store].batch(number, self._rows[store][number]),
                    store=store,
                    stages=self._stages,
                )
                for store, number in group
            )
            yield replace(first, beside=tuple(beside))


def _numbers(rows: dict[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The batch of every row, ascending."""
    lengths = [len(members) for members in rows.values()]
    return np.repeat(np.array(list(rows), np.int64), lengths)
