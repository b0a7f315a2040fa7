"""What a head says of clips: in order, and nothing where its probabilities are not numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from pipeline.features.extraction import ClipSource
from pipeline.predict.prediction import predict_clips


def test_probabilities_that_are_not_numbers_name_no_class() -> None:
    def extract(clips: list[ClipSource]) -> list[Any]:
        mask = np.array([True, True, False])
        values = {"a": 0.0, "b": np.nan, "c": 1.0}
        return [
            SimpleNamespace(
                features=np.full((3, 2), values[clip.path], np.float32),
                mask=mask,
                reason="",
                detail="",
            )
            for clip in clips
        ]

    def predict(features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        first = features[:, 0, 0]
        return np.stack([first, 1 - first], axis=1).astype(np.float32)

    run: Any = SimpleNamespace(predict=predict, classes=["no", "yes"])
    stage: Any = SimpleNamespace(extractor=SimpleNamespace(extract=extract))
    sources = [ClipSource(path=path, size_bytes=1) for path in "abc"]
    found = list(predict_clips(run, stage, sources))
    assert [one.labels[:1] for one in found] == [("yes",), (), ("no",)]
    assert (found[1].reason, found[1].steps) == ("not_finite", 2)
    assert "not numbers" in found[1].detail
