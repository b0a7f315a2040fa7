"""Real clips through the real first stage, against a reference as plain as it can be written.

Skipped where the shared clips and weights are not beside the repository.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from pipeline import engine
from pipeline.features import backbones
from pipeline.features.backbones import LoadOptions, Weights, resolve_weights
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding.values import FramePlan
from pipeline.features.extraction import ClipResult, ClipSource, Extractor
from pipeline.spec import Precision, Spec
from tests.sharing import THOROUGH

SHARED = Path(os.environ.get("PIXELS_ONCE_SHARED") or Path(__file__).parents[3] / "shared")
WEIGHTS = SHARED / "weights" / "inception_v3_notop.weights.h5"
CLIPS = [
    next(iter(sorted((SHARED / "clips" / folder).glob("*"))), SHARED)
    for folder in ("fight/Fight", "fight/NoFight", "tennis/TennisServe")
]
REFERRED = CLIPS if os.environ.get(THOROUGH) else CLIPS[:1]
"""The clips that are held against the reference, which takes ten times as long as what it is for."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WEIGHTS.is_file(), reason="the shared clips and weights are not here"),
]


class Reference(NamedTuple):
    """One clip read the plain way: every frame decoded, the formula's taken, cropped, predicted."""

    indices: list[int]
    times: np.ndarray
    features: np.ndarray


def all_frames(path: Path) -> tuple[list[np.ndarray], list[float]]:
    capture = cv2.VideoCapture(str(path))
    frames, times = [], []
    while True:
        more, frame = capture.read()
        if not more:
            return frames, times
        frames.append(frame)
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)


def cropped(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = frame[top : top + side, left : left + side]
    shrinks = side >= 299
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.cvtColor(cv2.resize(square, (299, 299), interpolation=method), cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="module")
def references() -> list[Reference]:
    engine.prepare()
    import keras

    model = keras.applications.InceptionV3(
        include_top=False, weights=str(WEIGHTS), pooling="avg", input_shape=(299, 299, 3)
    )
    made = []
    for path in REFERRED:
        frames, times = all_frames(path)
        count = len(frames)
        indices = (
            list(range(count)) if count <= 40 else [int((k + 0.5) * count / 40) for k in range(40)]
        )
        pictures = np.stack([cropped(frames[i]) for i in indices]).astype(np.float32)
        features = model.predict(pictures / 127.5 - 1, batch_size=20, verbose=0)
        made.append(Reference(indices, np.array(times)[indices] - times[0], features))
    return made


@pytest.fixture(scope="module")
def weights() -> Weights:
    return resolve_weights(str(WEIGHTS), "inception_v3")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


class Stage(NamedTuple):
    spec: Spec
    extractor: Extractor


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, marks=[pytest.mark.long] if each != "float32" else [])
        for each in engine.precisions()
    ],
)
def stage(request: pytest.FixtureRequest, weights: Weights, cache: Path) -> Iterator[Stage]:
    precision: Precision = request.param
    spec = Spec(weights=weights.hash, precision=precision)
    backbone = backbones.load(spec, weights, LoadOptions(cache=cache))
    with DecoderPool(FramePlan.of(spec)) as pool, Extractor(spec, backbone, pool) as extractor:
        yield Stage(spec, extractor)


def sources(paths: list[Path]) -> list[ClipSource]:
    return [ClipSource(path=str(path), size_bytes=path.stat().st_size) for path in paths]


def valid(result: ClipResult) -> np.ndarray:
    assert result.features is not None
    return result.features[result.mask].astype(np.float64)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_stored_features_equal_a_plain_reference(stage: Stage, references: list[Reference]) -> None:
    results = stage.extractor.extract(sources(REFERRED))
    every = []
    for result, reference in zip(results, references, strict=True):
        count = len(reference.indices)
        assert result.status == "ready"
        assert result.mask.tolist() == [True] * count + [False] * (40 - count)
        assert result.frame_index[:count].tolist() == reference.indices
        np.testing.assert_allclose(result.timestamp[:count], reference.times, atol=1e-3)
        every.append(cosines(valid(result), reference.features))
    cosine = np.concatenate(every)
    print(f"{stage.spec.precision}: cosine {cosine.min():.6f} at worst, {cosine.mean():.6f} mean")
    if stage.spec.precision == "float32":
        assert cosine.min() >= 0.9999
    assert cosine.min() >= 0.998
    assert cosine.mean() >= 0.999


@pytest.mark.long
def test_order_company_and_caller_change_no_bit(stage: Stage) -> None:
    together = stage.extractor.extract(sources(CLIPS))
    with ThreadPoolExecutor(2) as callers:
        alone = list(callers.map(stage.extractor.extract, [sources([p]) for p in CLIPS[::-1]]))
    for result, (single,) in zip(together, alone[::-1], strict=True):
        np.testing.assert_array_equal(result.features, single.features)
        np.testing.assert_array_equal(result.frame_index, single.frame_index)


@pytest.mark.long
def test_a_mirrored_view_is_the_mirrored_picture(
    stage: Stage, weights: Weights, cache: Path
) -> None:
    if stage.spec.precision != "float32":
        pytest.skip("shown at float32")
    spec = Spec(weights=weights.hash, view="mirror")
    backbone = backbones.load(spec, weights, LoadOptions(cache=cache))
    path = CLIPS[0]
    with DecoderPool(FramePlan.of(spec)) as pool, Extractor(spec, backbone, pool) as extractor:
        (result,) = extractor.extract(sources([path]))
    frames, _ = all_frames(path)
    picture = cropped(frames[result.frame_index[0]])[:, ::-1]
    expected = backbone(np.ascontiguousarray(picture)[None])[0]
    np.testing.assert_allclose(valid(result)[0], expected, rtol=2e-3, atol=1e-4)


@pytest.mark.long
def test_a_run_told_to_stop_ends_without_its_unread_clips(stage: Stage) -> None:
    stop = threading.Event()
    paths = sorted((SHARED / "clips" / "tennis").glob("*/*"))[:40]
    ready = []

    def first(result: ClipResult) -> None:
        ready.append(result.index)
        stop.set()

    results = stage.extractor.extract(sources(paths), on_clip=first, stop=stop)
    states = [result.status for result in results]
    assert 1 <= states.count("ready") < 10
    assert states.count("ready") + states.count("stopped") == len(paths)
