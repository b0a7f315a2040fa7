"""A store's rows as a data set of PyTorch. Imported only where `Store.torch_dataset` is called."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import IterableDataset, get_worker_info

from store.labelled import LabelledBatches
from store.torch_blocks import Blocks


class TorchDataset(IterableDataset):  # type: ignore[misc]
    """Whole batches (see `store.labelled.Batch`) as tensors, shared out among a loader's workers.

    For `DataLoader(dataset, batch_size=None, num_workers=8)`, with any start method.
    """

    def __init__(self, batches: LabelledBatches) -> None:
        self._batches = batches
        # In shared memory: workers that live on from epoch to epoch see what `set_epoch` sets.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._blocks: Blocks | None = None  # of the worker that this is in

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next epoch."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        share = (0, 1) if worker is None else (worker.id, worker.num_workers)
        batches = self._batches.epoch(int(self._epoch), share=share)
        if worker is None:
            for batch in batches:
                yield {name: torch.from_numpy(values) for name, values in batch.items()}
        else:
            self._blocks = self._blocks or Blocks()  # kept from epoch to epoch
            for batch in batches:
                yield self._blocks.batch(batch)
