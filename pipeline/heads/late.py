"""Streams joined late: a head for each, their probabilities pooled with weights by inner folds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.heads import fitting
from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.epochs import Callbacks, EpochReport, Fit, Progress
from pipeline.heads.fitting import INNER_FOLDS, Fitted
from pipeline.heads.inference import predict_probabilities
from pipeline.heads.joined_source import JoinedSource
from pipeline.heads.leakage import require_apart
from pipeline.heads.measures import (
    Labels,
    Probabilities,
    class_weights,
    cross_entropy,
    predicted_classes,
)
from pipeline.heads.shuffling import ShuffledSource
from pipeline.heads.source import Float64
from pipeline.heads.splits import Split
from pipeline.heads.statistics import Statistics
from pipeline.heads.streams import Stream, streams_in
from pipeline.heads.weighing import pooled, weigh
from pipeline.heads.within import folds_within


def fit_split(
    clips: Clips,
    split: Split,
    settings: TrainConfig,
    *,
    checkpoint: Checkpoint | None = None,
    callbacks: Callbacks | None = None,
    last_epoch: int | Sequence[int] = 0,
) -> Fitted:
    """Train one head on one split, or, of streams that are joined late, one for each.

    As `fitting.fit_single`. last_epoch: of each stream where there are several. If a stream's training
    is stopped, its state is kept under `checkpoint`, and `KeyboardInterrupt` is raised: there is nothing
    to pool yet.
    """
    streams = streams_in(clips)
    if not streams or settings.join != "late":
        epochs = last_epoch if isinstance(last_epoch, int) else max(last_epoch)
        return fitting.fit_single(
            clips, split, settings, checkpoint=checkpoint, callbacks=callbacks, last_epoch=epochs
        )
    require_apart(clips, split)
    started = time.perf_counter()
    callbacks = callbacks or Callbacks()
    each_last = [last_epoch] * len(streams) if isinstance(last_epoch, int) else list(last_epoch)
    fits, held = [], []
    for number in range(len(streams)):
        fitted = _fit_stream(
            clips, number, split, settings, checkpoint, callbacks, each_last[number]
        )
        fits.append(fitted)
        held.append(_held_out(fitted, settings, callbacks))
    weights, judged = _weights(held, clips, split, settings)
    figures = [
        {
            "name": stream.name,
            "weight": float(weight),
            "best_epoch": fitted.progress.best_epoch,
            **figure,
        }
        for stream, weight, fitted, figure in zip(streams, weights, fits, judged, strict=True)
    ]
    return _joint(clips, split, settings, fits, weights, figures, started)


def _fit_stream(
    clips: Clips,
    number: int,
    split: Split,
    settings: TrainConfig,
    checkpoint: Checkpoint | None,
    callbacks: Callbacks,
    last_epoch: int,
) -> Fitted:
    """The head of one stream."""
    streams = streams_in(clips)
    own = None
    if checkpoint is not None:
        folder = checkpoint.folder / f"stream-{number + 1}"
        own = Checkpoint(folder, f"{checkpoint.identity} stream {number + 1}")

    def on_epoch(report: EpochReport) -> None:
        if callbacks.on_epoch is not None:
            callbacks.on_epoch(replace(report, stream=number + 1, streams=len(streams)))

    fitted = fitting.fit_single(
        stream_clips(clips, number),
        split,
        settings,
        checkpoint=own,
        callbacks=Callbacks(on_epoch=on_epoch, stop=callbacks.stop),
        last_epoch=last_epoch,
    )
    if own is not None:
        own.save()  # so that a training that is resumed begins with the next stream
    if fitted.progress.stopped:
        raise KeyboardInterrupt(
            f"stopped in stream {number + 1} of {len(streams)}: resume later",
            fitted.progress.stopped_by,
        )
    return fitted


def _held_out(fitted: Fitted, settings: TrainConfig, callbacks: Callbacks) -> Probabilities | None:
    """Predictions of the training clips, each by a head without its inner fold; None without folds.

    A head that is solved for has them from the choice of its strength. Others are trained once more for
    each fold, for as many epochs as were best.
    """
    if fitted.progress.held_out is not None or fitted.progress.choice.get("strength"):
        return fitted.progress.held_out
    clips, split = fitted.fit.clips, fitted.fit.split
    folds = folds_within(clips.table, split, INNER_FOLDS, settings.seed)
    if not folds:
        return None
    found = np.zeros((len(split.train), len(clips.classes)), np.float32)
    for fold in folds:
        one = fitting.fit_single(
            clips,
            fold,
            replace(settings, stopping="fixed", ensemble=1),
            callbacks=Callbacks(stop=callbacks.stop),
            last_epoch=fitted.progress.best_epoch,
        )
        if one.progress.stopped:
            raise KeyboardInterrupt(
                "stopped while streams were weighed: resume later", one.progress.stopped_by
            )
        found[np.isin(split.train, fold.test)] = one.parts["test"][1]
    return found


def _weights(
    held: Sequence[Probabilities | None], clips: Clips, split: Split, settings: TrainConfig
) -> tuple[Float64, list[dict[str, Any]]]:
    """The streams' weights, and what each alone says of clips that it was not fitted on."""
    known = [each for each in held if each is not None]
    if len(known) < len(held):  # too few clips for folds
        return np.full(len(held), 1 / len(held)), [{} for _ in held]
    labels = clips.labels[clips.positions(split.train)]
    each_clip = None
    if settings.class_weights:
        each_clip = class_weights(labels, len(clips.classes))[labels].astype(np.float64)
    figures = [
        {
            "inner_top1": float((predicted_classes(shares) == labels).mean()),
            "inner_loss": cross_entropy(shares, labels),
        }
        for shares in known
    ]
    return weigh(known, labels, each_clip), figures


def _joint(
    clips: Clips,
    split: Split,
    settings: TrainConfig,
    fits: Sequence[Fitted],
    weights: Float64,
    figures: list[dict[str, Any]],
    started: float,
) -> Fitted:
    # Not at the top: it is made of layers, and a list of heads needs no Keras.
    from pipeline.heads.mixing import joint_model

    streams = streams_in(clips)
    used = [number for number, weight in enumerate(weights) if weight > 0]
    model = joint_model(
        [(fits[number].fit.model, streams[number].channels) for number in used],
        [float(weights[number]) for number in used],
        clips.steps,
        streams[-1].stop,
        settings.head,
    )
    fit = Fit(
        model=model,
        clips=clips,
        split=split,
        settings=settings,
        statistics=_side_by_side([fitted.fit.statistics for fitted in fits]),
    )
    test, validation = clips.positions(split.test), clips.positions(split.validation)
    judged = pooled([fitted.parts["validation"][1] for fitted in fits], weights)
    progress = _progress(fits, streams, judged, clips.labels[validation], settings.lr)
    progress.best_weights = model.get_weights()
    _add_top1(figures, fits, clips.labels[test])
    predicted = predict_probabilities(model, clips, test, settings.train_batch)
    return Fitted(
        fit=fit,
        progress=progress,
        parts={"test": (test, predicted), "validation": (validation, judged)},
        seconds=time.perf_counter() - started,
        inference_clips_per_second=fitting.inference_rate(fit),
        streams=tuple(figures),
    )


def _progress(
    fits: Sequence[Fitted],
    streams: Sequence[Stream],
    judged: Probabilities,
    labels: Labels,
    lr: float,
) -> Progress:
    """The epochs of all streams, one after the other, and the validation of the pooled predictions."""
    reports = [
        replace(report, stream=number + 1, streams=len(streams))
        for number, fitted in enumerate(fits)
        for report in fitted.progress.history
    ]
    history = [
        replace(report, epoch=number, epochs=len(reports))
        for number, report in enumerate(reports, start=1)
    ]
    return Progress(
        history=history,
        best_loss=cross_entropy(judged, labels) if len(labels) else float("nan"),
        best_epoch=len(history),
        lr=lr,
        choice=_choices(streams, fits),
        validation=judged,
    )


def _add_top1(figures: list[dict[str, Any]], fits: Sequence[Fitted], labels: Labels) -> None:
    """Note in each stream's figures what it alone has of the test clips."""
    for figure, fitted in zip(figures, fits, strict=True):
        hits = predicted_classes(fitted.parts["test"][1]) == labels
        figure["top1"] = float(hits.mean()) if len(hits) else float("nan")


def _choices(streams: Sequence[Stream], fits: Sequence[Fitted]) -> dict[str, Any]:
    """Stream → what was chosen for its head by inner folds; empty where nothing was."""
    return {
        stream.name: fitted.progress.choice
        for stream, fitted in zip(streams, fits, strict=True)
        if fitted.progress.choice
    }


def stream_clips(clips: Clips, number: int) -> Clips:
    """The same clips with the features of one stream (from 0) alone."""
    stream, joined = streams_in(clips)[number], clips.source
    assert isinstance(joined, JoinedSource | ShuffledSource)
    alone = joined.alone(number)
    features = None if clips.features is None else clips.features[..., stream.channels]
    return replace(
        clips,
        source=alone,
        features=features,
        digests=clips.table[f"stream_{number + 1}"].to_numpy(np.uint32),
        fingerprint=stream.fingerprint,
        spec=stream.spec,
        shape=alone.shape,
    )


def _side_by_side(statistics: Sequence[Statistics]) -> Statistics:
    return Statistics(
        mean=np.concatenate([each.mean for each in statistics]),
        scale=np.concatenate([each.scale for each in statistics]),
    )
