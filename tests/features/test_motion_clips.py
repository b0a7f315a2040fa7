"""Whole clips through the `motion` backbone: finite, alike in any company, mirrored where asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.features.backbones.motion_channels import mirrored
from pipeline.features.extraction import ClipSource
from pipeline.features.sequences import ClipResult
from pipeline.features.stage import FirstStage, Stage
from pipeline.spec import Sampling
from tests.features.clips import write_pictures
from tests.features.moving import STILL, painted, turn
from tests.features.test_backbones_motion import (
    motion_spec,
    read,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    turning = [painted(STILL, turn(0.05 * i), 90, 160) for i in range(30)]
    kinds = {
        "turning": turning,
        "one": turning[:1],
        "two": turning[:2],
        "black": [np.zeros((90, 160, 3), np.uint8)] * 20,
        "narrow": [painted(STILL, turn(0.05 * i), 400, 34) for i in range(20)],
    }
    # FFV1 takes odd sides and loses nothing.
    kinds["odd"] = [picture[:-1, :-1] for picture in turning[:20]]
    return {
        name: write_pictures(folder / f"{name}.mkv", pictures, codec="ffv1", pix_fmt="bgr0")
        for name, pictures in kinds.items()
    }


@pytest.fixture(scope="module")
def first_stage() -> Iterator[FirstStage]:
    spec = motion_spec(sampling=Sampling(steps=12))
    with FirstStage.load(Stage(spec=spec.to_dict(), weights="", previews=True), threads=2) as stage:
        yield stage


def extracted(first_stage: FirstStage, *paths: Path) -> list[ClipResult]:
    return first_stage.extractor.extract([ClipSource(path=str(path)) for path in paths])


def test_clips_of_every_kind_give_finite_sequences(
    first_stage: FirstStage, clips: dict[str, Path]
) -> None:
    results = dict(zip(clips, extracted(first_stage, *clips.values()), strict=True))
    for name, result in results.items():
        assert result.status == "ready", (name, result)
        assert result.features is not None
        assert np.isfinite(result.features).all()
        count = int(result.mask.sum())
        assert not result.features[count:].any()
        # No sum of squares is below 1, so that no step of a clip looks like padding.
        assert (result.features[:count].astype(float) ** 2).sum(1).min() > 0.99
        assert len(result.previews) == min(3, count if name != "two" else 2)
    assert {name for name, r in results.items() if r.reason == "short_window"} == {"one", "two"}
    assert results["one"].mask.sum() == 1
    assert results["two"].frame_index[:2].tolist() == [0, 1]
    assert read(np.float32(results["turning"].features), "curl") > 0.004
    for name in ("one", "black"):
        assert read(np.float32(results[name].features[:1]), "speed_mean") == 0


def test_other_clips_of_a_batch_do_not_change_a_bit(
    first_stage: FirstStage, clips: dict[str, Path]
) -> None:
    together = extracted(first_stage, *clips.values(), *clips.values())
    alone = [extracted(first_stage, path)[0] for path in clips.values()]
    for number, one in enumerate(alone):
        for other in (together[number], together[number + len(alone)]):
            np.testing.assert_array_equal(one.features, other.features)


def test_the_mirror_view_of_a_clip_has_the_mirrored_vector(clips: dict[str, Path]) -> None:
    vectors = {}
    for view in ("plain", "mirror"):
        spec = motion_spec(sampling=Sampling(steps=12), view=view, dtype="float32")
        with FirstStage.load(Stage(spec=spec.to_dict(), weights=""), threads=1) as stage:
            vectors[view] = extracted(stage, clips["turning"])[0].features
    plain, mirror = vectors["plain"], vectors["mirror"]
    assert plain is not None
    assert mirror is not None
    np.testing.assert_allclose(mirror.mean(0), mirrored(plain).mean(0), atol=0.06)
    assert read(plain, "curl") > 0.004
    assert read(mirror, "curl") < -0.004
