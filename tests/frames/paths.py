"""The ways on which frames leave a clip: each as a function of a file and a plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding import ClipFrames, FramePlan, read_clip, seeking
from pipeline.predict.sliding import make_timeline
from pipeline.predict.timeline import Timeline
from pipeline.spec import Sampling, Spec

STEPS = 16
SIZE = 128

RULES = {
    "uniform": Sampling(steps=STEPS),
    "fps": Sampling(rule="fps", fps=8.0, steps=STEPS),
    "stride": Sampling(rule="stride", stride=3, steps=STEPS),
    "first": Sampling(rule="first", steps=STEPS),
}
FITS = {"uniform": "pad", "fps": "crop", "stride": "squash", "first": "pad"}
"""Each rule is tried with one fit, so that all fits are tried."""


def plan(rule: str) -> FramePlan:
    """The plan of a rule: what a new store with these settings would ask for."""
    return FramePlan(sampling=RULES[rule], fit=FITS[rule], size=SIZE)  # type: ignore[arg-type]


def by_reader(path: Path, rule: str) -> ClipFrames:
    """The reader, in this process."""
    return read_clip(str(path), plan(rule))


def by_seeking(path: Path, rule: str) -> ClipFrames:
    """The reader that takes every clip for a long one, and every seek for worth its while."""
    with _eager_seeking():
        return read_clip(str(path), plan(rule))


@contextmanager
def _eager_seeking() -> Iterator[None]:
    kept = seeking.LONG_FRAMES, seeking.LARGEST_SHARE
    seeking.LONG_FRAMES, seeking.LARGEST_SHARE = 1, 1e9
    try:
        yield
    finally:
        seeking.LONG_FRAMES, seeking.LARGEST_SHARE = kept


class Children:
    """Decoder processes, one per rule, each started when there is work for it."""

    def __init__(self) -> None:
        self._pools: dict[str, DecoderPool] = {}

    def read(self, path: Path, rule: str) -> ClipFrames:
        """The reader in a process of its own; the frames are copied out of the shared memory."""
        if rule not in self._pools:
            self._pools[rule] = DecoderPool(plan(rule), processes=1)
        lent = self._pools[rule].submit(str(path), path.stat().st_size).result()
        values = {f.name: getattr(lent, f.name) for f in fields(lent) if f.name != "release"}
        copy = ClipFrames(**values | {"frames": lent.frames.copy()})
        lent.release()
        return copy

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


@dataclass(kw_only=True)
class _Recorder:
    """A backbone that keeps the pictures it is given."""

    batch: int = 16
    size: int = SIZE
    name: str = "recorder"
    engine: str = "none"
    shape: tuple[int, ...] = (1,)
    concurrency: int = 1
    whole_clips: bool = True
    software: dict[str, str] = field(default_factory=dict)
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.pictures.extend(frames.copy())
        return np.zeros((len(frames), 1), np.float32)


def by_timeline(path: Path) -> tuple[list[NDArray[np.uint8]], Timeline]:
    """Every frame of the clip as the timeline takes it, one to a window, and the timeline."""
    sampling = Sampling(rule="first", steps=1)
    spec = Spec(sampling=sampling, size=SIZE, shape=(1,), fit="pad", aspect="display")
    head: Any = SimpleNamespace(
        spec=spec.to_dict(),
        classes=["any"],
        steps=1,
        shape=(1,),
        folder=Path("run"),
        first_stage={},
        predict=lambda features, mask: np.ones((len(features), 1), np.float32),
    )
    recorder = _Recorder()
    made = make_timeline(head, recorder, str(path), hop=1, smooth=1, cuts=False)
    return recorder.pictures, made
