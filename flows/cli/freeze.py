"""`pixels-once freeze`: sets clips of a store apart as a named test set."""

from __future__ import annotations

from typing import Any

import store
from flows.cli.forget import matching
from flows.cli.terminal import print_json, print_table
from flows.settings import FreezeSettings
from flows.train.flow import store_warnings
from flows.train.test_sets import require_name, write_test_set
from pipeline.heads.clips import Clips, load_clips
from pipeline.heads.freezing import cut_holdout, holdout_of_ids
from pipeline.heads.holdout import Holdout


def run(settings: FreezeSettings, *, json: bool) -> int:
    """Write the set and say how many clips it has and keeps out; or list the store's sets."""
    source = store.open(settings.store)
    with store_warnings():
        # Its features are not needed, only which clips can be used.
        clips = load_clips(source, stream=True)
    if not settings.name:
        _list(settings, clips, source.test_sets, json=json)
        return 0
    require_name(settings.name)
    if settings.name in source.test_sets:
        raise store.StoreMismatch(
            f"{settings.store} has a test set {settings.name} already, and one is for good: choose "
            "another name"
        )
    holdout = _chosen(settings, clips)
    write_test_set(settings.store, holdout, by="freeze", lease=settings.lease)
    line = _line(holdout, clips)
    if json:
        print_json({"store": settings.store, **line})
        return 0
    print(
        f"{settings.store}: the test set {holdout.name} has {line['clips']} clips of "
        f"{line['groups']} groups; {line['kept_out']} clips stay out of every training for it"
    )
    if not holdout.whole_groups:
        print("its groups are in the other clips too, so only its clips and equal bytes stay out")
    print(f"next: pixels-once train --store {settings.store} --test-set {holdout.name}")
    return 0


def _chosen(settings: FreezeSettings, clips: Clips) -> Holdout:
    if not settings.clips:
        return cut_holdout(
            clips,
            settings.name,
            how=settings.split,
            fraction=settings.fraction,
            seed=settings.seed,
        )
    ids = clips.table["video_id"].to_numpy().astype(str)
    return holdout_of_ids(clips, settings.name, set(ids[matching(ids, settings)]))


def _list(settings: FreezeSettings, clips: Clips, raw: dict[str, Any], *, json: bool) -> None:
    lines = [
        _line(holdout, clips) | {"made_at": raw[holdout.name].get("made_at", "")}
        for holdout in clips.holdouts
    ]
    if json:
        print_json({"store": settings.store, "test_sets": lines})
        return
    names = ("name", "clips", "usable", "groups", "kept_out", "made_at")
    print_table(
        f"test sets of {settings.store}",
        names,
        [
            tuple(line[n] for n in ("name", "clips", "usable", "groups", "kept_out", "made_at"))
            for line in lines
        ],
    )


def _line(holdout: Holdout, clips: Clips) -> dict[str, Any]:
    """A set in numbers: its clips, those that can be used now, and all that it keeps out."""
    return {
        "name": holdout.name,
        "clips": len(holdout.video_ids),
        "usable": int(holdout.tested(clips.table).sum()),
        "groups": len(holdout.groups),
        "whole_groups": holdout.whole_groups,
        "kept_out": int(holdout.kept_out(clips.table).sum()),
    }
