"""What regularises a training, what decides its epochs, and what a run says where neither helped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, SpecMismatch
from pipeline.heads import choosing, epochs, fitting
from pipeline.heads.augmentation import mask_steps, mix_clips
from pipeline.heads.choosing import chosen_head
from pipeline.heads.clips import load_clips
from pipeline.heads.compiling import compile_head
from pipeline.heads.config import FEW, FEW_TRAINED, TrainConfig
from pipeline.heads.epochs import Progress
from pipeline.heads.export import for_inference
from pipeline.heads.identity import Identity
from pipeline.heads.lean import keras
from pipeline.heads.plan import resolve
from pipeline.heads.saved import load_run
from pipeline.heads.splits import make_split
from pipeline.heads.training import train
from pipeline.heads.zoo import build_head, config_dict, head_kind
from pipeline.heads.zoo.pools import POOLS
from tests.heads.sources import rising_or_falling
from tests.heads.test_identity import interrupt_at, result_of

DRAWS = False
MLP = TrainConfig(
    head="mlp", options={"units": 8, "second_units": 8}, epochs=4, split="grouped", baselines=False
)
SMALL = {"units": 6, "dense": 5, "project": 7, "step_dropout": 0.5}
RECURRENT = ("lstm", "gru", "bilstm")


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("head", RECURRENT)
def test_every_pool_reads_real_steps_only_and_is_saved_with_the_head(head, pool, tmp_path):
    model = build_head(head, 7, (4,), 3, SMALL | {"pool": pool}, seed=2)
    model.run_eagerly = True
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 7, 4)).astype(np.float32)
    mask = np.arange(7)[None] < np.array([1, 3, 4, 6, 7])[:, None]
    said = model.predict_on_batch({"features": features, "mask": mask})
    features[~mask] = np.nan
    again = model.predict_on_batch({"features": features, "mask": mask})
    np.testing.assert_array_equal(said, again)
    short = build_head(head, 4, (4,), 3, SMALL | {"pool": pool}, seed=2)
    short.set_weights(model.get_weights())
    alone = short({"features": features[2:3, :4], "mask": mask[2:3, :4]})
    np.testing.assert_allclose(np.asarray(alone), said[2:3], atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    loaded.run_eagerly = True
    np.testing.assert_array_equal(
        loaded.predict_on_batch({"features": features, "mask": mask}), again
    )
    twin = for_inference(model)
    assert not [layer for layer in twin.layers if getattr(layer, "rate", 0)]


def test_step_dropout_silences_a_channel_at_all_steps():
    model = build_head("gru", 9, (4,), 2, {"preset": "regularised"}, seed=0)
    dropout = next(la for la in model.layers if isinstance(la, keras.layers.SpatialDropout1D))
    dropped = np.asarray(dropout(np.ones((6, 9, 128), np.float32), training=True))
    assert (dropped == dropped[:, :1]).all()
    assert 0.1 < (dropped == 0).mean() < 0.5


def test_a_head_without_the_new_options_is_what_it_was():
    for head in RECURRENT:
        kind = head_kind(head)
        old = set(kind.options()) - {"project", "step_dropout", "pool", "bidirectional"}
        assert set(config_dict(kind.configure({}))) == old
        names = {type(layer).__name__ for layer in build_head(head, 3, (2,), 2, SMALL0).layers}
        assert not names & {"SpatialDropout1D", "LayerNormalization", "MaskedMean"}
    assert not set(TrainConfig().to_dict()) & {"warmup", "weight_decay", "stopping", "test_set"}


SMALL0 = {"units": 4, "dense": 4}


def test_a_presets_recipe_takes_the_place_of_defaults_only():
    clips = load_clips(rising_or_falling())
    split = make_split(clips.table)
    asked = TrainConfig(head="gru", options={"preset": "regularised"}, epochs=7)
    settings = resolve(asked, [split])
    assert (settings.epochs, settings.schedule, settings.lr) == (7, "cosine", 1e-3)
    assert (settings.weight_decay, settings.weight_averaging) == (0.05, 0.98)
    assert len(split.validation) < FEW
    assert settings.stopping == "fixed"
    many = dataclasses.replace(split, validation=np.arange(FEW))
    assert resolve(asked, [many]).stopping == "validation"
    standard = TrainConfig(head="gru", options={"preset": "standard"})
    assert resolve(standard, [split]).stopping == "validation"


def test_a_resumed_run_keeps_the_recipe_that_it_was_begun_with():
    clips = load_clips(rising_or_falling())
    split = make_split(clips.table)
    asked = TrainConfig(head="gru", options={"preset": "regularised"})
    now = resolve(asked, [split])
    former = dataclasses.replace(now, schedule="constant", weight_decay=0.0)
    again = resolve(asked, [split], recorded=Identity.of(clips, [split], former))
    assert again == former
    assert again != now


def test_mstcn_waits_longer_for_its_validation_loss_and_its_published_preset_does_not():
    split = make_split(load_clips(rising_or_falling()).table)
    own = resolve(TrainConfig(head="mstcn"), [split])
    assert (own.epochs, own.patience, own.lr) == (100, 40, 2e-3)
    published = resolve(TrainConfig(head="mstcn", options={"preset": "published"}), [split])
    assert (published.epochs, published.patience, published.lr) == (60, 12, 5e-4)


@pytest.mark.parametrize("head", ["lstm", "gru", "bilstm", "tcn"])
def test_few_clips_have_the_preset_for_few_unless_an_option_is_given(head):
    kind = head_kind(head)
    clips = load_clips(rising_or_falling())
    split = make_split(clips.table)
    many = dataclasses.replace(split, train=np.arange(FEW_TRAINED))
    asked = TrainConfig(head=head)
    settings = resolve(asked, [split])
    assert settings.options == {"preset": "few"}
    assert kind.configure(settings.options).pool == "segments"
    assert (settings.lr, settings.epochs, settings.train_batch) == (2e-3, 40, 32)
    standard = kind.configure({"preset": "standard"})
    for options, of in (({}, many), ({"units": 8}, split), ({"preset": "standard"}, split)):
        other = resolve(dataclasses.replace(asked, options=options), [of])
        assert other.options == options
        assert (other.lr, other.epochs) == (kind.lr, asked.epochs)
    assert standard == kind.configure({}) == kind.config()


@pytest.mark.long
def test_a_run_that_was_begun_with_the_standard_head_is_resumed_with_it(tmp_path):
    begun = TrainConfig(head="gru", options={"preset": "standard"}, epochs=2, baselines=False)
    plain = dataclasses.replace(begun, options={})
    train(rising_or_falling(), begun, tmp_path / "run", on_epoch=interrupt_at(1))
    metrics = train(rising_or_falling(), plain, tmp_path / "run", resume=True)
    assert metrics["epochs"] == 2
    assert load_run(tmp_path / "run").config["head"]["config"]["units"] == 16
    few = train(rising_or_falling(), plain, tmp_path / "few")
    assert few["advice"][0].startswith("gru was trained by its preset few")


def test_weight_decay_shrinks_kernels_and_no_biases():
    features = np.zeros((4, 3, 2), np.float32)
    inputs = {"features": features, "mask": np.ones((4, 3), bool)}
    model = build_head("mlp", 3, (2,), 2, {"units": 4, "second_units": 4, "dropout": 0.0})
    compile_head(model, 0.1, weight_decay=0.5)
    before = [w + 1 for w in model.get_weights()]
    model.set_weights(before)
    model.train_on_batch(inputs, np.full((4, 2), 0.5, np.float32))
    first = model.layers[[type(la).__name__ for la in model.layers].index("Dense")]
    # Features are zeros: nothing but the decay changes this kernel.
    np.testing.assert_allclose(np.asarray(first.kernel), before[0] * (1 - 0.1 * 0.5), rtol=1e-5)


def test_the_kept_weights_are_the_running_average_of_those_of_each_step(tmp_path, monkeypatch):
    seen: list[list[np.ndarray]] = []
    epoch = epochs._train_epoch

    def watched(fit: Any, *rest: Any) -> Any:
        fit.model.train_on_batch = watching(fit.model)
        return epoch(fit, *rest)

    def watching(model: Any) -> Any:
        real = type(model).train_on_batch

        def step(*arguments: Any, **options: Any) -> Any:
            logs = real(model, *arguments, **options)
            seen.append([np.array(w) for w in model.get_weights()])
            return logs

        return step

    monkeypatch.setattr(epochs, "_train_epoch", watched)
    config = dataclasses.replace(MLP, weight_averaging=0.9, stopping="fixed", epochs=2)
    train(rising_or_falling(), config, tmp_path / "run")
    average = seen[0]
    for weights in seen[1:]:
        average = [0.9 * a + 0.1 * w for a, w in zip(average, weights, strict=True)]
    kept = load_run(tmp_path / "run").model.get_weights()
    for ours, theirs in zip(kept, average, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_rate_warms_up_and_then_follows_its_schedule():
    config = dataclasses.replace(MLP, lr=0.1, epochs=10, warmup=0.3)
    progress = Progress()
    rates = []
    for _ in range(6):
        rates.append(epochs._learning_rate(config, progress))
        progress.history.append(None)  # type: ignore[arg-type]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


REGULARISED = dataclasses.replace(
    MLP, weight_averaging=0.9, weight_decay=0.01, warmup=0.3, schedule="cosine", stopping="inner"
)


@pytest.mark.long
def test_a_regularised_training_resumes_to_the_same_bits(tmp_path):
    source = rising_or_falling()
    whole = train(source, REGULARISED, tmp_path / "whole")
    assert whole["choice"]["folds"] == 3
    assert len(whole["choice"]["tried"]) == 4
    assert whole["epochs"] == whole["choice"]["epochs"]
    fixed = dataclasses.replace(REGULARISED, stopping="fixed")
    train(source, fixed, tmp_path / "fixed")
    train(source, fixed, tmp_path / "half", on_epoch=interrupt_at(2))
    metrics = train(source, fixed, tmp_path / "half", resume=True)
    assert metrics["epochs"] == metrics["best_epoch"] == 4
    assert result_of(tmp_path / "half") == result_of(tmp_path / "fixed")


@pytest.mark.long
def test_inner_folds_choose_the_epochs_of_a_training_that_overfits(tmp_path, monkeypatch):
    losses = iter([[3.0, 1.0, 2.0, 4.0]] * fitting.INNER_FOLDS)
    real = fitting.fit_head

    def fitted(fit: Any, progress: Progress, callbacks: Any, after_epoch: Any = None) -> None:
        real(fit, progress, callbacks, after_epoch)
        if fit.settings.stopping == "fixed":
            progress.history = [
                dataclasses.replace(report, val_loss=loss)
                for report, loss in zip(progress.history, next(losses), strict=True)
            ]

    monkeypatch.setattr(fitting, "fit_head", fitted)
    config = dataclasses.replace(MLP, stopping="inner")
    metrics = train(rising_or_falling(), config, tmp_path / "run")
    assert metrics["epochs"] == metrics["choice"]["epochs"] == 2
    assert any("chosen by inner folds" in sentence for sentence in metrics["advice"])


def test_a_run_of_an_older_version_has_the_settings_that_there_were_not():
    clips = load_clips(rising_or_falling())
    split = make_split(clips.table)
    plain = Identity.of(clips, [split], resolve(MLP, [split]))
    other = dataclasses.replace(MLP, stopping="fixed", weight_decay=0.1)
    said = plain.differences(Identity.of(clips, [split], resolve(other, [split])))
    assert said == ["weight_decay 0.0, now 0.1", "stopping validation, now fixed"]
    back = Identity.of(clips, [split], resolve(other, [split])).differences(plain)
    assert back == ["weight_decay 0.1, now 0.0", "stopping fixed, now validation"]


def noise() -> Any:
    """Clips of which nothing can be learned but by heart."""
    source = rising_or_falling(clips=96, groups=24)
    rng = np.random.default_rng(0)
    source.features = rng.normal(size=source.features.shape).astype(np.float16)
    return source


@pytest.mark.long
def test_a_training_that_learned_by_heart_says_what_it_saw_and_what_to_try(tmp_path):
    options = {"units": 64, "second_units": 64, "dropout": 0}
    config = dataclasses.replace(MLP, options=options, epochs=40, patience=40, lr=1e-2)
    metrics = train(noise(), config, tmp_path / "run")
    said = [sentence for sentence in metrics["advice"] if "is at chance" in sentence]
    assert len(said) == 1
    assert "mlp has learned its" in said[0]
    assert "--head pyramid" in said[0]
    good = train(rising_or_falling(), dataclasses.replace(MLP, epochs=40), tmp_path / "good")
    assert not [sentence for sentence in good["advice"] if "is at chance" in sentence]
    assert "validation clips are few to choose an epoch by" in good["advice"][0]


@pytest.fixture
def quick_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the recurrent candidate, which takes seconds to compile in every fold."""
    monkeypatch.setattr(choosing, "CANDIDATES", choosing.CANDIDATES[:2])


@pytest.mark.long
def test_auto_trains_the_best_of_a_few_and_records_by_which_figures(quick_candidates, tmp_path):
    source = rising_or_falling(clips=96, groups=24)
    config = TrainConfig(head="auto", epochs=3, baselines=False)
    metrics = train(source, config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["asked"]["head"] == "auto"
    assert record["chosen"] == metrics["chosen"]
    tried = {each["head"]: each["top1"] for each in record["chosen"]["tried"]}
    assert list(tried) == ["pyramid", "frame_average"]
    assert tried["frame_average"] < 0.75 < tried["pyramid"]
    assert metrics["head"] == record["head"]["name"] == record["chosen"]["head"]
    assert tried[metrics["head"]] == max(tried.values())
    # No clip but those of the training part had a say.
    others = np.setdiff1d(np.arange(96), record["split"]["train"]["rows"])
    source.features[others] = np.random.default_rng(1).normal(size=(len(others), 8, 6))
    again = chosen_head(load_clips(source), config)
    assert again.record == record["chosen"]


@pytest.mark.long
def test_every_candidate_can_be_trained(tmp_path):
    config = TrainConfig(head="auto", epochs=2, baselines=False)
    metrics = train(rising_or_falling(clips=96, groups=24), config, tmp_path / "run")
    tried = {each["head"]: each["top1"] for each in metrics["chosen"]["tried"]}
    assert list(tried) == [head for head, _ in choosing.CANDIDATES]
    assert metrics["test"]["top1"] >= 0.9


def test_auto_takes_no_options_no_folds_no_frames_and_no_handful_of_clips(quick_candidates):
    clips = load_clips(rising_or_falling())
    auto = TrainConfig(head="auto")
    with pytest.raises(ConfigError, match="options are given"):
        chosen_head(clips, dataclasses.replace(auto, options={"units": 3}))
    with pytest.raises(ConfigError, match="split is kfold"):
        chosen_head(clips, dataclasses.replace(auto, split="kfold"))
    with pytest.raises(SpecMismatch, match="this store holds frames"):
        chosen_head(dataclasses.replace(clips, shape=(8, 8, 3)), auto)
    few = load_clips(rising_or_falling(clips=8, groups=4))
    with pytest.raises(ConfigError, match="training clips are too few"):
        chosen_head(few, dataclasses.replace(auto, split="stratified"))


@pytest.mark.long
def test_a_resumed_run_keeps_the_head_that_was_chosen(quick_candidates, tmp_path, monkeypatch):
    source = rising_or_falling(clips=96, groups=24)
    config = TrainConfig(head="auto", epochs=3, baselines=False)
    train(source, config, tmp_path / "run", on_epoch=interrupt_at(1))

    def refuse(*_: Any) -> None:
        raise AssertionError("a head was chosen again")

    monkeypatch.setattr(choosing, "_compared", refuse)
    metrics = train(source, config, tmp_path / "run", resume=True)
    assert not metrics["stopped"]
    assert Path(tmp_path / "run" / "metrics.json").exists()
    assert metrics["chosen"]["head"] == metrics["head"]


def clips_of_steps(lengths: tuple[int, ...] = (8, 5, 3, 1)) -> tuple[np.ndarray, np.ndarray]:
    """Clips whose features are 100 · clip + step + 1, zero in padding."""
    steps = np.arange(8)
    mask = steps[None] < np.array(lengths)[:, None]
    values = 100 * np.arange(len(lengths))[:, None] + steps[None] + 1.0
    return np.where(mask, values, 0)[..., None].astype(np.float32), mask


def test_a_masked_span_is_one_of_real_steps_and_never_the_whole_clip():
    features, mask = clips_of_steps()
    fill = np.array([-1.0], np.float32)
    spans = set()
    for seed in range(200):
        masked = mask_steps(features, mask, 0.5, fill, np.random.default_rng(seed))[..., 0]
        changed = masked != features[..., 0]
        assert (masked[changed] == -1).all()
        assert not (changed & ~mask).any()
        assert (changed.sum(axis=1) <= mask.sum(axis=1) / 2).all()
        for clip in changed:
            at = np.flatnonzero(clip)
            assert len(at) == 0 or at[-1] - at[0] + 1 == len(at)
        spans.add(int(changed[0].sum()))
    assert {0, 1, 2, 3, 4} <= spans
    again = mask_steps(features, mask, 0.5, fill, np.random.default_rng(3))
    np.testing.assert_array_equal(
        again, mask_steps(features, mask, 0.5, fill, np.random.default_rng(3))
    )


def test_mixed_clips_keep_their_mask_and_their_targets_have_the_features_weights():
    features, mask = clips_of_steps()
    features = np.where(mask[..., None], np.arange(1.0, 5)[:, None, None], 0).astype(np.float32)
    features[~mask] = np.nan
    targets = np.eye(4, dtype=np.float32)
    mixed, soft = mix_clips(features, mask, targets, 0.5, np.random.default_rng(1))
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    assert (np.diag(soft) >= 0.5).all()
    assert (np.diag(soft) < 1).any()
    # Clip k is k + 1 at all steps, so a mixed clip's value tells the weights.
    for clip in range(4):
        wanted = float(soft[clip] @ np.arange(1.0, 5))
        np.testing.assert_allclose(mixed[clip][mask[clip]], wanted, rtol=1e-5)


def test_augmentations_are_of_the_seed_and_leave_an_unaugmented_training_as_it_was(tmp_path):
    augmented = dataclasses.replace(MLP, step_masking=0.4, mixup=0.3, feature_dropout=0.1)
    runs = {}
    for name, config in (("a", augmented), ("b", augmented), ("plain", MLP)):
        train(rising_or_falling(), config, tmp_path / name)
        runs[name] = result_of(tmp_path / name)
    assert runs["a"] == runs["b"] != runs["plain"]
