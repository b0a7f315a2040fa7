"""`pixels-once search`: the best head and settings for a store, by inner folds of its training clips."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from flows.cli.terminal import print_json, print_table, suggest
from flows.cli.train import print_metrics
from flows.server.lifetime import importing, prefect_server
from flows.settings.training import SearchSettings as Settings

EXAMPLES = """
pixels-once search --store clips.zarr --heads "gru bilstm pyramid" --trials 60
pixels-once search --store clips.zarr --heads "gru:project=128,pool=mean+max" --trials 30 --name tuned
"""
SHOWN = 5


def run(settings: Settings, *, json: bool) -> int:
    """Search, and print the best trials and the run that was trained from the first of them."""
    with prefect_server(beside=importing("flows.train.search")):
        from flows.train.search import search
        from flows.train.study import require_optuna

        require_optuna()
        found = search(settings)
    winner = Path(settings.runs) / found.winner.name
    if json:
        print_json(
            search=str(found.folder),
            trials=found.trials,
            best=found.best,
            winner=asdict(found.winner),
        )
        return 0
    done = [trial for trial in found.trials if trial["state"] == "complete"]
    best = sorted(done, key=lambda trial: (-trial["score"], trial["trial"]))[:SHOWN]
    states = [trial["state"] for trial in found.trials]
    print_table(
        f"{len(done)} trials scored, {states.count('pruned')} given up, {states.count('fail')} failed; "
        f"all in {found.folder}/trials.csv",
        ("trial", "head", "top-1", "loss", "settings"),
        [
            (
                trial["trial"],
                trial["point"]["head"],
                f"{trial['top1']:.3f}",
                f"{trial['loss']:.3f}",
                _text(trial["point"]["options"] | trial["point"]["changes"]),
            )
            for trial in best
        ],
    )
    print("top-1 and loss are those on inner folds of the training clips")
    print_metrics(winner, found.winner.metrics)
    suggest("compare", "--runs", settings.runs)
    return 0


def _text(values: dict[str, object]) -> str:
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
    )
