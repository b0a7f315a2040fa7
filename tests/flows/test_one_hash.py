"""Equal trainings of one seed give equal bits: alone, beside others, streamed, resumed, in a sweep."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import store
from flows.settings.training import TrainSettings
from flows.train.shared import train_config
from pipeline.heads.clips import load_clips
from pipeline.heads.training import train
from tests.flows.running import finish, run, start
from tests.flows.stores import rising_or_falling
from tests.heads.test_identity import interrupt_at
from tests.heads.test_seeds import drawing_all_the_time

DRAWS = False
HEADS = {
    "gru": "units=6,second_units=4",
    "mlp": "units=8,second_units=8",
    "transformer": "",
}
WORDS = ("--epochs", "3", "--seed", "7", "--feature-dropout", "0.1", "--step-jitter", "1")
Digests = dict[str, str]


def digest_of(run_folder: Path) -> str:
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    assert not metrics["stopped"]
    return str(metrics["digest"])


def in_this_process(head: str, url: str, runs: Path) -> Iterator[tuple[str, str]]:
    """Fifteen trainings: in memory, streamed, beside a thread that draws, and resumed."""
    settings = TrainSettings(
        store=url,
        head=head,
        options=HEADS[head],
        epochs=3,
        seed=7,
        feature_dropout=0.1,
        step_jitter=1,
    )
    config = train_config(settings)

    def one(name: str, *, stream: bool = False, stop_at: int = 0) -> tuple[str, str]:
        clips = load_clips(store.open(url, frozen=True), stream=stream)
        if stop_at:
            train(clips, config, runs / name, on_epoch=interrupt_at(stop_at))
        train(clips, config, runs / name, resume=bool(stop_at))
        return name, digest_of(runs / name)

    for number in range(3):
        yield one(f"memory {number}")
        yield one(f"streamed {number}", stream=True)
    with drawing_all_the_time():
        for number in range(2):
            yield one(f"beside a thread {number}")
            yield one(f"streamed beside a thread {number}", stream=True)
        yield one("resumed beside a thread", stop_at=1)
    for epoch in (1, 2):
        yield one(f"resumed after {epoch}", stop_at=epoch)
        yield one(f"streamed, resumed after {epoch}", stream=True, stop_at=epoch)


def in_processes(head: str, url: str, cwd: Path) -> Iterator[tuple[str, str]]:
    """Five trainings as a user starts them: without a server, beside one, of seeds, in sweeps."""
    words = ("--store", url, *WORDS)
    own = ("--options", HEADS[head]) if HEADS[head] else ()
    trained = ("train", "--head", head, *own, *words)
    alone = run(*trained, "--name", "alone", cwd=cwd, env={"PREFECT_API_URL": ""})
    assert alone.status == 0, alone.err
    assert "watch:" not in alone.err
    yield "alone", digest_of(cwd / "runs" / "alone")
    beside = run(*trained, "--name", "beside", cwd=cwd)
    assert beside.status == 0, beside.err
    assert "watch:" in beside.err
    yield "beside a server", digest_of(cwd / "runs" / "beside")
    # Ctrl-C as a terminal sends it, then gone on with.
    process = start(*trained, "--name", "stopped", cwd=cwd)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch   1/"):
            process.send_signal(signal.SIGINT)
            break
    stopped = finish(process)
    assert stopped.status == 130, stopped.err
    again = run(*trained, "--name", "stopped", "--resume", cwd=cwd)
    assert again.status == 0, again.err
    yield "Ctrl-C, resumed", digest_of(cwd / "runs" / "stopped")
    asked = f"{head}:{HEADS[head]}" if HEADS[head] else head
    others = [f"{name}:{options}" if options else name for name, options in HEADS.items()]
    for name, heads in (("one", asked), ("three", " ".join(others))):
        swept = run(
            "sweep", "--heads", heads, "--name", name, *words, "--json", cwd=cwd, timeout_s=600
        )
        assert swept.status == 0, swept.err
        (mine,) = [each for each in swept.json["outcomes"] if each["head"] == head]
        yield f"sweep of {name}", digest_of(cwd / "runs" / mine["name"])


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("head", HEADS)
def test_twenty_equal_trainings_of_one_seed_are_one_head(
    head: str, prefect_api: str, tmp_path: Path
) -> None:
    url = rising_or_falling(tmp_path / "s.zarr")
    digests: Digests = dict(in_this_process(head, url, tmp_path / "here"))
    digests |= dict(in_processes(head, url, tmp_path))
    assert len(digests) == 20
    assert len(set(digests.values())) == 1, digests
    print(head, len(digests), "trainings:", *set(digests.values()))
