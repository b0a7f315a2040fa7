"""Ctrl-C in `train` as a terminal sends it: 130, the best head kept, gone on with exactly."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.heads.saved import load_run
from pipeline.heads.work_folder import RunState, run_state
from tests.flows.running import finish, run, start
from tests.flows.stores import rising_or_falling
from tests.heads.test_identity import result_of
from tests.waiting import wait_until

EPOCHS = 200
WORDS = ("--head", "mlp", "--units", "8,8", "--epochs", str(EPOCHS), "--patience", str(EPOCHS))
PLACES = ("an epoch", "the tables", "the frame average")


def metrics_of(run_folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def interrupt(process: subprocess.Popen[str], where: str, folder: Path, within_s: float) -> None:
    """Press Ctrl-C at a place of a training; `within_s` after the frame average was begun."""
    if where == "an epoch":
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("epoch   2/"))
    else:
        # Written after the head's own epochs, just before the frame average is trained.
        wait_until((folder / "leakage.csv").exists, process)
    if where == "the frame average":  # which is solved for in about a second
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() > begun + within_s, process)
    process.send_signal(signal.SIGINT)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ctrl_c_in_a_training_and_in_its_frame_average(prefect_api: str, tmp_path: Path) -> None:
    rising_or_falling(tmp_path / "s.zarr")
    words = ("train", "--store", "s.zarr", *WORDS)
    whole = run(*words, "--name", "whole", cwd=tmp_path)
    assert whole.status == 0, whole.err
    runs = tmp_path / "runs"
    for where in PLACES:
        folder = runs / where.replace(" ", "-")
        for within_s in (0.2, 0.1, 0.05, 0.02):  # what is interrupted may end before the signal
            process = start(*words, "--name", folder.name, "--json", cwd=tmp_path)
            interrupt(process, where, folder, within_s)
            stopped = finish(process)
            done = metrics_of(folder) if (folder / "metrics.json").exists() else {}
            late = where != "an epoch" and "frame_average" in done.get("baseline", {})
            if (stopped.status != 0 or "stopping after" in stopped.err) and not late:
                break
            shutil.rmtree(folder)
        assert stopped.status == 130, stopped.err
        assert run_state(folder) is RunState.UNFINISHED
        kept = metrics_of(folder) if (folder / "metrics.json").exists() else {}
        if where == "an epoch":
            assert (kept["stopped"], kept["stopped_by"]) == (True, "SIGINT")
            assert kept["epochs"] < EPOCHS
            assert "holds the best head so far, --resume goes on" in stopped.err
            assert load_run(folder).metrics["digest"] == kept["digest"]
        else:
            assert "frame_average" not in kept.get("baseline", {})
            assert result_of(folder) == result_of(runs / "whole"), "the best head is kept"
        again = run(*words, "--name", folder.name, "--resume", cwd=tmp_path)
        assert again.status == 0, again.err
        assert ("epoch   1/" in again.err, "epoch" in again.err) == (False, where == "an epoch")
        assert result_of(folder) == result_of(runs / "whole")
        for part in ("baseline", "test", "validation"):
            assert metrics_of(folder)[part] == metrics_of(runs / "whole")[part]
