"""A run's seed decides every random choice, and no process-wide generator decides any."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.heads.compiling import compile_head
from pipeline.heads.config import TrainConfig
from pipeline.heads.lean import keras
from pipeline.heads.seeds import derived_seed
from pipeline.heads.training import train
from pipeline.heads.zoo import build_head
from tests.heads.sources import rising_or_falling
from tests.heads.test_zoo import CASES, SHAPES, SMALL, clips, compiled, targets

DRAWS = False
ROOT = Path(__file__).parents[2]


@contextmanager
def drawing_all_the_time() -> Iterator[None]:
    """A thread that draws from Python's and NumPy's generators, as Prefect's and Dask's do."""
    over = threading.Event()

    def draw() -> None:
        # Often, but not without a breath: it would hold the interpreter's lock.
        while not over.wait(0.0005):
            random.random()
            np.random.random()

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def built(name: str, reads: str, seed: int = 3) -> Any:
    return build_head(name, 5, SHAPES[reads], 4, SMALL.get(name, {}), seed=seed)


def after_one_step(model: Any, reads: str) -> Any:
    """The head after one training step."""
    features, mask = clips(reads, 5)
    compiled(model.name, model).train_on_batch(
        {"features": features, "mask": mask}, targets(model.name, mask)
    )
    return model


def assert_equal_bits(one: Any, other: Any) -> None:
    """Every variable is equal, the states of the dropouts too."""
    for ours, theirs in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.fixture
def no_process_wide_draws(monkeypatch) -> Iterator[None]:
    """Whoever draws from Python's generator fails at once, from NumPy's at the end."""

    def refuse(*_: object) -> None:
        raise AssertionError("a number was drawn from Python's process-wide generator")

    keras.utils.set_random_seed(12345)
    for function in ("random", "randint", "randrange", "getrandbits", "uniform", "choice"):
        monkeypatch.setattr(random, function, refuse)
    state = np.random.get_state()[1].copy()
    yield
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(("name", "reads"), CASES)
def test_building_a_head_draws_nothing_from_a_process_wide_generator(
    name, reads, no_process_wide_draws
):
    assert_equal_bits(built(name, reads), built(name, reads))


@pytest.mark.long
@pytest.mark.parametrize(("name", "reads"), CASES)
def test_nor_does_training_any(name, reads, no_process_wide_draws):
    first, second = (after_one_step(built(name, reads), reads) for _ in range(2))
    assert_equal_bits(first, second)


@pytest.mark.parametrize(("name", "reads"), CASES)
def test_no_two_weights_or_dropouts_of_a_head_start_alike(name, reads):
    model, other = built(name, reads), built(name, reads, seed=4)
    drawn = [np.asarray(w) for w in model.weights if np.unique(np.asarray(w)).size > 2]
    for one, two in itertools.combinations(drawn, 2):
        assert one.shape != two.shape or not np.array_equal(one, two)
    seeds = [
        layer.seed_generator._initial_seed
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Dropout) and layer.rate
    ]
    assert None not in seeds
    assert len(set(seeds)) == len(seeds)
    again = [np.asarray(w) for w in other.weights if np.unique(np.asarray(w)).size > 2]
    assert drawn
    for one, two in zip(drawn, again, strict=True):
        assert not np.array_equal(one, two)


def test_wide_recurrences_too_start_from_the_seed_alone():
    wide = {"units": 1024, "dense": 2}
    models = [build_head("lstm", 2, (3,), 2, wide, seed=seed) for seed in (1, 1, 2)]
    first, same, other = ([np.asarray(w) for w in model.weights] for model in models)
    for one, two in zip(first, same, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[1], other[1])


def test_a_derived_seed_is_a_value_for_ever():
    assert derived_seed(0, "lstm", "dense", "seed") == 354629033
    assert derived_seed(1, "lstm") != derived_seed(0, "lstm") != derived_seed(0, "gru")
    assert derived_seed(0, "a", "b") != derived_seed(0, "ab")
    assert 0 <= derived_seed(10**30, "x") < 2**31


@pytest.mark.long
def test_a_training_beside_a_thread_that_draws_gives_the_same_bits(tmp_path):
    source = rising_or_falling()
    config = TrainConfig(
        head="gru",
        options={"preset": "standard"},
        epochs=2,
        feature_dropout=0.1,
        step_jitter=1,
        baselines=False,
    )
    train(source, config, tmp_path / "quiet")
    with drawing_all_the_time():
        train(source, config, tmp_path / "beside")
    models = [
        keras.saving.load_model(tmp_path / name / "model.keras") for name in ("quiet", "beside")
    ]
    assert_equal_bits(*models)
    ours, theirs = (
        (tmp_path / name / "predictions.csv").read_bytes() for name in ("quiet", "beside")
    )
    assert ours == theirs


def test_a_training_step_reports_its_own_batch_and_not_those_before():
    model = build_head("mlp", 5, (10,), 4, {"units": 8, "second_units": 8, "dropout": 0.0})
    compile_head(model, 0.0)
    features, mask = clips("features", 5)
    labels = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]
    for part in (slice(0, 3), slice(3, 6)):
        inputs = {"features": features[part], "mask": mask[part]}
        said = model.train_on_batch(inputs, labels[part], return_dict=True)["loss"]
        own = -np.log((model.predict_on_batch(inputs) * labels[part]).sum(axis=1)).mean()
        assert float(said) == pytest.approx(float(own), rel=1e-5)


def test_no_code_of_ours_sets_or_draws_from_a_process_wide_generator():
    words = ("set_random_seed", "np.random.seed", "np.random.rand", "random.seed(", "tf.random")
    found = [
        f"{path}: {word}"
        for folder in ("pipeline", "store", "flows")
        for path in (ROOT / folder).rglob("*.py")
        for word in words
        if word in path.read_text(encoding="utf-8")
    ]
    assert found == []
