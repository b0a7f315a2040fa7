"""InceptionV3 as a model of one's own is the built-in one: the real weights, real clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.features.backbones import model_onnxruntime, openvino_engine
from tests.flows.running import CLIPS

WEIGHTS = CLIPS.parent / "weights" / "inception_v3_notop.weights.h5"

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not WEIGHTS.exists(), reason="there are no real weights (PIXELS_ONCE_SHARED)"
    ),
    pytest.mark.skipif(not CLIPS.exists(), reason="there are no real clips (PIXELS_ONCE_SHARED)"),
    pytest.mark.skipif(not openvino_engine.available(), reason="openvino is not installed"),
    pytest.mark.skipif(not model_onnxruntime.available(), reason="onnx is not installed"),
]


def test_every_step_of_ten_real_clips_has_the_same_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.own_inception import TOML, compared, write_inception
    from pipeline.features.catalog import discover

    monkeypatch.setenv("PIXELS_ONCE_CACHE", str(tmp_path / "cache"))
    assert len(TOML.splitlines()) == 4
    write_inception(str(WEIGHTS), tmp_path / "inception.onnx")
    paths = [
        p for part in ("fight", "tennis") for p in discover(str(CLIPS / part))["path"][::24][:5]
    ]
    report = compared(tmp_path / "inception.onnx", str(WEIGHTS), paths)
    assert (report["clips"], report["steps"] > 300) == (10, True)
    assert report["least_cosine"] >= 0.9999
