"""`pixels-once sweep`: many heads from one store, a run and a Prefect task for each."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from flows.cli.terminal import print_json, print_over_seeds, print_table, suggest
from flows.server.lifetime import importing, prefect_server
from flows.settings.training import SweepSettings as Settings

EXAMPLES = """
pixels-once sweep --store clips.zarr
pixels-once sweep --store clips.zarr --heads "lstm gru" --grid "units=128,512 seed=0,1"
"""


def run(settings: Settings, *, json: bool) -> int:
    """Train them all and print their outcomes; status 1 only if none was trained."""
    with prefect_server(beside=importing("flows.train.sweep")):
        from flows.train.sweep import sweep
        from pipeline.heads.compare import test_set_key
        from pipeline.heads.repeats import repeats_among

        outcomes = sweep(settings)
    failed = [outcome for outcome in outcomes if outcome.error]
    status = 1 if len(failed) == len(outcomes) else 0
    ranked = sorted(
        (each for each in outcomes if each.metrics), key=lambda each: -each.metrics["test"]["top1"]
    )
    seeds = repeats_among([Path(settings.runs) / each.name for each in outcomes if each.metrics])
    if json:
        print_json(
            runs=settings.runs,
            outcomes=[asdict(each) for each in outcomes],
            over_seeds=[each.to_dict() for each in seeds],
        )
        return status
    print_table(
        f"{len(ranked)} of {len(outcomes)} heads trained in {settings.runs}/",
        ("run", "top-1", "top-5", "macro-F1", "parameters", "seconds", ""),
        [
            (
                each.name,
                *(f"{each.metrics['test'][name]:.3f}" for name in ("top1", "top5", "macro_f1")),
                each.metrics["parameters"],
                f"{each.metrics['seconds']:.0f}",
                "was finished already" if each.skipped else "",
            )
            for each in ranked
        ],
    )
    print_over_seeds(seeds)
    sets = len({test_set_key(Path(settings.runs) / each.name) for each in ranked})
    if sets > 1:
        print(
            f"{sets} test sets: figures of different ones do not compare, `compare` ranks each apart"
        )
    for each in failed:
        print(f"failed: {each.name}: {each.error}")
    suggest("compare", "--runs", settings.runs)
    return status
