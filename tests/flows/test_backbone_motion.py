"""`features --backbone motion`: its spec, and what the store says of its numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import store
from flows.extract.request import stage_of
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError
from pipeline.features.backbones.motion_channels import CHANNELS
from tests.flows import running


def test_whole_frames_in_pairs_and_no_other_fit() -> None:
    spec, stage, weights = stage_of(FeaturesSettings(backbone="motion", videos="clips"), None)
    assert (spec.fit, spec.window, spec.gap_s, spec.size) == ("whole", 2, 0.1, 192)
    assert (spec.shape, spec.dtype, spec.precision) == ((261,), "float16", "float32")
    assert (weights.hash, stage.weights) == ("none", "")
    # For ever: stores of this version must be resumed by later ones.
    assert spec.fingerprint == "195976bd530eaf463b13a00c63761d0869ce57865fa9ddfa9138c3dc316a60f2"
    with pytest.raises(ConfigError, match="motion reads whole frames"):
        stage_of(FeaturesSettings(backbone="motion", videos="clips", fit="squash"), None)


def test_other_backbones_are_fitted_as_before() -> None:
    asked = FeaturesSettings(backbone="frames", videos="clips")
    crop = FeaturesSettings(backbone="frames", videos="clips", fit="crop")
    assert stage_of(asked, None)[0] == stage_of(crop, None)[0]
    assert stage_of(crop, None)[0].fit == "crop"


@pytest.mark.long
def test_a_store_names_its_channels_and_two_workers_make_the_same(
    prefect_api: str, clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    words = ("features", "--videos", "clips", "--backbone", "motion", "--frames", "6", "--json")
    for name, more in (("one", ("--batch", "12")), ("two", ("--batch", "4", "--workers", "2"))):
        made = running.run(*words, "--store", f"{name}.zarr", *more, cwd=tmp_path)
        assert made.status == 0, made.err
        assert made.json["ready"] == 12
    one, two = (store.open(str(tmp_path / f"{name}.zarr")) for name in ("one", "two"))
    assert one.attributes["channels"] == list(CHANNELS)
    assert one.shape == (261,)
    assert one.software["opencv-python-headless"]
    assert one.table()["video_id"].tolist() == two.table()["video_id"].tolist()
    np.testing.assert_array_equal(one.load().features, two.load().features)
    assert np.ptp(one.load().features.astype(float), axis=(0, 1)).max() > 0
