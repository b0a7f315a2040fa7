"""Under JAX the recurrences are a scan: Keras' numbers, compiled once whatever the clip's length."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Runs under JAX: parity with Keras' own layers by the tests of `test_recurrent`, the number of
# operations in one gradient at two lengths, and what the compilation cache was asked for.
_CODE = """
import json, sys
import jax
from jax._src import monitoring
asked = {"compile_requests_use_cache": 0, "cache_hits": 0}
def count(event, **_):
    name = event.rsplit("/", 1)[-1]
    if name in asked:
        asked[name] += 1
monitoring.register_event_listener(count)

from pipeline import engine
engine.prepare()
import numpy as np
from pipeline.heads.recurrence import lstm_states
from pipeline.heads.recurrent import GRU, LSTM
from tests.heads import test_recurrent as same

if "parity" in sys.argv:
    for ours, theirs in same.PAIRS:
        for options in same.OPTIONS:
            same.test_outputs_and_gradients_equal_keras(ours, theirs, options)
        same.test_bfloat16_stays_near_float32(ours, theirs)

def operations(steps):
    def loss(x, w, real):
        return lstm_states(x, w, real, training=True).sum()
    x, w = np.zeros((steps, 2, 12), "f4"), np.zeros((3, 12), "f4")
    text = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, w, np.ones((steps, 2, 1), "f4")))
    return text.count("\\n")

def slow(x):
    for _ in range(200):
        x = jax.numpy.sin(x) @ x
    return x
jax.jit(slow)(np.eye(3, dtype="f4")).block_until_ready()
print(json.dumps({"operations": [operations(7), operations(40)], **asked}))
"""

# Two epochs with a running average of the weights, which is validated between them; what of it is kept.
_AVERAGED = """
import json
import numpy as np
from pipeline import engine
engine.prepare()
from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.fitting import fit_single
from pipeline.heads.plan import make_splits, resolve
from tests.heads.sources import rising_or_falling

clips = load_clips(rising_or_falling())
options = {"units": 4, "second_units": 4}
asked = TrainConfig(head="mlp", options=options, epochs=2, weight_averaging=0.5, stopping="fixed")
splits = make_splits(clips, asked)
model = fit_single(clips, splits[0], resolve(asked, splits)).fit.model
averages = model.optimizer._model_variables_moving_average
pairs = zip(model.trainable_variables, averages, strict=True)
print(json.dumps({"apart": max(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs)}))
"""

# Some of the convolutions' tests; Dropout's mask beside Keras' own; along how many axes a layer draws its
# random numbers; a step whose options for XLA are unknown to it.
_CONVOLVED = """
import json, re
import jax
from pipeline import engine, engine_jax
engine.prepare()
import numpy as np
from pipeline.heads.compiling import compile_head
from pipeline.heads.dropout import Dropout
from pipeline.heads.lean import keras
from pipeline.heads.zoo import build_head
from tests.heads import test_convolutional as same

for layers in (same.LAYERS[1], same.LAYERS[3], same.LAYERS[5]):
    same.test_outputs_and_gradients_equal_keras(*layers)
for options in (*same.POOLS, *same.POOLS_OF_STEPS):
    same.test_a_pooling_and_its_gradient_are_keras_own_among_equal_values(options)

frames = np.ones((2, 3, 4, 5, 6), "f4")
masks = [kind(0.5, seed=7)(frames, training=True) for kind in (Dropout, keras.layers.Dropout)]
equal = bool((np.asarray(masks[0]) == np.asarray(masks[1])).all() and 0 < np.mean(masks[0]) < 2)

drawing = (Dropout(0.5, seed=7), same.ConvLSTM2D(2, 3, recurrent_dropout=0.5, seed=1))
for layer in drawing:
    layer(frames)
def drawn(layer):
    def call(state, x):
        return layer.stateless_call(weights, state, x, training=True)
    weights, state = (
        [variable.value for variable in variables]
        for variables in (layer.trainable_variables, layer.non_trainable_variables)
    )
    text = str(jax.make_jaxpr(call)(state, frames))
    shapes = re.findall(r"random_bits\\[[^]]*?shape=\\(([^)]*)\\)", text, re.S)
    return [len([n for n in shape.split(",") if n.strip()]) for shape in shapes]

model = build_head("mlp", 3, (4,), 2, {"units": 4, "second_units": 4})
batch = {"features": np.ones((2, 3, 4), "f4"), "mask": np.ones((2, 3), bool)}
losses = []
for options in (engine_jax.SOONER, {"xla_no_such_option": True}):
    engine_jax.SOONER = options
    compile_head(model, 0.0)
    losses.append(float(model.train_on_batch(batch, np.eye(2, dtype="f4"), return_dict=True)["loss"]))
print(json.dumps({"equal": equal, "axes": [drawn(layer) for layer in drawing], "losses": losses}))
"""


def under_jax(cache: Path, *words: str, code: str = _CODE) -> dict:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed here: its recurrences cannot be run")
    given = {"KERAS_BACKEND": "jax", "PIXELS_ONCE_CACHE": str(cache), "JAX_PLATFORMS": "cpu"}
    around = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | given
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=around,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.long
def test_under_jax_it_is_keras_own_and_a_second_run_compiles_nothing(tmp_path: Path) -> None:
    first = under_jax(tmp_path, "parity")
    assert first["operations"][0] == first["operations"][1]
    assert first["compile_requests_use_cache"] > 0
    assert list((tmp_path / "jax").rglob("*-cache"))
    second = under_jax(tmp_path)
    assert second["cache_hits"] > 0


@pytest.mark.long
def test_under_jax_a_running_average_of_the_weights_outlives_its_validation(tmp_path: Path) -> None:
    assert under_jax(tmp_path, code=_AVERAGED)["apart"] == 0


@pytest.mark.long
def test_under_jax_the_convolutions_are_keras_own_and_draw_along_one_axis(tmp_path: Path) -> None:
    found = under_jax(tmp_path, code=_CONVOLVED)
    assert found["equal"]
    # Along several, XLA compiles a mask over pixels and filters for seconds.
    assert found["axes"] == [[1], [1]]
    assert all(loss > 0 for loss in found["losses"])
