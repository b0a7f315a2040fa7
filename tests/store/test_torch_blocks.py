"""Batches that workers hand over in blocks are right for as long as anything of them is held."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from store.torch_blocks import MOST_BLOCKS, Blocks, SharedBatch  # noqa: E402


def values(seed: int, rows: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "features": rng.random((rows, 4, 3)).astype(np.float16),
        "mask": rng.random((rows, 4)) < 0.5,
        "rows": np.arange(rows),
        "label": np.arange(rows) - 1,
    }


def same(batch: dict[str, Any], expected: dict[str, Any]) -> bool:
    return batch.keys() == expected.keys() and all(
        batch[k].numpy().dtype == v.dtype and np.array_equal(batch[k].numpy(), v)
        for k, v in expected.items()
    )


def sent(batch: dict[str, Any]) -> dict[str, Any]:
    """What the other process has of it; here both are one."""
    got = pickle.loads(ForkingPickler.dumps(copy.copy(batch)))
    assert type(got) is dict
    return got


def test_a_block_is_used_again_only_when_nothing_of_its_batch_is_left():
    blocks = Blocks()
    batch = blocks.batch(values(0))
    got = sent(batch)
    assert same(got, values(0))
    block = blocks._blocks[0]
    assert not block.is_free
    del batch
    part = got["features"][2:4]
    numbers = got["rows"].numpy()[1:]
    del got
    gc.collect()
    others = [sent(blocks.batch(values(seed))) for seed in range(1, 20)]
    assert same({"f": part}, {"f": values(0)["features"][2:4]})
    assert numbers.tolist() == [1, 2, 3, 4]
    del part
    assert not block.is_free
    del numbers
    assert block.is_free
    assert all(same(one, values(seed)) for seed, one in enumerate(others, 1))


def test_a_batch_that_is_not_sent_yet_keeps_its_block():
    blocks = Blocks()
    waiting = [blocks.batch(values(seed)) for seed in range(3 * MOST_BLOCKS)]
    assert sum(isinstance(batch, SharedBatch) for batch in waiting) == MOST_BLOCKS
    assert all(same(batch, values(seed)) for seed, batch in enumerate(waiting))
    tensor = waiting[0]["features"]  # what a transform in the worker keeps
    del waiting
    more = [blocks.batch(values(seed)) for seed in range(100, 110)]
    assert same({"f": tensor}, {"f": values(0)["features"]})
    assert all(same(batch, values(seed)) for seed, batch in enumerate(more, 100))


def test_a_batch_that_was_changed_or_is_sent_twice_goes_as_plain_tensors():
    blocks = Blocks()
    batch = blocks.batch(values(0))
    batch["label"] = torch.zeros(5)
    got = sent(batch)
    assert got["label"].tolist() == [0] * 5
    assert blocks._blocks[0]._memory[0] == 0  # the other process has nothing of the block
    batch = blocks.batch(values(1))
    batch["features"].mul_(2)  # in place is in the block
    words = [bytes(ForkingPickler.dumps(batch)) for _ in range(2)]
    first, second = map(pickle.loads, words)
    assert (first["features"].numpy() == values(1)["features"] * 2).all()
    del first
    gc.collect()
    assert (second["features"].numpy() == values(1)["features"] * 2).all()


def test_a_copy_and_what_is_saved_are_values_of_their_own(tmp_path):
    batch = Blocks().batch(values(0))
    copied, saved = copy.deepcopy(batch), pickle.dumps(batch)
    torch.save(batch, tmp_path / "batch.pt")
    batch["features"].zero_()
    assert same(copied, values(0))
    assert same(pickle.loads(saved), values(0))
    assert same(torch.load(tmp_path / "batch.pt"), values(0))


def test_a_larger_batch_has_a_larger_block_and_the_smaller_one_goes():
    blocks = Blocks()
    for rows in (1, 9, 2, 7):
        assert same(sent(blocks.batch(values(rows, rows))), values(rows, rows))
    assert len(blocks._blocks) == 1
    before = len(os.listdir("/proc/self/fd"))
    for seed in range(50):
        blocks.batch(values(seed, 10 + seed))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_end_of_a_fork_frees_no_block_of_its_parent():
    blocks = Blocks()
    got = sent(blocks.batch(values(0)))
    child = os.fork()
    if not child:
        got.clear()
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert not blocks._blocks[0].is_free
    assert same(got, values(0))


def test_a_worker_that_has_ended_is_named():
    words = bytes(ForkingPickler.dumps(Blocks().batch(values(0))))
    gc.collect()  # with the blocks
    with pytest.raises((RuntimeError, OSError)):
        pickle.loads(words)
