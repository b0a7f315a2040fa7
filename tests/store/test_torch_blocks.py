"""Batches that workers hand over in blocks are right for as long as anything of them is held."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from store import torch_blocks  # noqa: E402
from store.torch_blocks import MOST_BLOCKS, Blocks, SharedBatch  # noqa: E402


def values(seed: int, rows: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "features": rng.random((rows, 4, 3)).astype(np.float16),
        "mask": rng.random((rows, 4)) < 0.5,
        "rows": np.arange(rows),
        "label": np.arange(rows) - 1,
    }


def batch_of(blocks: Blocks, seed: int = 0, rows: int = 5) -> dict[str, Any]:
    return blocks.batch(values(seed, rows))


def same(batch: dict[str, Any], expected: dict[str, Any]) -> bool:
    return batch.keys() == expected.keys() and all(
        batch[k].numpy().dtype == v.dtype and np.array_equal(batch[k].numpy(), v)
        for k, v in expected.items()
    )


def written(batch: dict[str, Any]) -> bytes:
    """As a loader's worker sends it."""
    return bytes(ForkingPickler.dumps(copy.copy(batch)))


def sent(batch: dict[str, Any]) -> dict[str, Any]:
    """What the other process has of it; here both are one."""
    got = pickle.loads(written(batch))
    assert type(got) is dict
    return got


def test_a_block_is_used_again_only_when_nothing_of_its_batch_is_left() -> None:
    blocks = Blocks()
    batch = batch_of(blocks)
    got = sent(batch)
    assert same(got, values(0))
    block = blocks._blocks[0]
    assert not block.is_free
    del batch
    part = got["features"][2:4]
    numbers = got["rows"].numpy()[1:]
    del got
    gc.collect()
    others = [sent(batch_of(blocks, seed)) for seed in range(1, 20)]
    assert same({"f": part}, {"f": values(0)["features"][2:4]})
    assert numbers.tolist() == [1, 2, 3, 4]
    del part
    assert not block.is_free
    del numbers
    assert block.is_free
    assert all(same(one, values(seed)) for seed, one in enumerate(others, 1))


def test_a_batch_that_is_not_sent_yet_keeps_its_block() -> None:
    blocks = Blocks()
    waiting = [batch_of(blocks, seed) for seed in range(3 * MOST_BLOCKS)]
    assert sum(isinstance(batch, SharedBatch) for batch in waiting) == MOST_BLOCKS
    assert all(same(batch, values(seed)) for seed, batch in enumerate(waiting))
    tensor = waiting[0]["features"]  # what a transform in the worker keeps
    del waiting
    more = [batch_of(blocks, seed) for seed in range(100, 110)]
    assert same({"f": tensor}, {"f": values(0)["features"]})
    assert all(same(batch, values(seed)) for seed, batch in enumerate(more, 100))


def test_a_batch_that_is_sent_twice_comes_twice() -> None:
    """A loader copies the batch before it sends it."""
    blocks = Blocks()
    batch = batch_of(blocks)
    words = [written(batch), written(batch)]
    del batch
    first = pickle.loads(words[0])
    for seed in range(1, 9):
        sent(batch_of(blocks, seed))
    assert same(first, values(0))
    del first
    for seed in range(1, 9):
        sent(batch_of(blocks, seed))
    assert same(pickle.loads(words[1]), values(0))


def test_what_was_sent_once_comes_once() -> None:
    words = written(batch_of(blocks := Blocks()))
    first = pickle.loads(words)
    with pytest.raises(RuntimeError, match="comes once"):
        pickle.loads(words)
    assert same(first, values(0))
    assert blocks


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "replaced": lambda batch: batch.update(label=torch.zeros(5)),
    "added": lambda batch: batch.update(more=batch["features"][1:3]),
    "gone": lambda batch: batch.pop("label"),
    "times two": lambda batch: batch["features"].mul_(2),
    "turned": lambda batch: batch["features"].transpose_(0, 2),
    "one more axis": lambda batch: batch["rows"].unsqueeze_(0),
    "other data": lambda batch: setattr(batch["rows"], "data", torch.arange(3.0)),
    "another size": lambda batch: batch["rows"].resize_(2),
    "a gradient": lambda batch: batch.update(features=batch["features"].float().requires_grad_()),
    "a number type of torch alone": lambda batch: batch.update(
        features=batch["features"].bfloat16()
    ),
    "conjugate": lambda batch: batch.update(rows=torch.ones(3, dtype=torch.complex64).conj()),
    "shared": lambda batch: batch["features"].share_memory_().mul_(3),
    "sparse": lambda batch: batch.update(rows=batch["rows"].to_sparse()),
    "no axis": lambda batch: batch.update(rows=torch.tensor(7)),
    "empty": lambda batch: batch.update(rows=torch.zeros((0, 4)), label=torch.zeros(0)),
    "no tensor": lambda batch: batch.update(rows="a text"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_transform_made_of_it_comes(change: Callable[[dict[str, Any]], Any]) -> None:
    blocks = Blocks()
    batch, plain = batch_of(blocks), dict(batch_of(Blocks()))
    change(batch)
    change(plain)
    got, expected = sent(batch), pickle.loads(ForkingPickler.dumps(plain))
    assert got.keys() == expected.keys()
    for name, one in expected.items():
        assert type(got[name]) is type(one)
        if isinstance(one, str):
            assert got[name] == one
            continue
        assert (got[name].dtype, got[name].shape) == (one.dtype, one.shape)
        assert got[name].requires_grad == one.requires_grad
        assert torch.equal(got[name].to_dense(), one.to_dense())


def test_a_copy_and_what_is_saved_are_values_of_their_own(tmp_path: Path) -> None:
    batch = batch_of(Blocks())
    copied, saved = copy.deepcopy(batch), pickle.dumps(batch)
    torch.save(batch, tmp_path / "batch.pt")
    batch["features"].zero_()
    assert same(copied, values(0))
    assert same(pickle.loads(saved), values(0))
    assert same(torch.load(tmp_path / "batch.pt"), values(0))


def test_a_larger_batch_has_a_larger_block_and_the_smaller_one_goes() -> None:
    blocks = Blocks()
    for rows in (1, 9, 2, 7):
        assert same(sent(batch_of(blocks, rows, rows)), values(rows, rows))
    assert len(blocks._blocks) == 1
    before = len(os.listdir("/proc/self/fd"))
    for seed in range(50):
        batch_of(blocks, seed, 10 + seed)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_memory_of_workers_that_have_ended_is_given_back() -> None:
    torch_blocks._maps.clear()
    before = len(os.listdir("/proc/self/fd"))
    for seed in range(20):
        blocks = Blocks()
        held = sent(batch_of(blocks, seed))
        assert same(held, values(seed))
        del blocks
        gc.collect()
        assert len(torch_blocks._maps) == 1
        assert same(held, values(seed))
        del held
    assert len(os.listdir("/proc/self/fd")) <= before + 2


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_fork_has_the_arrays_that_it_saw_for_as_long_as_it_likes(is_sent: bool) -> None:
    blocks = Blocks()
    batch = batch_of(blocks)
    if is_sent:
        batch = sent(batch)
    go_on, asked = os.pipe()
    child = os.fork()
    if not child:
        os.read(go_on, 1)
        os._exit(0 if same(batch, values(0)) else 1)
    del batch
    gc.collect()
    for seed in range(1, 3 * MOST_BLOCKS):
        assert same(sent(batch_of(blocks, seed)), values(seed))
    assert len(blocks._blocks) == 1
    os.write(asked, b"x")
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_of_a_worker_leaves_its_blocks_alone() -> None:
    blocks = Blocks()
    sent(batch_of(blocks))
    child = os.fork()
    if not child:
        os._exit(int(isinstance(batch_of(blocks), SharedBatch)))
    assert os.waitpid(child, 0)[1] == 0
    assert isinstance(batch_of(blocks), SharedBatch)


def test_a_program_that_is_started_is_no_fork_that_sees_arrays() -> None:
    got = sent(batch_of(blocks := Blocks()))
    subprocess.run([sys.executable, "-c", ""], check=True)
    del got
    assert [block.is_lost for block in blocks._blocks] == [False]


def test_threads_of_a_worker_have_a_block_each() -> None:
    blocks, found = Blocks(), list[bool]()

    def send(seed: int) -> None:
        for number in range(200):
            got = sent(batch_of(blocks, 1000 * seed + number))
            found.append(same(got, values(1000 * seed + number)))

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 800


def test_a_worker_that_has_ended_is_named() -> None:
    words = written(batch_of(Blocks()))
    gc.collect()  # with the blocks
    with pytest.raises(RuntimeError, match=f"the worker {os.getpid()} .* has ended"):
        pickle.loads(words)


def test_a_process_whose_files_nobody_may_open_takes_the_plain_way() -> None:
    code = (
        "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n"  # PR_SET_DUMPABLE
        "import numpy; from store.torch_blocks import Blocks\n"
        "assert type(Blocks().batch({'a': numpy.zeros(3)})) is dict"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
