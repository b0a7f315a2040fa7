"""Several backbones in one run: a clip is read once, every store is what a run of its own makes."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from flows.cli.features import print_summary
from flows.extract import batches
from flows.extract.commit import Committer
from flows.extract.creation import Asked, hold
from flows.extract.cutting import BatchCutter
from flows.extract.each_store import each_store
from flows.extract.joint import JointBatches, joint_groups
from flows.extract.listing import list_clips, listings_for
from flows.extract.request import checked, stage_of
from flows.extract.setup import Target, prepare_all
from flows.extract.summary import Summaries, Summary
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError
from pipeline.features.decoding import reading, through, video
from pipeline.features.decoding.values import FramePlan
from pipeline.spec import Sampling
from tests.features import own_models
from tests.features.clips import write_numbered_clip
from tests.features.own_models import toml
from tests.flows import running
from tests.flows.sameness import contents

pytestmark = pytest.mark.slow

WINDOW = 4
NAMES = ("frames", "numbers", "colours")
MODELS = "frames,numbers.onnx,colours.onnx"
STORE = "features/{backbone}.zarr"
COMMON = ("--videos", "clips", "--frames", "5", "--batch", "4", "--json")


@pytest.fixture(scope="module")
def work(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips (one of them broken), two models, and the store of each backbone alone."""
    folder = tmp_path_factory.mktemp("several")
    shutil.copytree(clips, folder / "clips")
    (folder / "clips" / "Walk" / "broken.mp4").write_bytes(b"no clip")
    toml(own_models.numbers(folder / "numbers.onnx", window=WINDOW), 'scale = "1/255"\n')
    toml(own_models.colours(folder / "colours.onnx"), 'scale = "1/255"\ndtype = "float32"\n')
    with contextlib.chdir(folder):
        for backbone in MODELS.split(","):
            with targets_of(settings(backbone=backbone, store="alone/{backbone}.zarr")) as targets:
                made_of(targets)
    return folder


@pytest.fixture
def here(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own with the same clips, models and stores."""
    folder = tmp_path / "work"
    shutil.copytree(work, folder)
    monkeypatch.chdir(folder)
    return folder


def joint(*more: str) -> running.Finished:
    return running.run_here("features", "--backbone", MODELS, "--store", STORE, *COMMON, *more)


def require_same(folder: Path) -> None:
    """Every store holds, array for array, what a run of its own makes."""
    for name in NAMES:
        mine, alone = (folder / where / f"{name}.zarr" for where in ("features", "alone"))
        assert contents(str(mine)) == contents(str(alone)), name
        one, other = store.open(str(mine)), store.open(str(alone))
        assert (one.fingerprint, one.classes, one.batch) == (
            other.fingerprint, other.classes, other.batch
        )  # fmt: skip
        assert store.verify(str(mine)).ok
        assert store.holder(str(mine)) is None


def test_every_store_is_what_a_run_of_its_own_makes_and_a_second_run_has_nothing_to_do(
    prefect_api: str, here: Path
) -> None:
    made = joint()
    assert made.status == 0, made.err
    assert made.json["outcome"] == "done"
    assert list(made.json["stores"]) == list(NAMES)
    for name, its in made.json["stores"].items():
        assert (its["ready"], its["failed"], its["store"]) == (12, 1, f"features/{name}.zarr")
        assert its["failures"][0]["video_id"] == "Walk/broken.mp4"
    require_same(here)
    again = joint()
    assert again.status == 0, again.err
    assert again.json["outcome"] == "nothing to do"
    assert {its["planned"] for its in again.json["stores"].values()} == {0}


@pytest.mark.long
def test_a_store_that_is_ahead_is_only_filled_where_it_lacks(prefect_api: str, here: Path) -> None:
    shutil.copytree("alone/numbers.zarr", "features/numbers.zarr")
    late = here / "clips" / "Jump" / "v_Jump_g00_c00.mp4"  # the first by name: last in one store
    write_numbered_clip(late, 14)
    made = joint("--retry", "all")
    assert made.status == 0, made.err
    planned = {name: its["planned"] for name, its in made.json["stores"].items()}
    assert planned == {"frames": 14, "numbers": 2, "colours": 14}
    ids = [store.open(f"features/{name}.zarr").table()["video_id"].tolist() for name in NAMES]
    assert ids[0] == ids[1] == ids[2]
    assert ids[0][-1] == "Jump/v_Jump_g00_c00.mp4"
    for name in NAMES:
        mine, alone = store.open(f"features/{name}.zarr"), store.open(f"alone/{name}.zarr")
        np.testing.assert_array_equal(mine.load().features[:12], alone.load().features)
        assert mine.counts()["ready"] == 13
        assert store.verify(mine.url).ok


def settings(**changes: Any) -> FeaturesSettings:
    given: dict[str, Any] = {
        "videos": "clips", "backbone": MODELS, "store": STORE, "frames": 5, "batch": 4,
    }  # fmt: skip
    return FeaturesSettings(**(given | changes))


@contextlib.contextmanager
def targets_of(asked: FeaturesSettings) -> Iterator[list[Target]]:
    """The stores of a run, held and planned."""
    requests = list(each_store(checked(asked)).values())
    opened = [store.open(r.store) if store.exists(r.store) else None for r in requests]
    each = [
        Asked(settings=its, existing=one, spec=spec, stage=stage, weights=weights)
        for its, one in zip(requests, opened, strict=True)
        for spec, stage, weights in [stage_of(its, one)]
    ]
    with contextlib.ExitStack() as held:
        catalog = list_clips(requests[0])
        writers = hold(each, [len(catalog)] * len(each), held)
        yield prepare_all(each, writers, listings_for(requests, catalog, writers))


def made_of(targets: list[Target]) -> Counter[str]:
    """Make what is left to do, here; how often each file was decoded."""
    stages = tuple(target.asked.stage for target in targets)
    stages = tuple(replace(stage, decoders=1) for stage in stages)
    cutters = [BatchCutter(t.writer, t.asked.stage, t.prepared.path_of, "run") for t in targets]
    ids = [target.writer.column("video_id") for target in targets]
    committers = [Committer(target.writer) for target in targets]
    loaded = batches.first_stages(stages)
    decoded: Counter[str] = Counter()
    plain = loaded.pool.submit

    def submit(path: str, *more: Any) -> Any:
        decoded[path] += 1
        return plain(path, *more)

    loaded.fetching._decoders.submit = submit  # type: ignore[method-assign]
    try:
        made = JointBatches(cutters, stages, [t.prepared.rows for t in targets], ids)
        for batch in made:
            for part in batches.extract_batch(batch).parts:
                committers[part.store].accept(part)
        assert made.clips == sum(decoded.values())
        for committer in committers:
            committer.flush([])
    finally:
        loaded.close()
        batches._loaded.clear()
    return decoded


def by_id(source: store.Store) -> dict[str, np.ndarray]:
    """The features of every ready clip."""
    loaded = source.load()
    names = source.table()["video_id"].to_numpy()[loaded.rows]
    return dict(zip(names.tolist(), loaded.features, strict=True))


@pytest.mark.long
def test_each_clip_is_decoded_once_whatever_batches_and_order_the_stores_have(here: Path) -> None:
    paths = [str(path.absolute()) for path in Path("clips").rglob("*.mp4")]
    with targets_of(settings()) as targets:
        assert made_of(targets) == dict.fromkeys(paths, 1)
    require_same(here)
    shutil.rmtree("features")
    # One store with batches of another size, and one in which half of the clips are there.
    halves = settings(backbone="colours.onnx", store="features/colours.zarr", classes="Walk")
    with targets_of(replace(halves, batch=4)) as targets:
        made_of(targets)
    with targets_of(settings(backbone="numbers.onnx", batch=2, per_class=1)) as targets:
        made_of(targets)
    lacking = settings(batch=64)
    with targets_of(lacking) as targets, pytest.raises(AssertionError, match="batch"):
        assert {t.writer.attributes["batch"] for t in targets} == {64}, "batch"
    with targets_of(lacking) as targets:
        decoded = made_of(targets)
    assert set(decoded) == set(paths)
    assert set(decoded.values()) == {1}
    for name in NAMES:
        mine, alone = store.open(f"features/{name}.zarr"), store.open(f"alone/{name}.zarr")
        by_id = dict(
            zip(alone.table()["video_id"][alone.load().rows], alone.load().features, strict=True)
        )
        loaded = mine.load()
        for clip, features in zip(
            mine.table()["video_id"][loaded.rows], loaded.features, strict=True
        ):
            np.testing.assert_array_equal(features, by_id[clip])
        assert len(loaded.rows) == 12


def test_batches_that_have_most_clips_in_common_go_together() -> None:
    whole, tail = np.arange(12), np.arange(8, 12)
    groups = joint_groups([whole // 4, np.array([5, 5, 6, 6])], [whole, tail])
    assert groups == [[(0, 0)], [(0, 1)], [(0, 2), (1, 5), (1, 6)]]
    # Shifted by one row: each has a partner, and no task grows beyond it.
    groups = joint_groups([whole // 4, (whole + 1) // 4], [whole, whole])
    assert groups == [[(0, 0), (1, 0)], [(0, 1), (1, 1)], [(0, 2), (1, 2)], [(1, 3)]]
    assert joint_groups([whole // 4, tail[:0]], [whole, tail[:0]]) == [[(0, n)] for n in range(3)]


def test_every_source_frame_is_decoded_once_and_fitted_once_in_each_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = str(write_numbered_clip(tmp_path / "a.mp4", 40))
    plans = [
        FramePlan(sampling=Sampling(steps=7), size=32),
        FramePlan(sampling=Sampling(steps=7), size=32, window=4, gap=2),
        FramePlan(sampling=Sampling(steps=7), size=48),
        FramePlan(sampling=Sampling(rule="fps", fps=20.0, steps=7), size=32),
    ]
    fitted: list[tuple[object, ...]] = []
    decoded: list[int] = []
    plain = video.pictures.fit_picture

    class Counted(video.Video):
        def __iter__(self) -> Iterator[video.Frame]:
            for frame in super().__iter__():
                decoded.append(frame.index)
                yield frame

    def fit(picture: Any, plan: FramePlan, *more: Any) -> Any:
        fitted.append((decoded[-1], int(picture.astype(int).sum()), *plan.fitting))
        return plain(picture, plan, *more)

    monkeypatch.setattr(video.pictures, "fit_picture", fit)
    for module in (reading, through):
        monkeypatch.setattr(module, "Video", Counted)
    rooms = [np.empty(plan.frames_shape, np.uint8) for plan in plans]
    read = reading.read_streams(clip, plans, rooms)
    assert decoded == list(range(40))
    assert len(fitted) == len(set(fitted))
    assert {len(its) for its in read} == {7}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"store": "s.zarr"}, r"3 backbones fill a store each.*write \{backbone\} in it, e\.g\."),
        ({"store": ""}, r"write \{backbone\} in it"),
        ({"backbone": "frames,frames"}, "backbone frames is named twice: name it once"),
        (
            {"backbone": "a/m.onnx,b/m.keras"},
            "a/m.onnx and b/m.keras would both fill features/m.zarr: give the model file another name",
        ),
        (
            {"backbone_config": "m.toml"},
            "2 of frames, numbers.onnx, colours.onnx are models of your",
        ),
        ({"weights": "imagenet"}, "none of frames, numbers.onnx, colours.onnx takes weights"),
        (
            {"backbone": "inception_v3,resnet50", "weights": "w.h5"},
            "inception_v3 and resnet50 each have their own: make the store of one with it in a run of",
        ),
        ({"backbone": "frames,incepton_v3"}, "'incepton_v3' is not known"),
        ({"backbone": "incepton_v3"}, "did you mean inception_v3"),
        ({"backbone": "m/model.onx"}, r"if it is one, rename it to m/model\.onnx"),
        ({"backbone": "model.ONNX"}, r"rename it to model\.onnx"),
        ({"backbone": "model.kera"}, r"rename it to model\.keras"),
        ({"backbone": "frames,model.pt"}, r"write it with torch\.onnx\.export"),
        ({"backbone": "model.h5"}, r"write it with model\.save\('model\.keras'\)"),
        ({"backbone": "model.tflite"}, "write it as ONNX"),
        ({"backbone": "mine.small"}, "code as package.module:function"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(settings(**changes))


def test_what_applies_to_one_backbone_alone_goes_to_that_one() -> None:
    asked = settings(
        backbone="inception_v3, numbers.onnx ,frames", weights="w.h5", backbone_config="n.toml"
    )
    requests = each_store(asked)
    assert list(requests) == ["inception_v3", "numbers", "frames"]
    assert [r.weights for r in requests.values()] == ["w.h5", "", ""]
    assert [r.backbone_config for r in requests.values()] == ["", "n.toml", ""]
    assert requests["numbers"].store == "features/numbers.zarr"
    several = each_store(settings(backbone="inception_v3,resnet50", weights="random:3"))
    assert [r.weights for r in several.values()] == ["random:3", "random:3"]


def test_one_backbone_may_stand_in_the_stores_name_too() -> None:
    assert checked(settings(backbone="models/vit.onnx")).store == "features/vit.zarr"
    assert checked(settings(backbone="mine:small")).store == "features/small.zarr"
    assert checked(settings(backbone="")).store == "features/inception_v3.zarr"


def test_the_terminal_has_a_line_for_each_store_and_the_outcome_is_that_of_most(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = Summary(store="a.zarr", outcome="nothing to do", clips=3, wanted=3)
    other = Summary(
        store="b.zarr", outcome="done", clips=3, wanted=3, planned=2, ready=2, frames=10
    )
    both = Summaries(stores={"a": one, "b": other})
    print_summary(both)
    said = capsys.readouterr().out
    assert "nothing to do: all 3 clips are in a.zarr" in said
    assert "b.zarr: 2 ready, 0 failed of 2 clips" in said
    assert (both.outcome, both.stopped_by, both.left) == ("done", "", 0)
    stopped = replace(other, outcome="interrupted", stopped_by="SIGINT", left=1)
    both = Summaries(stores={"a": one, "b": stopped})
    assert (both.outcome, both.stopped_by, both.left) == ("interrupted", "SIGINT", 1)
