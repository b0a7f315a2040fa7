"""`pixels-once freeze`: sets clips of a store apart as a named test set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.cli.forget import matching
from flows.cli.terminal import print_json, print_table
from flows.settings.resolve import LARGEST_SEED, setting

if TYPE_CHECKING:
    from pipeline.heads.clips import Clips
    from pipeline.heads.holdout import Holdout

EXAMPLES = """
pixels-once freeze --store clips.zarr --name 2026
pixels-once freeze --store clips.zarr --name cameras-7-8 --clips '*/cam7_*,*/cam8_*'
pixels-once freeze --store clips.zarr
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Reserves clips of a store as a permanent, named test set; without a name lists the sets.

    From then on no training uses them, their groups or equal bytes; train, sweep, search and refresh
    test on them by name (--test-set NAME).
    """

    store: str = setting("features.zarr", "the store", metavar="PATH")
    name: str = setting("", "name of the test set; empty: list all", metavar="NAME")
    clips: str = setting(
        "",
        "ids of its clips, separated by commas; * and ? match any part, e.g. 'fight/v_Fight_g0*' "
        "(default: chosen as --split says)",
        metavar="ID,…",
    )
    split: str = setting(
        "auto",
        "how it is chosen: the data's own test clips (given), whole groups, or a share of each class; "
        "auto: the first of these that is possible",
        choices=("auto", "given", "grouped", "stratified"),
    )
    fraction: float = setting(
        0.15, "share of the clips, for grouped and stratified", metavar="FRACTION", most=1
    )
    seed: int = setting(0, "decides which groups or clips are taken", most=LARGEST_SEED)
    lease: bool = setting(True, "hold the store's lease while writing")


def run(settings: Settings, *, json: bool) -> int:
    """Write the set and say how many clips it has and keeps out; or list the store's sets."""
    import store
    from flows.train.promotion import require_name, write_test_set
    from flows.train.shared import store_warnings
    from pipeline.heads.clips import load_clips

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


def _chosen(settings: Settings, clips: Clips) -> Holdout:
    from pipeline.heads.freezing import cut_holdout, holdout_of_ids

    if not settings.clips:
        return cut_holdout(
            clips, settings.name, how=settings.split, fraction=settings.fraction, seed=settings.seed
        )
    ids = matching(clips.table["video_id"], settings.clips, settings.store)
    return holdout_of_ids(clips, settings.name, ids)


def _list(settings: Settings, clips: Clips, raw: dict[str, Any], *, json: bool) -> None:
    lines = [
        _line(holdout, clips) | {"made_at": raw[holdout.name].get("made_at", "")}
        for holdout in clips.holdouts
    ]
    if json:
        print_json({"store": settings.store, "test_sets": lines})
        return
    names = ("name", "clips", "usable", "groups", "kept_out", "made_at")
    rows = [tuple(line[name] for name in names) for line in lines]
    print_table(f"test sets of {settings.store}", names, rows)


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
