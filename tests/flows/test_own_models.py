"""Stores of a model of the user's: made, resumed, trained on, asked again; and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import store
from flows.extract.request import stage_of
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError, SpecMismatch, WeightsNotFound
from pipeline.features.stage import Stage
from pipeline.features.windows import Windows
from tests.features import own_models
from tests.features.own_models import node, save, shape_of, toml
from tests.features.test_model_files import IMAGE, functional, keras_file, layer
from tests.flows import running

pytestmark = pytest.mark.slow

WINDOW, GAP, STEPS = 4, 2, 6


@pytest.fixture(scope="module")
def work(prefect_api: str, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, a clip model that reads the painted numbers, and a store of it."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(clips, folder / "clips")
    model = own_models.numbers(folder / "model.onnx", window=WINDOW)
    toml(model, f'scale = "1/255"\ngap = {GAP}\ndtype = "float32"\n')
    made = running.run(*FEATURES, cwd=folder)
    assert made.status == 0, made.err
    assert made.json["ready"] == 12
    # Frames of 160 × 96 pixels are cut to their middle: the precision does not touch whole numbers.
    assert made.json["precision"]
    return folder


FEATURES = ("features", "--videos", "clips", "--backbone", "model.onnx", "--store", "s.zarr",
            "--frames", str(STEPS), "--json")  # fmt: skip


TRAIN = ("train", "--store", "s.zarr", "--head", "mlp", "--units", "4,4", "--epochs", "1",
         "--split", "stratified", "--name", "r", "--json")  # fmt: skip


@pytest.mark.long
def test_the_frames_of_every_step_are_those_of_its_window(work: Path) -> None:
    source = store.open(str(work / "s.zarr"))
    assert (source.shape, source.dtype, source.spec["gap"]) == ((WINDOW,), "float32", GAP)
    table, loaded = source.table(), source.load()
    for row, features, mask in zip(loaded.rows, loaded.features, loaded.mask, strict=True):
        count = int(table.loc[row, "frames_decoded"])
        frames, _ = source.steps_of([row])
        sampled = frames[0][mask].astype(np.int64)
        around = Windows.around(sampled, count, window=WINDOW, gap=GAP, squeezed=False)
        np.testing.assert_array_equal(features[mask], around.windows)
        # Inside the clip, the sampled frame is the one before the middle of its window.
        inside = (sampled >= GAP) & (sampled < count - 2 * GAP)
        np.testing.assert_array_equal(features[mask][inside, 1], sampled[inside])
        assert features[mask].min() >= 0
        assert features[mask].max() <= count - 1


@pytest.mark.long
def test_a_second_run_has_nothing_to_do_by_name_or_without(work: Path) -> None:
    for words in (FEATURES, tuple(w for w in FEATURES if w not in ("--backbone", "model.onnx"))):
        again = running.run(*words, cwd=work)
        assert again.status == 0, again.err
        assert again.json["outcome"] == "nothing to do"


@pytest.mark.long
def test_another_model_or_another_input_is_another_spec(work: Path, tmp_path: Path) -> None:
    existing = store.open(str(work / "s.zarr"))
    other = toml(own_models.numbers(tmp_path / "m.onnx", window=WINDOW), "scale = 1\ngap = 2\n")
    asked = FeaturesSettings(
        backbone=str(other), videos=str(work / "clips"), frames=STEPS, store="s.zarr"
    )
    with pytest.raises(
        SpecMismatch, match=r"preprocessing\.scale is 0\.0039\S* there and 1\.0 here"
    ):
        stage_of(asked, existing)
    # Without a file that says otherwise, the store knows how the same model is fed.
    other.with_suffix(".toml").unlink()
    assert stage_of(asked, existing)[0].fingerprint == existing.fingerprint


def test_every_command_works_with_such_a_store(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    checked = running.run_here("verify", "--store", "s.zarr", "--sample", "3", "--json")
    assert checked.status == 0, checked.err
    assert (checked.json["sample"]["checked"], checked.json["sample"]["identical"]) == (3, 3)
    clip = "clips/Jump/v_Jump_g01_c01.mp4"
    shutil.copy(clip, "new.mp4")
    like = running.run_here(
        "similar", "--store", "s.zarr", "--video", "new.mp4", "--out", "", "--json"
    )
    assert like.status == 0, like.err
    assert like.json["similar"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    exported = running.run_here(
        "export", "--store", "s.zarr", "--format", "npz", "--out", "arrays", "--json"
    )
    assert exported.status == 0, exported.err
    trained = running.run_here(*TRAIN)
    assert trained.status == 0, trained.err
    predicted = running.run_here("predict", "--run", "runs/r", "--video", "new.mp4", "--json")
    assert predicted.status == 0, predicted.err
    (record,) = predicted.json["predictions"]
    assert record["top"]
    shown = running.run_here("show", "--store", "s.zarr")
    assert "model.onnx" in shown.out


def test_a_model_that_has_moved_is_asked_for_by_its_name(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    if not Path("runs/r").exists():
        running.run_here(*TRAIN)
    clip = "clips/Jump/v_Jump_g01_c01.mp4"
    Path("model.onnx").rename("moved.onnx")
    try:
        gone = running.run_here("predict", "--run", "runs/r", "--video", clip)
        assert gone.status == 1
        assert "model.onnx" in gone.err
        assert "which is not there: set WEIGHTS" in gone.err
        found = running.run_here(
            "predict", "--run", "runs/r", "--video", clip, "--weights", "moved.onnx", "--json"
        )
        assert found.status == 0, found.err
        other = own_models.numbers(Path("other.onnx"), window=WINDOW, layout="NTHWC")
        wrong = running.run_here(
            "predict", "--run", "runs/r", "--video", clip, "--weights", str(other)
        )
        assert wrong.status == 1
        assert "set WEIGHTS to the file that it was made with" in wrong.err
    finally:
        Path("moved.onnx").rename("model.onnx")


def test_a_store_whose_model_has_moved_asks_for_it_by_its_name(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    existing = store.open("s.zarr")
    asked = FeaturesSettings(videos="clips", frames=STEPS, store="s.zarr")
    Path("model.onnx").rename("moved.onnx")
    try:
        with pytest.raises(
            WeightsNotFound, match=r"s\.zarr was made with the model file .*model\.onnx"
        ):
            stage_of(asked, existing)
        for moved in ({"weights": "moved.onnx"}, {"backbone": "moved.onnx"}):
            spec, stage, _ = stage_of(replace(asked, **moved), existing)
            assert spec.fingerprint == existing.fingerprint
            assert stage.weights == str(work / "moved.onnx")
    finally:
        Path("moved.onnx").rename("model.onnx")


def text_file(path: Path) -> None:
    path.write_text("def model():\n    return 1\n")


def custom(path: Path) -> None:
    nodes = [node("Fancy", "image", "x", domain="com.example"), node("Flatten", "x", "features")]
    save(path, nodes, shape_of("NCHW"))


def of_three_inputs(path: Path) -> None:
    own_models.colours(path, inputs={"mask": [1], "length": [1]})


def of_rank_5(path: Path) -> None:
    toml(own_models.copied(path, "NCTHW"), "scale = 1")


def without_numbers(path: Path) -> None:
    matrix = own_models.MATRIX * np.float32("nan")
    toml(own_models.colours(path, matrix=matrix), "scale = 1")


def unknown_key(path: Path) -> None:
    toml(own_models.colours(path), "scale = 1\ninterpolatoin = 'area'")


def without_scale(path: Path) -> None:
    own_models.colours(path)


def unknown_operator(path: Path) -> None:
    nodes = [node("Fancy", "image", "features")]
    toml(save(path, nodes, shape_of("NCHW")), "scale = 1")


def lambda_layer(path: Path) -> None:
    code = layer(
        "Lambda", "twice", function={"class_name": "__lambda__", "config": {"code": "4wEA"}}
    )
    keras_file(path.with_suffix(".keras"), functional(IMAGE, code))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda_layer, "has a Lambda layer (twice)"),
        (text_file, "is no ONNX model"),
        (custom, "com.example::Fancy, which ONNX does not define"),
        (of_three_inputs, "it has 3 inputs"),
        (of_rank_5, "of rank 5"),
        (without_numbers, "gives features that are not finite"),
        (unknown_key, "did you mean interpolation?"),
        (without_scale, 'write scale into a TOML file beside it, e.g. scale = "1/255"'),
        (unknown_operator, "No conversion rule found for operations: Fancy"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_input_is_one_sentence_and_makes_no_store(
    prefect_api: str, clips: Path, tmp_path: Path, write: object, message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "model.onnx")  # type: ignore[operator]
    (model,) = (path.name for path in tmp_path.iterdir() if path.suffix in (".onnx", ".keras"))
    ended = running.run_here(
        "features", "--videos", str(clips), "--backbone", model, "--store", "none.zarr"
    )
    assert ended.status == 1
    said = [line for line in ended.err.splitlines() if line.startswith("pixels-once features: ")]
    assert len(said) == 1, ended.err
    assert message in said[0]
    assert "Traceback" not in ended.err
    assert not (tmp_path / "none.zarr").exists()


@pytest.mark.long
def test_code_that_raises_shows_its_own_last_line(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def model():\n    return {}['weights']\n")
    monkeypatch.chdir(tmp_path)
    ended = running.run(
        "features", "--videos", str(clips), "--backbone", "mine:model", "--store", "none.zarr",
        cwd=tmp_path,
    )  # fmt: skip
    assert ended.status == 1
    assert "mine:model raised KeyError: 'weights'" in ended.err
    assert "mine.py, line 2" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "none.zarr").exists()


def test_a_dtype_that_is_not_chosen_is_the_stores_own(work: Path) -> None:
    existing = store.open(str(work / "s.zarr"))
    asked = FeaturesSettings(videos=str(work / "clips"), frames=STEPS, store="s.zarr")
    assert stage_of(asked, existing)[0].dtype == "float32"
    table = FeaturesSettings(videos="clips", backbone="motion")
    assert stage_of(table, None)[0].dtype == "float16"
    with pytest.raises(
        ConfigError, match=r"name the model file itself, e\.g\. BACKBONE=model\.onnx"
    ):
        stage_of(FeaturesSettings(videos="clips", backbone="onnx"), None)


def test_backbones_says_what_was_read_said_and_assumed(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    clip = "clips/Jump/v_Jump_g01_c01.mp4"
    words = ("backbones", "--backbone", "model.onnx", "--video", clip)
    tried = running.run_here(*words, "--json")
    assert tried.status == 0, tried.err
    sources = {c["key"]: c["source"] for c in tried.json["choices"]}
    assert sources["window"] == "read from the model"
    assert sources["gap"] == "said"
    assert sources["color"] == "assumed"
    assert tried.json["frames_per_second"] > 0
    assert tried.json["a_step_is"] == [WINDOW]
    table = running.run_here(*words)
    assert table.status == 0, table.err
    assert "read from the model" in table.out
    listed = running.run_here("backbones")
    assert listed.status == 0, listed.err
    assert "inception_v3" in listed.out


def test_a_first_stage_is_loaded_once_whatever_is_said_of_its_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows.extract import batches

    loaded: list[Stage] = []

    def load(stage: Stage, *, threads: int) -> str:
        loaded.append(stage)
        return "a first stage"

    monkeypatch.setattr(batches, "_loaded", {})
    monkeypatch.setattr(batches.FirstStage, "load", load)
    for said in ("", "bfloat16 (cosine to float32 at least 0.9990)"):
        stage = Stage(spec={}, weights="model.onnx", precision=said)
        assert batches.first_stage(stage) == "a first stage"
    assert len(loaded) == 1
