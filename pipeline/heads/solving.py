"""Heads that are solved for instead of trained by gradients: all but their last layer is fixed.

What the last layer reads (a row per clip, or per step where a head averages over steps) makes a
convex problem (`linear`). Its solution becomes the weights of the Keras model, so a solved head is
saved, exported and predicted with like any other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.heads import cuts, linear
from pipeline.heads.epochs import Callbacks, EpochReport, Fit, Progress
from pipeline.heads.inference import predict_probabilities
from pipeline.heads.last_layer import LastLayer
from pipeline.heads.measures import Probabilities, cross_entropy, predicted_classes
from pipeline.heads.source import Rows
from pipeline.heads.zoo import head_kind

FOLDS = 5
PLAIN = 1.0
"""The strength where there are too few clips for inner folds."""


def solve_head(fit: Fit, progress: Progress, callbacks: Callbacks) -> None:
    """Solve for a head and leave the weights in the model: one epoch in `progress`.

    The strength is chosen by inner folds of the training clips. The solution for these clips is
    judged on the validation clips (`progress.validation`); the one that stays is for both together,
    because nothing is left to be chosen by validation. Equal fits give equal bits.

    Raises KeyboardInterrupt, with nothing in `progress`, if it is stopped.
    """
    started = time.perf_counter()
    clips, split, batch = fit.clips, fit.split, fit.settings.train_batch
    train, validation = clips.positions(split.train), clips.positions(split.validation)

    def check() -> None:
        if callbacks.stopping:
            raise KeyboardInterrupt("stopped while it was solved for")

    last = LastLayer(fit, check)
    choice, progress.held_out = _choice(fit, last, train)
    solved = last.solved(train, choice)
    last.put(solved)
    loss, top1 = float("nan"), float("nan")
    if len(validation):
        progress.validation = predict_probabilities(fit.model, clips, validation, batch)
        labels = clips.labels[validation]
        loss = cross_entropy(progress.validation, labels)
        top1 = float((predicted_classes(progress.validation) == labels).mean())
        last.put(last.solved(np.sort(np.concatenate([train, validation])), choice))
    seconds = time.perf_counter() - started
    progress.choice = choice
    progress.best_loss, progress.best_epoch = loss, 1
    progress.best_weights = fit.model.get_weights()
    report = EpochReport(
        epoch=1,
        epochs=1,
        loss=solved.loss,
        top1=solved.top1,
        val_loss=loss,
        val_top1=top1,
        lr=0.0,
        seconds=seconds,
        clips_per_second=len(train) / max(seconds, 1e-9),
        best=True,
        fold=split.fold,
        folds=split.folds,
    )
    progress.history.append(report)
    if callbacks.on_epoch is not None:
        callbacks.on_epoch(report)


def _choice(fit: Fit, last: LastLayer, train: Rows) -> tuple[dict[str, Any], Probabilities | None]:
    """strength, sharpness of the logits, inner folds, and what each strength gave in them.

    And (clips, classes) of each training clip by the best solution without its fold; None without folds.
    """
    settings = fit.settings
    fixed = float(head_kind(settings.head).configure(settings.options).strength)
    parts = cuts.inner_folds(fit.clips.table.iloc[train], FOLDS, settings.seed)
    if not parts.any():
        return {"strength": fixed or PLAIN, "sharpness": 1.0, "folds": 0, "tried": []}, None
    strengths = (fixed,) if fixed else linear.STRENGTHS
    tried, best, held_out = linear.choose(last.problem(train)[0], parts, strengths, last.check)
    choice = {
        "strength": best.strength,
        "sharpness": best.sharpness,
        "folds": int(parts.max()) + 1,
        "tried": [asdict(candidate) for candidate in tried],
    }
    return choice, held_out.astype(np.float32)


def choice_of(progress: Progress) -> Mapping[str, Any]:
    """What `metrics.json` records of a choice; empty for a head that is trained by gradients."""
    return {"choice": progress.choice} if progress.choice else {}
