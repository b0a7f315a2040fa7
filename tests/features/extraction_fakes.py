"""A decoder pool and a backbone that are small enough to reason about, for the extractor's tests.

Both are real implementations of their interfaces, in this process: frames are made from the path's
name, and a feature is a fixed function of its frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.errors import UnreadableClip
from pipeline.features.decoding.slots import FrameSlots
from pipeline.features.decoding.values import ClipFrames
from pipeline.spec import Sampling, Spec

SIZE = 4
STEPS = 6


def small_spec(**changes: object) -> Spec:
    values: dict[str, object] = {
        "sampling": Sampling(steps=STEPS),
        "size": SIZE,
        "shape": (3,),
        "backbone": "frames",
    }
    return Spec(**(values | changes))  # type: ignore[arg-type]


def frames_of(path: str) -> np.ndarray:
    """ "7/5" → the five frames of clip 7, every one different."""
    clip, count = (int(part) for part in path.split("/"))
    values = (np.arange(count) + clip * 16) % 251
    pixels = np.arange(SIZE * SIZE * 3).reshape(SIZE, SIZE, 3)
    return ((values[:, None, None, None] + pixels) % 256).astype(np.uint8)


class ThreadDecoders:
    """Decodes "CLIP/COUNT" in threads; "bad/REASON" fails, "crash" breaks the pool itself.

    `hold` keeps every decoder back until it is set. Counts what is lent and given back.
    """

    def __init__(self, threads: int = 2, hold: threading.Event | None = None) -> None:
        self._threads = ThreadPoolExecutor(threads)
        self._hold = hold
        self._lock = threading.Lock()
        self.submitted = 0
        self.lent = 0
        self.most_lent = 0

    def submit(self, path: str, size_bytes: int = -1, part: object = None) -> Future[ClipFrames]:
        with self._lock:
            self.submitted += 1
            self.lent += 1
            self.most_lent = max(self.most_lent, self.lent)
        future = self._threads.submit(self._read, path)
        # What was cancelled, or failed, is lent no more; the rest is given back by `release`.
        future.add_done_callback(self._settled)
        return future

    def _settled(self, future: Future[ClipFrames]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._back()

    def _back(self) -> None:
        with self._lock:
            self.lent -= 1

    def _read(self, path: str) -> ClipFrames:
        if self._hold is not None and not self._hold.wait(30):
            raise TimeoutError("never let go")
        if path.startswith("bad/"):
            raise UnreadableClip(path.removeprefix("bad/"), "as asked")
        if path == "crash":
            raise OSError("the pool is gone")
        frames = frames_of(path)
        return ClipFrames(
            frames=frames,
            frame_index=np.arange(len(frames), dtype=np.int32) * 2,
            timestamp=np.arange(len(frames), dtype=np.float32) / 10,
            fps=20.0,
            width=32,
            height=24,
            frames_declared=2 * len(frames),
            frames_decoded=2 * len(frames),
            decoder="opencv",
            decode_s=0.5,
            release=self._back,
        )

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


class SlotDecoders(ThreadDecoders):
    """Decodes into slots of shared memory, as a pool does; one that is given back is spoiled at once."""

    def __init__(self, slots: int = 12, threads: int = 2) -> None:
        super().__init__(threads)
        self.slots = FrameSlots([(STEPS, SIZE, SIZE, 3)], slots=slots, processes=1)

    def _read(self, path: str) -> ClipFrames:
        slot = self.slots.lend()
        assert slot is not None
        try:
            clip = super()._read(path)
        except BaseException:
            self.slots.take_back(slot)
            raise

        def release() -> None:
            self.slots.frames(slot)[:] = 255
            self.slots.take_back(slot)
            self._back()

        frames = self.slots.frames(slot, clip.frames.shape)
        frames[:] = clip.frames
        return replace(clip, frames=frames, place=self.slots.place(slot), release=release)


def feature_of(frames: np.ndarray) -> np.ndarray:
    """(n, size, size, 3) uint8 → (n, 3) float32: mean, first and last value of each frame."""
    flat = frames.reshape(len(frames), -1).astype(np.float32)
    return np.stack([flat.mean(1), flat[:, 0], flat[:, -1]], 1)


@dataclass
class SumBackbone:
    """`feature_of` behind the backbone interface; records the size of every call."""

    batch: int = 4
    concurrency: int = 2
    whole_clips: bool = False
    block: int = 0
    name: str = "sum"
    engine: str = "none"
    shape: tuple[int, ...] = (3,)
    size: int = SIZE
    software: dict[str, str] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)
    blocks: int = 0
    before: Callable[[np.ndarray], None] | None = None

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        if self.before is not None:
            self.before(frames)
        self.calls.append(len(frames))
        return feature_of(frames)

    def features_of_blocks(self, blocks: Sequence[np.ndarray]) -> np.ndarray:
        assert {len(block) for block in blocks} == {self.block}
        self.blocks += len(blocks)
        return self(np.concatenate(blocks))
