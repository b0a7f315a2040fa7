"""A run whose head labels steps: trained on its split and written to its folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pipeline.heads import run_folder
from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.epochs import Callbacks
from pipeline.heads.plan import Plan
from pipeline.heads.plots import draw_plots
from pipeline.heads.steps.evaluation import evaluate_steps
from pipeline.heads.steps.fitting import fit_videos
from pipeline.heads.steps.segments import read_segments
from pipeline.heads.steps.strips import draw_strips
from pipeline.heads.steps.videos import StepClips
from pipeline.plain import write_json


def train_videos(plan: Plan, folder: Path, callbacks: Callbacks, started: float) -> dict[str, Any]:
    """Fit, write model, history, figures, then plots; returns the metrics. Stops as any training does."""
    clips = plan.clips
    assert isinstance(clips, StepClips)
    checkpoint = Checkpoint(folder / run_folder.CHECKPOINT, plan.identity.hash)
    fitted = fit_videos(
        clips, plan.splits[0], plan.settings, checkpoint=checkpoint, callbacks=callbacks
    )
    if fitted.progress.stopped:
        checkpoint.save()
    try:
        run_folder.save_model(fitted.head, folder / "model.keras")
        run_folder.write_history(folder / "history.csv", fitted.progress.history)
        metrics = evaluate_steps(folder, fitted)
        metrics["seconds"] = time.perf_counter() - started
        write_json(folder / run_folder.DONE, metrics)
        names = ["curves.png", "model.png"] if clips.multi_label else None
        draw_plots(folder, fitted.head, *([names] if names else []))
        draw_strips(read_segments(folder), folder / "strips.png", clips.classes)
    except KeyboardInterrupt:
        # All epochs are done: the state of the last is worth more than what its budget saved.
        checkpoint.save()
        raise
    return metrics
