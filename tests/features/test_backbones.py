"""Every first stage keeps the interface's promises, on small inputs and seeded random weights."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.extract.request import stage_of
from flows.settings.features import FeaturesSettings
from pipeline import engine
from pipeline.errors import ConfigError, SpecMismatch
from pipeline.features import backbones
from pipeline.features.backbones import (
    Family,
    Weights,
    describe,
    keras_family,
    load,
    resolve_weights,
)
from pipeline.features.backbones.family import BackboneKind, LoadOptions
from pipeline.features.backbones.keras_model import _load, _scaled, build_model, fill_random
from pipeline.features.backbones.keras_models import KERAS_MODELS
from pipeline.features.backbones.openvino_engine import cached_model
from pipeline.spec import Precision, Spec

ROOT = Path(__file__).parents[2]
SIZE = 75
"""The smallest picture that InceptionV3 takes: the same graph at a tenth of the cost."""

pytestmark = pytest.mark.slow

needs_openvino = pytest.mark.skipif(
    not keras_family.available(), reason="openvino is not installed"
)


def random_spec(
    seed: int = 0, precision: Precision = "float32", name: str = "mobilenet"
) -> tuple[Spec, Weights]:
    weights = resolve_weights(f"random:{seed}", name)
    shape = (KERAS_MODELS[name].channels,)
    spec = Spec(backbone=name, size=SIZE, shape=shape, weights=weights.hash, precision=precision)
    return spec, weights


def noise(count: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.fixture(
    scope="module", params=["mobilenet", pytest.param("inception_v3", marks=pytest.mark.long)]
)
def name(request: pytest.FixtureRequest) -> str:
    """A backbone: a small one, and in the long run the default too."""
    return str(request.param)


@pytest.fixture(scope="module")
def cache(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that two processes filled at once, from nothing."""
    folder = tmp_path_factory.mktemp("cache")
    code = (
        "import sys, tests.features.test_backbones as t;"
        "from pathlib import Path; from pipeline.features.backbones.openvino_engine import *;"
        "spec = t.random_spec(name=sys.argv[2]);"
        "print(cached_model(*spec, Path(sys.argv[1])), 'tensorflow' in sys.modules)"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=200)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1]
    # The export had a process of its own: whoever asked has not loaded TensorFlow.
    assert answers[0][1] == "False"
    return folder


@pytest.fixture(scope="module", params=["keras", "openvino"])
def loaded(request: pytest.FixtureRequest, name: str, cache: Path) -> backbones.Backbone:
    if request.param == "openvino" and not keras_family.available():
        pytest.skip("openvino is not installed")
    return load(*random_spec(name=name), LoadOptions(engine=request.param, cache=cache))


def test_frames_in_features_out(loaded: backbones.Backbone, name: str) -> None:
    features = loaded(noise(3))
    assert features.shape == (3, *loaded.shape) == (3, KERAS_MODELS[name].channels)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert name in repr(loaded)
    assert loaded.software["keras"]


def test_a_frame_gives_the_same_bits_wherever_it_stands(loaded: backbones.Backbone) -> None:
    frames = noise(loaded.batch)
    whole = loaded(frames)
    np.testing.assert_array_equal(loaded(frames[::-1])[::-1], whole)
    np.testing.assert_array_equal(loaded(frames[2:5]), whole[2:5])
    np.testing.assert_array_equal(loaded(frames[-1:]), whole[-1:])


def test_callers_do_not_disturb_each_other(loaded: backbones.Backbone) -> None:
    frames = noise(32)
    alone = [loaded(frames[i : i + 4]) for i in range(0, 32, 4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(loaded, [frames[i : i + 4] for i in range(0, 32, 4)]))
    np.testing.assert_array_equal(together, alone)


def test_an_answer_survives_the_next_call(loaded: backbones.Backbone) -> None:
    first = loaded(noise(2))
    copy = first.copy()
    loaded(255 - noise(2))
    np.testing.assert_array_equal(first, copy)


def test_what_is_no_batch_of_frames_is_refused(loaded: backbones.Backbone) -> None:
    with pytest.raises(ValueError, match="uint8"):
        loaded(noise(2).astype(np.float32))
    with pytest.raises(ValueError, match="uint8"):
        loaded(noise(2, size=64))
    with pytest.raises(ValueError, match="0 frames"):
        loaded(noise(0))
    with pytest.raises(ValueError, match=f"1 to {loaded.batch}"):
        loaded(noise(loaded.batch + 1))


@needs_openvino
@pytest.mark.parametrize("precision", engine.precisions())
def test_batch_size_and_streams_change_no_bit(name: str, cache: Path, precision: Precision) -> None:
    if precision == "float16":
        pytest.skip("no precision of a CPU")
    spec, weights = random_spec(precision=precision, name=name)
    frames = noise(20)
    reference = None
    for batch in (1, 8, 16, 20):
        backbone = load(spec, weights, LoadOptions(engine="openvino", batch=batch, cache=cache))
        features = np.concatenate(
            [backbone(frames[i : i + batch]) for i in range(0, len(frames), batch)]
        )
        reference = features if reference is None else reference
        np.testing.assert_array_equal(features, reference)


@needs_openvino
def test_the_binding_is_set_up_before_threads_can_meet_in_it(name: str, cache: Path) -> None:
    # Two first calls at once hang for ever in OpenVINO's binding, so loading makes the first one.
    code = (
        "import sys, threading, numpy as np, tests.features.test_backbones as t;"
        "from pathlib import Path; from pipeline.features.backbones.openvino_engine import *;"
        "spec = t.random_spec(name=sys.argv[2]);"
        "b = load_openvino(*spec, LoadOptions(cache=Path(sys.argv[1])));"
        "print(hasattr(b._mine, 'request'));"
        "go = threading.Barrier(4);"
        "call = lambda: (go.wait(), b(t.noise(2)));"
        "threads = [threading.Thread(target=call) for _ in range(4)];"
        "[x.start() for x in threads]; [x.join() for x in threads]"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(cache), name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert answer.stdout.strip() == "True"


@needs_openvino
def test_the_engines_agree(name: str, cache: Path) -> None:
    frames = noise(8)
    keras = load(*random_spec(name=name), LoadOptions(engine="keras", cache=cache))(frames)
    openvino = load(*random_spec(name=name), LoadOptions(engine="openvino", cache=cache))(frames)
    np.testing.assert_allclose(openvino, keras, rtol=1e-3, atol=1e-3)


def weights_digest(seed: int) -> str:
    spec, weights = random_spec(seed)
    model = build_model(spec.backbone, size=SIZE, weights=weights, precision="float32")
    return hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()


@pytest.mark.long
def test_random_weights_follow_the_seed_in_every_process() -> None:
    code = "import tests.features.test_backbones as t; print(t.weights_digest(0))"
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert elsewhere.stdout.strip() == weights_digest(0) != weights_digest(1)


@pytest.mark.parametrize(
    "name", [pytest.param("inception_v3", marks=pytest.mark.long)], indirect=True
)
def test_random_features_survive_float16(loaded: backbones.Backbone) -> None:
    features = loaded(noise(4))
    stored = features.astype(np.float16)
    assert np.isfinite(stored).all()
    # What is zero was zero before: nothing vanished.
    assert ((stored == 0) == (features == 0)).all()


@needs_openvino
@pytest.mark.long
def test_a_damaged_cache_entry_is_made_anew(name: str, cache: Path, tmp_path: Path) -> None:
    spec, weights = random_spec(name=name)
    xml = cached_model(spec, weights, cache)
    entry = tmp_path / xml.parent.name
    entry.mkdir()
    (entry / xml.name).write_text("<net")
    (tmp_path / f".{entry.name}.left-by-a-kill").mkdir()
    backbone = load(spec, weights, LoadOptions(engine="openvino", cache=tmp_path))
    expected = load(spec, weights, LoadOptions(engine="openvino", cache=cache))
    np.testing.assert_array_equal(backbone(noise(2)), expected(noise(2)))
    assert [e.name for e in tmp_path.iterdir() if e.is_dir()] == [entry.name]


def test_a_weights_file_is_of_the_format_that_it_holds_whatever_its_name(tmp_path: Path) -> None:
    import keras

    def model(seed: int) -> Any:
        keras.utils.clear_session()
        pixels = keras.Input((8, 8, 3))
        hidden = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(pixels))
        built = keras.Model(pixels, keras.layers.Dense(2)(hidden))
        fill_random(built, seed)
        return built

    saved = model(1)
    saved.save_weights(tmp_path / "new.weights.h5")
    saved.save(tmp_path / "older.h5")  # a whole model, as `save` wrote it before Keras 3
    for name, path in {
        "new.h5": "new.weights.h5",
        "new": "new.weights.h5",
        "new.hdf5": "new.weights.h5",
        "older.weights.h5": "older.h5",
        "older 😀": "older.h5",
    }.items():
        shutil.copy(tmp_path / path, tmp_path / name)
    for path in sorted(tmp_path.iterdir()):
        fresh = model(2)
        _load(fresh, "mobilenet", Weights(kind="file", hash="", path=path))
        for got, wanted in zip(fresh.get_weights(), saved.get_weights(), strict=True):
            np.testing.assert_array_equal(got, wanted, err_msg=path.name)


@pytest.mark.long
@needs_openvino
def test_a_weights_file_of_another_model_is_one_sentence(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    path = tmp_path / "other.weights.h5"
    model.save_weights(path)
    weights = resolve_weights(str(path), "mobilenet")
    spec = replace(random_spec()[0], weights=weights.hash)
    for engine_name in ("keras", "openvino"):
        with pytest.raises(ConfigError, match="does not fit mobilenet") as caught:
            load(spec, weights, LoadOptions(engine=engine_name, cache=tmp_path / "cache"))
        assert "\n" not in str(caught.value)


def test_weights_other_than_the_specs_are_refused() -> None:
    spec, _ = random_spec(0)
    _, other = random_spec(1)
    with pytest.raises(SpecMismatch, match="random:0, and weights random:1"):
        load(spec, other)
    with pytest.raises(SpecMismatch, match="no weights"):
        load(spec, None)


def test_a_precision_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "precisions", lambda: ("float32",))
    with pytest.raises(ConfigError, match="does not compute in bfloat16: use precision float32"):
        load(*random_spec(precision="bfloat16"))


def test_auto_takes_openvino_on_a_cpu_and_keras_where_the_user_or_a_gpu_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keras_family, "available", lambda: True)
    monkeypatch.setattr(engine, "gpu_capability", lambda: 0.0)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert keras_family.choose_engine() == "openvino"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert keras_family.choose_engine() == "keras"
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setattr(engine, "gpu_capability", lambda: 9.0)
    assert keras_family.choose_engine() == "keras"
    assert keras_family.choose_engine("openvino") == "openvino"
    monkeypatch.setattr(keras_family, "available", lambda: False)
    assert keras_family.choose_engine() == "keras"
    with pytest.raises(ConfigError, match="not installed"):
        keras_family.choose_engine("openvino")
    with pytest.raises(ConfigError, match="'tensorrt'"):
        keras_family.choose_engine("tensorrt")


WITHOUT_WEIGHTS = [name for name in backbones.backbone_names() if not describe(name).needs_weights]


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_a_backbone_without_weights_keeps_the_interfaces_promises(name: str) -> None:
    """The promises of `Backbone`, asked of every family that can be loaded here and now."""
    kind = describe(name)
    declared = {field: getattr(kind, field) for field in ("size", "shape", "dtype", "fit")}
    spec = Spec(backbone=name, window=kind.window, gap_s=kind.gap_s, **declared)
    backbone = load(spec, resolve_weights("", name))
    assert (backbone.name, backbone.size, backbone.shape) == (name, kind.size, kind.shape)
    assert len(kind.channels) in (0, kind.shape[0])

    def noise_of(count: int, size: int) -> np.ndarray:
        windows = (count, kind.window) if kind.window > 1 else (count,)
        return noise(count * kind.window, size).reshape(*windows, size, size, 3)

    frames = noise_of(backbone.batch, kind.size)
    whole = backbone(frames)
    assert whole.shape == (len(frames), *kind.shape)
    assert np.isfinite(whole).all()
    assert np.can_cast(whole.dtype, kind.dtype, "same_kind")
    np.testing.assert_array_equal(backbone(frames), whole)
    if not backbone.whole_clips:
        np.testing.assert_array_equal(backbone(frames[::-1].copy())[::-1], whole)
        np.testing.assert_array_equal(backbone(frames[-1:]), whole[-1:])
    with ThreadPoolExecutor(2) as threads:
        for features in threads.map(backbone, [frames] * 4):
            np.testing.assert_array_equal(features, whole)
    kept = whole.copy()
    frames[:] = 0
    backbone(frames)
    np.testing.assert_array_equal(whole, kept)
    right = noise_of(1, kind.size)
    for wrong in (right[:0], noise_of(1, kind.size - 1), right / 255, right[0]):
        with pytest.raises(ValueError, match="frames"):
            backbone(wrong)


def test_the_frames_backbone_gives_the_pixels_back() -> None:
    kind = describe("frames")
    spec = Spec(backbone="frames", size=kind.size, shape=kind.shape, dtype=kind.dtype)
    backbone = load(spec, None)
    frames = noise(5, kind.size)
    pixels = backbone(frames)
    np.testing.assert_array_equal(pixels, frames)
    frames[:] = 0
    assert pixels.any()
    assert backbone.shape == kind.shape


def test_a_new_family_is_one_value_in_the_list_of_families(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kind plans a run, its weights are hashed, it is required and loaded: nothing asks its name."""
    asked: list[Any] = []

    def load_grey(spec: Spec, weights: Weights, options: LoadOptions) -> Any:
        asked.append((spec.backbone, weights.path, options.engine))
        return "a backbone"

    kind = BackboneKind(name="grey", size=32, shape=(32, 32, 1), dtype="uint8")
    grey = Family(
        kinds={"grey": kind},
        find_weights=lambda kind, setting, download: Weights.of_file(Path(setting)),
        load=load_grey,
        require=lambda engine: asked.append(engine),
    )
    monkeypatch.setattr(backbones, "FAMILIES", (*backbones.FAMILIES, grey))
    file = tmp_path / "weights"
    file.write_bytes(b"1")
    settings = FeaturesSettings(backbone="grey", weights=str(file), engine="keras")
    spec, stage, weights = stage_of(settings, None)
    assert (spec.shape, spec.precision, stage.weights) == ((32, 32, 1), "float32", str(file))
    assert load(spec, weights, LoadOptions(engine="keras")) == "a backbone"
    backbones.family_of(spec.backbone).require(stage.engine)
    assert asked == [("grey", file, "keras"), "keras"]
    assert "grey" in backbones.backbone_names()


def test_describe_needs_no_keras_and_suggests_the_nearest_name() -> None:
    code = (
        "import sys; from pipeline.features.backbones import describe;"
        "k = describe('inception_v3'); print(k.size, k.shape, 'keras' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "299 (2048,) False"
    with pytest.raises(ConfigError, match="did you mean inception_v3"):
        describe("inceptionv3")


@pytest.mark.parametrize(
    "each",
    [
        "mobilenet",
        pytest.param("mobilenet_v3_small", marks=pytest.mark.long),
        pytest.param("densenet121", marks=pytest.mark.long),
        "vgg16",
    ],
)
def test_the_table_of_models_is_what_keras_builds(each: str) -> None:
    import keras

    row = KERAS_MODELS[each]
    weights = resolve_weights("random", each)
    model = build_model(each, size=64, weights=weights, precision="float32")
    assert model.output_shape == (None, row.channels)
    frames = noise(1, 64)
    body = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    assert body.count_params() == row.parameters == describe(each).parameters
    preprocess = getattr(keras.applications, row.module).preprocess_input
    expected = body(preprocess(frames.astype(np.float32)), training=False)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model(frames)),
        keras.ops.convert_to_numpy(expected),
        rtol=1e-3,
        atol=1e-4,
    )


def test_every_model_scales_its_pixels_as_keras_does() -> None:
    import keras

    frames = noise(2, 8)
    for module, scaling in {(m.module, m.scaling) for m in KERAS_MODELS.values()}:
        pixels = keras.Input((8, 8, 3), dtype="uint8")
        model = keras.Model(pixels, _scaled(keras, pixels, scaling))
        preprocess = getattr(keras.applications, module).preprocess_input
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(model(frames)),
            preprocess(frames.astype(np.float32)),
            rtol=1e-4,
            atol=1e-4,
            err_msg=module,
        )
