"""How the accepted run is held against a new one: a prediction that is not a number is never right."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flows.train import promotion
from pipeline.heads.clips import Clips, load_clips
from pipeline.heads.run_folder import FORMAT, FORMAT_VERSION
from pipeline.heads.zoo import build_head
from pipeline.plain import write_json
from tests.heads.sources import rising_or_falling


def run_of(folder: Path, clips: Clips, *, damaged: bool) -> Path:
    """A head that was never trained, as an older version's run without a digest."""
    options = {"units": 4, "second_units": 4}
    model = build_head("mlp", clips.steps, clips.shape, len(clips.classes), options, seed=1)
    if damaged:
        model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    folder.mkdir()
    model.save(folder / "model.keras")
    write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "head": {"name": "mlp"},
            "classes": clips.classes,
            "steps": clips.steps,
            "shape": clips.shape,
            "spec": clips.spec,
            "fingerprint": clips.fingerprint,
            "split": {"how": "grouped"},
        },
    )
    return folder


def test_what_is_not_a_number_is_no_hit(tmp_path: Path) -> None:
    clips = load_clips(rising_or_falling())
    every = np.arange(len(clips))
    whole = promotion.hits(run_of(tmp_path / "whole", clips, damaged=False), clips, every)
    assert whole.mean() > 0
    broken = promotion.hits(run_of(tmp_path / "broken", clips, damaged=True), clips, every)
    assert not broken.any()
