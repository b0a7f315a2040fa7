"""What a user should know of a split before its figures are read."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline.heads.given import given_parts
from pipeline.heads.holdout import Holdout, kept_out, named
from pipeline.heads.source import normalised, usable
from pipeline.heads.splits import GROUPED, resolve_way, rows_of_test_set


def split_notes(
    table: pd.DataFrame, how: str, holdouts: Sequence[Holdout] = (), test_set: str = ""
) -> list[str]:
    """What a user should know of this way to split these clips, a sentence each."""
    clips = usable(normalised(table))
    notes = []
    alone = int(clips["group"].eq("").sum())
    resolved = resolve_way(table, how)
    if resolved in GROUPED and 0 < alone < len(clips):
        notes.append(
            f"{alone} of {len(clips)} clips have no group: each counts as a group of its own"
        )
    if resolved == "given":
        parts = given_parts(clips)
        if missing := parts.count(""):
            notes.append(
                f"{missing} of {len(clips)} clips have no split: they are neither trained on nor "
                "tested"
            )
    elif clips["split"].astype(str).str.strip().ne("").any():
        notes.append(f"the split column of these clips is not used: split is {resolved}")
    if out := int(kept_out(holdouts, clips).sum()):
        names = ", ".join(holdout.name for holdout in holdouts)
        notes.append(
            f"{out} clips stay out of the training for the test sets of the store: {names}"
        )
    if test_set:
        wanted = len(named(holdouts, test_set).video_ids)
        there = len(rows_of_test_set(clips, holdouts, test_set))
        if there < wanted:
            notes.append(f"{wanted - there} of {wanted} clips of {test_set} cannot be used now")
    return notes
