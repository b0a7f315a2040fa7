"""Ctrl-C in `train` as a terminal sends it: 130, the best head kept, gone on with exactly."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.heads.saved import load_run
from tests.faults.breaking import wait_until
from tests.flows.running import finish, run, start
from tests.flows.stores import rising_or_falling
from tests.heads.test_identity import result_of

WORDS = ("--head", "mlp", "--units", "8,8", "--epochs", "40", "--patience", "40")


def metrics_of(run_folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ctrl_c_in_a_training_and_in_its_frame_average(prefect_api: str, tmp_path: Path) -> None:
    rising_or_falling(tmp_path / "s.zarr")
    words = ("train", "--store", "s.zarr", *WORDS)
    whole = run(*words, "--name", "whole", cwd=tmp_path)
    assert whole.status == 0, whole.err
    runs = tmp_path / "runs"
    for where in ("an epoch", "the frame average"):
        name = where.replace(" ", "-")
        process = start(*words, "--name", name, "--json", cwd=tmp_path)
        if where == "an epoch":
            assert process.stderr is not None
            next(line for line in process.stderr if line.startswith("epoch   2/"))
        else:
            # Written after the head's own epochs, just before the frame average is trained.
            wait_until((runs / name / "leakage.csv").exists, process)
        process.send_signal(signal.SIGINT)
        stopped = finish(process)
        assert stopped.status == 130, stopped.err
        assert "holds the best head so far, --resume goes on" in stopped.err
        kept = metrics_of(runs / name)
        assert (kept["stopped"], kept["stopped_by"]) == (True, "SIGINT")
        assert kept["epochs"] == 40 if where == "the frame average" else kept["epochs"] < 40
        assert "frame_average" not in kept["baseline"]
        assert load_run(runs / name).metrics["digest"] == kept["digest"]
        again = run(*words, "--name", name, "--resume", cwd=tmp_path)
        assert again.status == 0, again.err
        assert result_of(runs / name) == result_of(runs / "whole")
        assert metrics_of(runs / name)["baseline"] == metrics_of(runs / "whole")["baseline"]
        assert metrics_of(runs / name)["test"] == metrics_of(runs / "whole")["test"]
