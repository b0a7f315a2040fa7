"""Several heads that differ in their seed alone, as one: their probabilities are averaged.

The average is a Keras model like any head, so it is saved, exported and predicted with like one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.compiling import compiled_ensemble, compiled_head
from pipeline.heads.epochs import Callbacks, Fit, Progress, fit_head
from pipeline.heads.seeds import derived_seed


def fit_members(
    fit: Fit, progress: Progress, callbacks: Callbacks, checkpoint: Checkpoint | None
) -> Fit:
    """Train the heads of an ensemble one after another; returns the fit with the model of all.

    The first is the head that the run's seed gives without an ensemble. What is stopped early has the
    heads whose first epoch had ended.
    """
    settings, best = fit.settings, []
    seeds = [member_seed(settings.seed, number) for number in range(settings.ensemble)]
    for number, seed in enumerate(seeds):
        own = replace(settings, seed=seed)
        member = fit if not number else replace(fit, settings=own, member=number)
        if number:
            member = replace(member, model=compiled_head(fit.clips, own, fit.statistics))
        state, after_epoch = Progress(lr=settings.lr), None
        if checkpoint is not None:
            kept = checkpoint.member(number)
            after_epoch = kept.after_epoch
            state = kept.load(member.model) if kept.exists else state
        try:
            fit_head(member, state, callbacks, after_epoch)
        except KeyboardInterrupt as interrupt:
            state.stop(interrupt)
        if checkpoint is not None:
            checkpoint.save()
        progress.history += state.history
        if state.best_weights:
            best.append(state)
        if state.stopped:
            progress.stopped, progress.stopped_by = True, state.stopped_by
            break
    if not best or (len(best) < len(seeds) and not progress.stopped):
        return fit  # one of them diverged
    model, members = compiled_ensemble(fit.clips, settings, fit.statistics, seeds[: len(best)])
    for each, state in zip(members, best, strict=True):
        each.set_weights(state.best_weights)
    progress.best_epoch = round(float(np.median([state.best_epoch for state in best])))
    progress.best_loss = float(np.mean([state.best_loss for state in best]))
    progress.best_weights = model.get_weights()
    return replace(fit, model=model)


def member_seed(seed: int, number: int) -> int:
    """The seed of a head of an ensemble: the run's own for the first."""
    return derived_seed(seed, "member", str(number)) if number else seed
