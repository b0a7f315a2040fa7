"""Models of the user's on their engines, against three lines of NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.extract.request import stage_of
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError, SpecMismatch
from pipeline.features import backbones
from pipeline.features.backbones import LoadOptions, Weights, factories, load, resolve_weights
from pipeline.features.backbones.family import Backbone, BackboneKind
from pipeline.features.backbones.model_checks import pictures
from pipeline.features.backbones.model_config import ModelConfig
from pipeline.features.backbones.model_family import facts_of_file
from pipeline.features.backbones.model_measuring import _run, spec_of
from pipeline.features.backbones.model_settling import settle
from pipeline.features.backbones.model_trial import Trial, try_model
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding.reading import read_clip
from pipeline.features.decoding.values import ClipSource, FramePlan
from pipeline.features.extraction import Extractor
from pipeline.spec import Spec
from tests.features import own_models
from tests.features.clips import write_numbered_clip
from tests.features.own_models import MATRIX, SIZE, node, save, shape_of, toml

pytestmark = pytest.mark.slow

ENGINES = ("openvino", "onnxruntime")
SCALED = {"scale": 1 / 255, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}


def loaded(
    path: Path, shape: tuple[int, ...] = (), engine: str = "openvino", **said: Any
) -> Backbone:
    kind = settle("onnx", repr(str(path)), facts_of_file(path), ModelConfig(**said)).kind
    weights = resolve_weights(str(path), "onnx")
    spec = spec_of(replace(kind, shape=shape), weights.hash, "float32")
    return load(spec, weights, LoadOptions(engine=engine, threads=1))


def refusal(path: Path, **options: Any) -> str:
    options.setdefault("scale", 1 / 255)
    with pytest.raises(ConfigError) as caught:
        loaded(path, **options)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def normalised(frames: np.ndarray, said: dict[str, Any]) -> np.ndarray:
    """(…, 3) float64 as the model is to read its channels."""
    values = frames.astype(np.float64)[..., :: -1 if said.get("color") == "BGR" else 1]
    return (values * said["scale"] - said.get("mean", 0)) / said.get("std", 1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NCTHW", "NTHWC", "NTCHW"])
@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_a_model_reads_what_it_was_said_to_read(
    tmp_path: Path, engine: str, layout: str, color: str
) -> None:
    said: dict[str, Any] = {**SCALED, "color": color}
    backbone = loaded(own_models.colours(tmp_path / "m.onnx", layout), (4,), engine, **said)
    assert backbone.window == (4 if "T" in layout else 1)
    frames = pictures(backbone.batch_shape, seed=3)
    features = backbone(frames)
    means = normalised(frames, said).mean(axis=tuple(range(1, frames.ndim - 1)))
    np.testing.assert_allclose(features, means @ MATRIX, atol=2e-5)
    np.testing.assert_array_equal(backbone(frames[::-1])[::-1], features)
    np.testing.assert_array_equal(backbone(frames[:1]), features[:1])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("layout", "axes"), [("NCHW", (2, 3)), ("NHWC", (1, 2)), ("NCTHW", (2, 3, 4))]
)
@pytest.mark.parametrize("pool", ["mean", "max", "none"])
def test_places_are_pooled(
    tmp_path: Path, engine: str, layout: str, axes: tuple[int, ...], pool: str
) -> None:
    if pool == "none" and "T" in layout:
        pytest.skip("refused: an output of rank 5")
    path = own_models.copied(tmp_path / "m.onnx", layout)
    backbone = loaded(path, engine=engine, pool=pool, **SCALED)
    frames = pictures(backbone.batch_shape, seed=5)
    values = normalised(frames, SCALED)
    source = "NTHWC" if "T" in layout else "NHWC"
    values = values.transpose([source.index(axis) for axis in layout])
    places = tuple(a for a, name in enumerate(layout) if name not in "NC")
    given = values + values.mean(axis=places, keepdims=True)
    expected = given if pool == "none" else getattr(given, pool)(axis=axes)
    np.testing.assert_allclose(backbone(frames), expected, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pool", ["mean", "max", "first"])
def test_tokens_are_pooled(tmp_path: Path, engine: str, pool: str) -> None:
    nodes = [node("Reshape", "image tokens", "features")]
    tokens = {"tokens": np.array([0, SIZE, SIZE * 3], np.int64)}
    path = save(tmp_path / "m.onnx", nodes, shape_of("NHWC"), constants=tokens,
                outputs={"features": ["batch", SIZE, SIZE * 3]})  # fmt: skip
    backbone = loaded(path, engine=engine, pool=pool, scale=1.0)
    frames = pictures(backbone.batch_shape, seed=6)
    given = frames.astype(np.float64).reshape(len(frames), SIZE, -1)
    expected = given[:, 0] if pool == "first" else getattr(given, pool)(axis=1)
    np.testing.assert_allclose(backbone(frames), expected, rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_of_several_outputs_and_a_batch_that_is_fixed(tmp_path: Path, engine: str) -> None:
    nodes = [
        node("ReduceMean", "image", "means", axes=[2, 3], keepdims=0),
        node("ReduceMax", "image", "features", axes=[2, 3], keepdims=0),
    ]
    path = save(tmp_path / "m.onnx", nodes, shape_of("NCHW", batch=3),
                outputs={"means": [3, 3], "features": [3, 3]})  # fmt: skip
    backbone = loaded(path, engine=engine, scale=1.0, output="features")
    assert backbone.batch == 3
    frames = pictures(backbone.batch_shape, seed=2)
    np.testing.assert_allclose(backbone(frames), frames.max(axis=(1, 2)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_that_looks_at_its_neighbours_is_refused(tmp_path: Path, engine: str) -> None:
    nodes = [
        node("ReduceMean", "image", "means", axes=[2, 3], keepdims=0),
        node("ReduceMean", "means", "of_batch", axes=[0], keepdims=1),
        node("Sub", "means of_batch", "features"),
    ]
    shape = shape_of("NCHW")
    path = save(tmp_path / "m.onnx", nodes, shape, outputs={"features": ["n", 3]})
    assert "other features for a step alone than among its neighbours" in refusal(
        path, engine=engine
    )
    first = [
        node("ReduceMean", "image", "means", axes=[2, 3], keepdims=0),
        node("CumSum", "means axis", "features"),
    ]
    path = save(tmp_path / "n.onnx", first, shape, outputs={"features": ["n", 3]},
                constants={"axis": np.array(0, np.int64)})  # fmt: skip
    assert "for a step in another order" in refusal(path, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, engine: str) -> None:
    path = own_models.colours(tmp_path / "m.onnx", matrix=MATRIX * np.float32("nan"))
    assert "gives features that are not finite" in refusal(path, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_whose_output_changes_its_shape_is_refused(tmp_path: Path, engine: str) -> None:
    nodes = [node("NonZero", "image", "places"), node("Cast", "places", "features", to=1)]
    path = save(tmp_path / "m.onnx", nodes, shape_of("NCHW"), outputs={"features": ["n", "any"]})
    message = refusal(path, engine=engine)
    assert "depends on what it sees" in message or "vectors for" in message


def test_another_model_than_the_spec_names_is_refused(tmp_path: Path) -> None:
    path = own_models.colours(tmp_path / "m.onnx")
    assert "gives (4,) for a step, and its features were of (5,)" in refusal(path, shape=(5,))
    weights = resolve_weights(str(path), "onnx")
    with pytest.raises(SpecMismatch, match="the spec names weights none"):
        load(Spec(backbone="onnx"), weights)


def test_an_engine_that_runs_no_such_model_is_named(tmp_path: Path) -> None:
    path = own_models.colours(tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="use auto, openvino or onnxruntime"):
        loaded(path, engine="keras", scale=1.0)


def tried(path: Path, cache: Path, **options: Any) -> Trial:
    return try_model(str(path), ModelConfig.beside(path), cache=cache, **options)


def test_a_trial_is_made_once_and_again_where_anything_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.features.backbones import model_trial

    made: list[str] = []

    def here(order: dict[str, Any]) -> Trial:
        made.append(order["source"])
        return _run(order["source"], ModelConfig.beside(path), order["engine"], order["clip"])

    monkeypatch.setattr(model_trial, "_tried", here)
    path = toml(own_models.colours(tmp_path / "m.onnx"), "scale = '1/255'")
    first = tried(path, tmp_path / "cache")
    assert first.kind.shape == (4,)
    assert first.parameters == MATRIX.size
    assert first.hash == resolve_weights(str(path), "onnx").hash
    assert tried(path, tmp_path / "cache") == first
    assert len(made) == 1
    toml(path, "scale = '1/127.5'")
    assert tried(path, tmp_path / "cache").kind != first.kind
    own_models.colours(path, matrix=MATRIX + 1)
    assert tried(path, tmp_path / "cache").hash != first.hash
    assert len(made) == 3


def test_bfloat16_is_chosen_only_where_it_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the processor: its bfloat16 is float32 with an error of the given size."""
    from pipeline.features.backbones import model_measuring

    path = own_models.colours(tmp_path / "m.onnx")
    exact = model_measuring.model_family.load_unchecked
    error = 0.0

    def rounded(spec: Spec, weights: Weights, options: LoadOptions) -> Any:
        backbone = exact(replace(spec, precision="float32"), weights, options)
        if spec.precision == "float32":
            return backbone
        noise = np.random.default_rng(0)
        features_of = backbone.features_of

        def wrong(frames: np.ndarray) -> np.ndarray:
            given = features_of(frames)
            return given + error * np.abs(given).mean() * noise.normal(size=given.shape)

        monkeypatch.setattr(backbone, "features_of", wrong)
        return backbone

    monkeypatch.setattr(model_measuring.model_family, "load_unchecked", rounded)
    monkeypatch.setattr(model_measuring.engines, "precisions", lambda: ("bfloat16", "float32"))
    config = ModelConfig(scale=1 / 255)
    good = _run(str(path), config, "openvino", "")
    assert (good.precision, good.cosine) == ("bfloat16", pytest.approx(1))
    assert "bfloat16 (cosine to float32 at least 1.0000" in good.said
    error = 0.5
    bad = _run(str(path), config, "openvino", "")
    assert bad.precision == "float32"
    assert bad.cosine is not None
    assert bad.cosine < 0.998
    assert "float32, because bfloat16 differs too much" in bad.said
    other = _run(str(path), config, "onnxruntime", "")
    assert (other.precision, other.cosine) == ("float32", None)


def test_what_openvino_refuses_is_named_with_its_reason(tmp_path: Path) -> None:
    nodes = [
        node("ReduceMean", "image", "means", axes=[2, 3], keepdims=0),
        node("ScatterND", "means places nothing", "features"),
    ]
    constants = {"places": np.zeros((1, 1), np.int64), "nothing": np.float32(0).reshape(())}
    path = save(tmp_path / "scatter.onnx", nodes, [2, 3, SIZE, SIZE], constants=constants)
    with pytest.raises(ConfigError, match=r"\(ScatterND.*[Rr]ank of updates") as raised:
        _run(str(path), ModelConfig(scale=1 / 255), "openvino", "")
    assert "--engine onnxruntime" in str(raised.value)


class Corners(Backbone):
    """The four corners' red, as a user's code computes it."""

    def features_of(self, frames: np.ndarray) -> np.ndarray:
        return frames[:, ::31, ::31, 0].reshape(len(frames), -1).astype(np.float32)


def corners() -> Backbone:
    spec = Spec(backbone="corners", size=SIZE, shape=(4,), weights="none")
    return Corners(spec, engine="numpy", batch=4, concurrency=1, software={})


def raises() -> Backbone:
    raise RuntimeError("out of cheese")


def nothing() -> None:
    return None


def crosswise() -> Backbone:
    class Crosswise(Corners):
        def features_of(self, frames: np.ndarray) -> np.ndarray:
            return super().features_of(frames) + np.arange(len(frames))[:, None]

    spec = Spec(backbone="corners", size=SIZE, shape=(4,), weights="none")
    return Crosswise(spec, engine="numpy", batch=4, concurrency=1, software={})


ME = "tests.features.test_own_models"


def test_code_that_returns_a_backbone_is_one() -> None:
    trial = _run(f"{ME}:corners", ModelConfig(), "auto", "")
    assert (trial.kind.shape, trial.kind.size, trial.precision) == ((4,), SIZE, "float32")
    spec = spec_of(trial.kind, trial.hash, "float32")
    assert spec.backbone == f"{ME}:corners"
    backbone = load(spec, resolve_weights(trial.hash, spec.backbone))
    frames = pictures(backbone.batch_shape)
    np.testing.assert_array_equal(backbone(frames)[:, 3], frames[:, 31, 31, 0])
    other = f"sha256:{'1' * 64}"
    with pytest.raises(SpecMismatch, match="returns another first stage"):
        load(replace(spec, weights=other), Weights(kind="code", hash=other))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", r"raised RuntimeError: out of cheese \(.*test_own_models\.py, line \d+\)"),
        ("nothing", "returns NoneType"),
        ("crosswise", "other features for a step in another order"),
        ("cornrs", "has no cornrs: did you mean corners"),
        ("MATRIX", "is no function"),
    ],
)
def test_code_that_is_no_first_stage_is_named_in_one_sentence(function: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        _run(f"{ME}:{function}", ModelConfig(), "auto", "")
    assert "\n" not in str(caught.value)
    assert f"{ME}:{function}" in str(caught.value) or function == "cornrs"


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a package that registers first stages: its metadata on the path, as pip writes it."""

    def install(**points: str) -> None:
        folder = tmp_path / "theirs-1.0.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[pixels_once.backbones]", *lines]))
        factories.entry_points.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    monkeypatch.undo()
    factories.entry_points.cache_clear()


def test_a_package_registers_functions_and_families(register: Callable[..., None]) -> None:
    register(corners=f"{ME}:corners", grey=f"{ME}:FAMILY_OF_A_PACKAGE")
    assert backbones.is_code("corners")
    assert not backbones.is_code("grey")
    assert backbones.describe("grey").size == 8
    assert backbones.resolve_weights("", "grey").hash == "none"
    assert _run("corners", ModelConfig(), "auto", "").kind.name == "corners"
    with pytest.raises(ConfigError, match="did you mean corners"):
        backbones.family_of("corner")
    spec, _, _ = stage_of(FeaturesSettings(backbone="grey", videos="clips"), None)
    assert (spec.backbone, spec.size, spec.preprocessing) == ("grey", 8, None)
    register(blue=f"{ME}:FAMILY_OF_A_PACKAGE")
    with pytest.raises(ConfigError, match="register it under the names of its kinds"):
        backbones.family_of("blue")


_grey = backbones.Family(
    kinds={
        "grey": BackboneKind(name="grey", size=8, shape=(1,), dtype="float16", needs_weights=False)
    },
    find_weights=lambda kind, setting, download: backbones.NO_WEIGHTS,
    load=lambda spec, weights, options: corners(),
)
FAMILY_OF_A_PACKAGE = _grey


@pytest.mark.parametrize("gap", [1, 2])
def test_a_clip_model_sees_exactly_the_frames_of_its_windows_at_both_ends(
    tmp_path: Path, gap: int
) -> None:
    frames, window = 50, 16
    model = own_models.numbers(tmp_path / "model.onnx", window=window)
    backbone = loaded(model, (window,), scale=1 / 255, gap=gap)
    clip = write_numbered_clip(tmp_path / "a.mp4", frames)
    with (
        DecoderPool(FramePlan.of(backbone.spec), processes=1) as pool,
        Extractor(backbone.spec, backbone, pool) as extractor,
    ):
        (result,) = extractor.extract([ClipSource(str(clip))])
    assert result.features is not None
    reach = (window - 1) * gap
    for frame, seen in zip(result.frame_index[result.mask], result.features, strict=False):
        start = min(max(int(frame) - (window - 1) // 2 * gap, 0), frames - 1 - reach)
        assert seen.tolist() == list(range(start, start + reach + 1, gap))
    assert result.features[0, 0] == 0
    assert result.features[result.mask][-1, -1] == frames - 1
    # Each frame that a step sees is decoded, and handed over, once.
    read = read_clip(str(clip), FramePlan.of(backbone.spec))
    assert len(read.frames) == len(np.unique(result.features[result.mask]))
