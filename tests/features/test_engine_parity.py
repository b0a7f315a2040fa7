"""The engines agree: JAX and OpenVINO on the same frames, JAX on one array and on blocks."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.features.decoding import FramePlan
from pipeline.features.decoding.reading import read_clip
from pipeline.spec import Spec

SHARED = Path(os.environ.get("PIXELS_ONCE_SHARED") or Path(__file__).parents[3] / "shared")
WEIGHTS = SHARED / "weights" / "inception_v3_notop.weights.h5"
CLIPS = SHARED / "clips" / "tennis"

_CODE = """
import json, sys
import numpy as np
from pipeline.features import backbones
from pipeline.features.backbones import resolve_weights
from pipeline.spec import Spec

frames_file, weights, engine, out = sys.argv[1:]
given = resolve_weights(weights, "inception_v3")
spec = Spec(weights=given.hash, precision="float32")
cnn = backbones.load(spec, given, backbones.LoadOptions(engine=engine, batch=16))
frames = np.load(frames_file)
features = np.concatenate([cnn(frames[at : at + 16]) for at in range(0, len(frames), 16)])
facts = {"engine": cnn.engine, "tensorflow": "tensorflow" in sys.modules}
if engine == "keras":
    import jax

    cnn.block = 4
    step, function = cnn._ready
    given = []

    def watched(inputs):
        given.append(isinstance(inputs, jax.Array))
        return function(inputs)

    apart = [np.array(frames[at : at + 4]) for at in (12, 0, 8, 4)]
    whole = cnn(np.concatenate(apart))
    cnn._ready = step, watched
    facts["blocks_equal"] = bool(np.array_equal(cnn.features_of_blocks(apart), whole))
    facts["on_device"] = given

    def full(inputs):
        if isinstance(inputs, jax.Array):
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return function(inputs)

    cnn._ready = step, full
    facts["full_equal"] = bool(np.array_equal(cnn.features_of_blocks(apart), whole))
np.save(out, features)
print(json.dumps(facts))
"""


def features_by(engine: str, frames: Path, weights: str, out: Path) -> tuple[np.ndarray, dict]:
    around = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if engine == "keras":
        around["KERAS_BACKEND"] = "jax"
    command = [sys.executable, "-c", _CODE, str(frames), weights, engine, str(out)]
    done = subprocess.run(command, env=around, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(out), json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed here")
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is missing here")
def test_jax_and_openvino_agree_in_float32(tmp_path: Path) -> None:
    if not WEIGHTS.exists():
        pytest.skip("the real InceptionV3 weights are not here")
    clips = sorted(CLIPS.rglob("*.mp4"))[::60][:4]
    if not clips:
        pytest.skip("the real clips are not here")
    plan = FramePlan.of(Spec())
    frames = np.concatenate([read_clip(str(clip), plan).frames[:16] for clip in clips])
    np.save(tmp_path / "frames.npy", frames)
    jax, its = features_by("keras", tmp_path / "frames.npy", str(WEIGHTS), tmp_path / "jax.npy")
    openvino, _ = features_by(
        "openvino", tmp_path / "frames.npy", str(WEIGHTS), tmp_path / "openvino.npy"
    )
    assert its["engine"] == "jax"
    assert its["blocks_equal"]
    assert its["on_device"] == [True], "blocks go to the device as they are, and stay there"
    assert its["full_equal"], "a device without room for them takes the batch as ever"
    assert jax.shape == openvino.shape == (len(frames), 2048)
    lengths = np.linalg.norm(jax, axis=1) * np.linalg.norm(openvino, axis=1)
    cosine = (jax * openvino).sum(1) / lengths
    assert cosine.min() >= 0.9999, cosine.min()
    assert np.ptp(jax, axis=0).max() > 0.1, "the frames differ, and so do their features"
