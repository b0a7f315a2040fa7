"""A device's callers are measured once and kept; where its memory is full, batches are halved."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline import engine
from pipeline.features.backbones import keras_engine as callers
from pipeline.features.backbones.keras_engine import KerasBackbone
from tests.features.extraction_fakes import SIZE, feature_of, small_spec


class OutOfMemory(Exception):
    pass


def backbone_with_room(room: int, batch: int = 8) -> tuple[KerasBackbone, list[int]]:
    """A backbone on a device with room for so many frames, and the batches it was compiled for."""
    compiled: list[int] = []

    def compile_for(frames: int):
        compiled.append(frames)

        def function(pixels: np.ndarray) -> np.ndarray:
            assert len(pixels) == frames
            if frames > room:
                raise OutOfMemory("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
            return feature_of(pixels)

        return function

    return KerasBackbone(small_spec(), compile_for, batch=batch), compiled


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("count", [1, 3, 5, 8])
def test_a_full_memory_halves_the_batch_and_the_features_stay(count: int) -> None:
    backbone, compiled = backbone_with_room(room=3)
    frames = pixels(count)
    np.testing.assert_array_equal(backbone(frames), feature_of(frames))
    assert compiled == [8, 4, 2]
    backbone(frames)
    assert (backbone.batch, backbone.step, compiled) == (8, 2, [8, 4, 2])


def test_callers_at_once_halve_once() -> None:
    backbone, compiled = backbone_with_room(room=4)
    frames = pixels(8)
    wrong: list[int] = []

    def call(number: int) -> None:
        if not np.array_equal(backbone(frames), feature_of(frames)):
            wrong.append(number)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert compiled == [8, 4]


def test_another_error_and_a_memory_too_small_for_one_frame_are_raised() -> None:
    backbone, _ = backbone_with_room(room=0)
    with pytest.raises(OutOfMemory):
        backbone(pixels(2))
    assert not engine.is_out_of_memory(ValueError("shapes differ"))


def test_callers_are_measured_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, _ = backbone_with_room(room=8)
    asked: list[int] = []

    def measured(of: object, count: int) -> float:
        asked.append(count)
        return {1: 50.0, 2: 97.0, 3: 100.0, 4: 98.0}[count]

    monkeypatch.setattr(callers, "rate", measured)
    monkeypatch.setattr(engine, "device_name", lambda: "a card")
    assert callers.best_callers(backbone, precision="float32", cache=tmp_path) == 2
    count = len(asked)
    assert callers.best_callers(backbone, precision="float32", cache=tmp_path) == 2
    assert len(asked) == count
    # Another precision, or another device, is another measurement; a broken file is none.
    callers.best_callers(backbone, precision="bfloat16", cache=tmp_path)
    assert len(asked) == 2 * count
    for file in (tmp_path / "callers").iterdir():
        file.write_text("not json")
    assert callers.best_callers(backbone, precision="float32", cache=tmp_path) == 2


def test_a_rate_counts_the_frames_of_all_callers() -> None:
    backbone, _ = backbone_with_room(room=8)
    assert callers.rate(backbone, 2, seconds=0.05) > 0
