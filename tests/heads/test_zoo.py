"""The harness that every head must pass."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.errors import ConfigError, SpecMismatch
from pipeline.heads.compiling import compile_head
from pipeline.heads.lean import keras
from pipeline.heads.steps.compiling import compile_steps, trained_form
from pipeline.heads.zoo import HEADS, build_head, head_kind
from pipeline.heads.zoo.kinds import own_layers

SMALL = {
    "lstm": {"units": 24, "dense": 16},
    "bilstm": {"units": 12, "dense": 12},
    "stacked": {"units": 12, "dense": 12},
    "mlp": {"units": 24, "second_units": 16},
    "late_fusion": {"units": 8, "fusion": 16},
    "early_fusion": {"units": 16, "filters": 4},
    "attention": {"units": 16},
    "transformer": {"units": 16, "inner": 24},
    "tcn": {"units": 16},
    "convlstm": {"filters": (2, 2, 3, 3)},
    "lrcn": {"filters": (4, 4, 6, 6)},
    "conv3d": {"filters": (4, 6, 8), "dense": 8},
    "segmenter": {"units": 12, "project": 12},
    "mstcn": {"units": 12, "depth": 3, "stages": 2},
}
SHAPES = {"features": (10,), "frames": (64, 64, 3)}
CASES = [(name, reads) for name, kind in HEADS.items() for reads in kind.reads]


EAGER_OR_COMPILED = [
    pytest.param(True, id="eager"),
    pytest.param(False, id="compiled", marks=pytest.mark.long),
]
"""Compiling a head takes seconds: all of them run step by step, and compiled in the long run."""


def small_head(name: str, reads: str, steps: int, *, eager: bool = False, **options):
    model = build_head(name, steps, SHAPES[reads], 4, SMALL.get(name, {}), seed=3, **options)
    model.run_eagerly = eager
    return model


def compiled(name: str, model):
    """The head compiled for training: of one that labels every step the form that is trained."""
    if not HEADS[name].per_step:
        compile_head(model, 1e-3)
        return model
    trained = trained_form(model)
    compile_steps(trained, 1e-3, smoothing=0.15, multi_label=False)
    return trained


def targets(name: str, mask: np.ndarray) -> np.ndarray:
    """One-hot labels of six clips, or of every step of theirs, with its weight."""
    labels = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]
    if not HEADS[name].per_step:
        return labels
    each = np.repeat(labels[:, None], mask.shape[1], axis=1)
    return np.concatenate([each, mask[..., None].astype(np.float32)], axis=-1)


def clips(reads: str, steps: int, n: int = 6):
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (n, steps, *SHAPES[reads])).astype(np.float32)
    lengths = np.maximum(1, (steps * np.linspace(0.3, 1, n)).astype(int))
    mask = np.arange(steps)[None] < lengths[:, None]
    return features, mask


@pytest.mark.parametrize("eager", EAGER_OR_COMPILED)
@pytest.mark.parametrize(("name", "reads"), CASES)
def test_gives_probabilities_whatever_stands_in_padding_and_whatever_clips_are_beside(
    name, reads, eager
):
    features, mask = clips(reads, 9)
    model = small_head(name, reads, 9, eager=eager)
    first = model.predict_on_batch({"features": features, "mask": mask})
    assert first.shape == ((6, 9, 4) if HEADS[name].per_step else (6, 4))
    np.testing.assert_allclose(first.sum(axis=-1), 1, atol=1e-5)
    alone = model.predict_on_batch({"features": features[1:2], "mask": mask[1:2]})
    np.testing.assert_allclose(first[1:2], alone, atol=1e-5)
    features[~mask] = np.nan
    second = model.predict_on_batch({"features": features, "mask": mask})
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("eager", EAGER_OR_COMPILED)
@pytest.mark.parametrize(("name", "reads"), CASES)
def test_saved_and_loaded_in_safe_mode_it_gives_equal_outputs(name, reads, eager, tmp_path):
    features, mask = clips(reads, 5)
    model = small_head(name, reads, 5, eager=eager)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    again.run_eagerly = eager
    inputs = {"features": features, "mask": mask}
    np.testing.assert_array_equal(model.predict_on_batch(inputs), again.predict_on_batch(inputs))


@pytest.mark.parametrize("eager", EAGER_OR_COMPILED)
@pytest.mark.parametrize(("name", "reads"), CASES)
def test_one_step_lowers_the_loss(name, reads, eager):
    features, mask = clips(reads, 5)
    # Dropout would make the two losses incomparable.
    still = {
        f.name: 0.0
        for f in dataclasses.fields(head_kind(name).config)
        if f.name in ("dropout", "recurrent_dropout")
    }
    options = SMALL.get(name, {}) | still
    model = compiled(name, build_head(name, 5, SHAPES[reads], 4, options, seed=3))
    model.run_eagerly = eager
    labels = targets(name, mask)
    inputs = {"features": features, "mask": mask}
    before = model.train_on_batch(inputs, labels, return_dict=True)["loss"]
    after = model.test_on_batch(inputs, labels, return_dict=True)["loss"]
    assert after < before


@pytest.mark.parametrize(("name", "reads"), CASES)
def test_where_there_is_a_layer_of_our_own_a_head_has_it(name, reads):
    ours = {
        kind.__name__
        for module in own_layers()
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, keras.layers.Layer)
    }
    for layer in small_head(name, reads, 5).layers:
        assert not (type(layer).__name__ in ours and type(layer).__module__.startswith("keras."))


@pytest.mark.parametrize("steps", [1, 40])
@pytest.mark.parametrize(("name", "reads"), CASES)
def test_works_at_one_step_and_at_forty(name, reads, steps):
    features, mask = clips(reads, steps, n=2)
    outputs = small_head(name, reads, steps)({"features": features, "mask": mask})
    assert np.isfinite(np.asarray(outputs)).all()


PARAMETERS = {
    # Published: both tutorial models at 20 × 64 × 64 × 3 and 4 classes.
    "convlstm": (20, (64, 64, 3), 4, {}, 44_524),
    "lrcn": (20, (64, 64, 3), 4, {}, 73_060),
    # Keras: 3 · units · (inputs + units + 2) per GRU, 8·8+8 and 8·5+5 in the dense layers.
    "gru": (40, (2048,), 5, {}, 3 * 16 * 2066 + 3 * 8 * 26 + 72 + 45),
    # 4 · units · (inputs + units + 1), then the dense layers.
    "lstm": (40, (2048,), 101, {"units": 100, "dense": 64}, 400 * 2149 + 101 * 64 + 65 * 101),
    "mlp": (8, (64,), 3, {}, 513 * 512 + 513 * 512 + 513 * 3),
    "frame_average": (40, (2048,), 3, {}, 2049 * 3),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_has_the_published_number_of_parameters(name):
    steps, shape, classes, options, count = PARAMETERS[name]
    assert build_head(name, steps, shape, classes, options).count_params() == count


def test_landmarks_are_read_as_vectors():
    model = build_head("gru", 6, (33, 4), 3)
    features = np.random.default_rng(0).normal(size=(2, 6, 33, 4)).astype(np.float32)
    assert model({"features": features, "mask": np.ones((2, 6), bool)}).shape == (2, 3)


def test_a_head_that_cannot_read_the_store_says_which_can():
    with pytest.raises(SpecMismatch, match=r"lstm reads features.*frames.*convlstm"):
        build_head("lstm", 20, (64, 64, 3), 4)
    with pytest.raises(SpecMismatch, match="backbone=frames"):
        build_head("convlstm", 20, (2048,), 4)


def test_options_are_typed_and_unknown_names_suggest_the_nearest():
    assert head_kind("lstm").configure({"units": "512"}).units == 512
    assert head_kind("convlstm").configure({"filters": "2,3"}).filters == (2, 3)
    assert head_kind("gru").configure({"preset": "wide", "dense": 9}).units == 512
    with pytest.raises(ConfigError, match="did you mean units"):
        head_kind("lstm").configure({"unit": 3})
    for units in ("many", "inf", "nan", "0", "1e9", "2.5", str(10**400)):
        with pytest.raises(ConfigError, match="whole number"):
            head_kind("lstm").configure({"units": units})
    for filters in ("inf,2", "0,1", "", "1,-2"):
        with pytest.raises(ConfigError, match="whole numbers"):
            head_kind("convlstm").configure({"filters": filters})
    with pytest.raises(ConfigError, match="did you mean transformer"):
        head_kind("transfomer")


@pytest.mark.parametrize("kind", HEADS.values(), ids=HEADS)
def test_says_what_it_is_and_where_it_comes_from(kind):
    assert kind.one_line
    assert kind.source
    assert kind.options()
