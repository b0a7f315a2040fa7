"""`pixels-once leaks`: what tells the classes without any action in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.cli.terminal import print_json, print_table, progress_bar
from flows.settings.resolve import LARGEST_SEED, setting
from pipeline.heads.config import FRACTIONS, SPLITS, TrainConfig

EXAMPLES = """
pixels-once leaks --store clips.zarr
pixels-once leaks --run runs/pyramid-clips
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Measures how well the class can be told without the action: by one frame's border, by the file.

    A classifier that sees only a border strip, or only size, bit rate, duration, frame rate and picture
    shape, is trained and tested on the same folds as a head. The result is recorded in the folder of
    runs: train, compare and report show it beside every run that was tested on the same clips.
    """

    store: str = setting(
        "features.zarr", "the store, or a quoted pattern: 'shards/*.zarr'", metavar="PATH"
    )
    run: str = setting(
        "", "a run: check on its own folds, of the store that it was trained from", metavar="DIR"
    )
    runs: str = setting("runs", "folder of all runs, where the result is recorded", metavar="DIR")
    videos: str = setting("", "where the clips are (default: where they were)", metavar="PATH")
    border: bool = setting(True, "read the clips for one frame's border")
    split: str = setting("kfold", "how the clips are split, as for train", choices=SPLITS)
    folds: int = setting(3, "number of folds, for --split kfold", least=2)
    repeats: int = setting(3, "how often all folds are cut, for --split kfold", least=1)
    seed: int = setting(0, "which clips are tested together", most=LARGEST_SEED)


def run(settings: Settings, *, json: bool) -> int:
    from flows.checks.leaks import Asked, checked_leaks
    from flows.train.shared import store_warnings
    from pipeline.heads.leaks import record_leaks

    own = Path(settings.run) if settings.run else None
    config = TrainConfig(
        split=settings.split,
        folds=settings.folds,
        repeats=settings.repeats if settings.split == "kfold" else 1,
        seed=settings.seed,
        fractions=FRACTIONS,
    )
    asked = Asked(
        store="" if own and settings.store == Settings().store else settings.store,
        run=own,
        config=config,
        videos=settings.videos,
        border=settings.border,
    )
    reading = progress_bar("reading one frame", "clips")
    with store_warnings(), reading as on_read, progress_bar("leaks", "checks") as on_check:
        record = checked_leaks(asked, on_read, on_check)
    file = record_leaks(own.resolve().parent if own else Path(settings.runs), record)
    if json:
        print_json(record | {"file": str(file)})
    else:
        _print(record, file)
    return 0


def _print(record: dict[str, Any], file: Path) -> None:
    from pipeline.heads.leaks import telling

    folds = f"{record['folds']} folds" if record["folds"] > 1 else "one split"
    often = f" × {record['repeats']}" if record["repeats"] > 1 else ""
    print_table(
        f"what tells the class without the action: {record['clips']} clips of {record['groups']} "
        f"groups, {folds}{often} ({record['split']})",
        ("seen alone", "top-1", "95 % interval", "against the commonest class", "clips", ""),
        [
            (
                check["sees"],
                "not checked" if check["top1"] is None else f"{check['top1']:.3f}",
                _span(check["interval"], ""),
                ""
                if check["lead"] is None
                else f"{check['lead']:+.3f} ({_span(check['lead_interval'], '+') or 'no interval'})",
                check["clips"],
                check["reason"],
            )
            for check in record["checks"]
        ],
    )
    print(f"chance {record['chance']:.3f} · always the commonest class {record['majority']:.3f}")
    names = ", ".join(check["sees"] for check in telling(record))
    if names:
        print(
            f"tells the class beyond chance: {names}; a head on these clips is to be judged by what it "
            "scores above that, or on a stream that cannot see it (pose, motion)"
        )
    elif record["groups"] >= 5:
        print("nothing tells the class beyond chance")
    print(f"recorded in {file}: train, compare and report show it beside runs of these test clips")


def _span(interval: list[float] | None, sign: str) -> str:
    return "" if interval is None else f"{interval[0]:{sign}.3f} to {interval[1]:{sign}.3f}"
