"""What the engine module says without importing a backend, and what it compiles with one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import engine
from pipeline.errors import ConfigError


def run(code: str, **environment: str) -> str:
    import os

    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not answer.stderr, answer.stderr
    return answer.stdout.strip()


def test_planning_questions_import_no_backend() -> None:
    code = (
        "import sys; from pipeline import engine; engine.auto_precision(); engine.backend_name();"
        "engine.device_hint(); engine.software(); engine.cores();"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    assert run(code) == "[]"


@pytest.mark.long
def test_prepare_is_quiet_and_can_be_called_twice_and_late() -> None:
    code = (
        "from pipeline import engine; engine.prepare(threads=1);"
        "import tensorflow as tf; tf.constant(1) + 1;"
        "engine.prepare(threads=1); engine.prepare(threads=2);"
        "print(tf.config.threading.get_intra_op_parallelism_threads(), engine.device())"
    )
    assert run(code).startswith("1 ")


@pytest.mark.parametrize(
    ("flags", "capability", "expected"),
    [
        ({"avx512f"}, 0.0, "float32"),
        ({"avx512f", "avx512_bf16"}, 0.0, "bfloat16"),
        ({"amx_bf16"}, 0.0, "bfloat16"),
        ({"avx512_bf16"}, 7.5, "float16"),
        (set(), 9.0, "bfloat16"),
        (set(), 6.1, "float32"),
    ],
)
def test_auto_precision_is_what_the_hardware_is_good_at(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], capability: float, expected: str
) -> None:
    monkeypatch.setattr(engine, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(engine, "gpu_capability", lambda: capability)
    assert engine.auto_precision() == expected
    assert "float32" in engine.precisions()


def test_a_hidden_gpu_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_ask_driver", lambda: 9.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert engine.device_hint() == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert engine.device_hint() == "gpu"


def test_the_backend_is_found_as_keras_finds_it(tmp_path: Path) -> None:
    code = "from pipeline import engine; print(engine.backend_name())"
    assert run(code, KERAS_BACKEND="jax") == "jax"
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    assert run(code, KERAS_BACKEND="", KERAS_HOME=str(tmp_path)) == "torch"
    (tmp_path / "keras.json").write_text("not json")
    assert run(code, KERAS_BACKEND="", KERAS_HOME=str(tmp_path)) == "tensorflow"


def test_a_compiled_model_gives_what_the_model_gives() -> None:
    import keras

    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    inputs = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    function = engine.compiled(model, (4, 5))
    expected = keras.ops.convert_to_numpy(model(inputs))
    np.testing.assert_allclose(function(inputs), expected, rtol=1e-5)


def test_an_unknown_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "backend_name", lambda: "caffe")
    with pytest.raises(ConfigError, match="'caffe'"):
        engine.compiled(None, (1,))


def test_a_backend_that_is_unknown_or_absent_is_said_before_keras_is_imported() -> None:
    code = (
        "import sys; from pipeline import engine\n"
        "try: engine.prepare()\n"
        "except ValueError as error: print(error, 'keras' in sys.modules)"
    )
    said = "Keras' backend is 'theano': set KERAS_BACKEND to tensorflow, jax or torch False"
    assert run(code, KERAS_BACKEND="theano") == said
