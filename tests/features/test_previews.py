"""Small pictures of a clip: three moments of it, small, right way round, never too many bytes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.features.previews import LARGEST_BYTES, jpeg, preview_pictures
from store.layout import PREVIEW_BYTES, PREVIEWS_PER_CLIP


def decoded(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)


def grey(count: int) -> np.ndarray:
    frames = np.zeros((count, 299, 299, 3), np.uint8)
    frames += np.linspace(0, 250, count).astype(np.uint8)[:, None, None, None]
    return frames


@pytest.mark.parametrize(
    ("count", "wanted"), [(40, [6, 20, 33]), (3, [0, 1, 2]), (2, [0, 1]), (1, [0])]
)
def test_the_pictures_are_the_middles_of_the_thirds(count: int, wanted: list[int]) -> None:
    frames = grey(count)
    shown = [int(decoded(data)[64, 64, 0]) for data in preview_pictures(frames)]
    assert shown == pytest.approx([int(frames[place, 0, 0, 0]) for place in wanted], abs=2)


def test_colours_and_sides_stay_what_they_are() -> None:
    frame = np.zeros((299, 299, 3), np.uint8)
    frame[:, :150] = (220, 30, 30)
    frame[:, 150:] = (30, 30, 220)
    picture = decoded(jpeg(frame))
    assert picture.shape == (128, 128, 3)
    assert picture[64, 20].tolist() == pytest.approx([220, 30, 30], abs=12)
    assert picture[64, 110].tolist() == pytest.approx([30, 30, 220], abs=12)


def test_noise_too_fits_into_its_place_in_the_store() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (299, 299, 3), dtype=np.uint8)
    small = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    for frame in (noise, small):
        assert 0 < len(jpeg(frame)) <= LARGEST_BYTES == PREVIEW_BYTES
    assert len(preview_pictures(grey(40))) == PREVIEWS_PER_CLIP


def test_a_small_frame_is_not_blown_up() -> None:
    assert decoded(jpeg(np.full((64, 64, 3), 90, np.uint8))).shape == (64, 64, 3)
