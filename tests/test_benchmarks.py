"""The benchmarks of a GPU machine and of a worker run here too, small; what they say is read right."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import shown
from benchmarks.gpu_parts import of_run
from benchmarks.many import judged
from tests.flows.running import CLIPS

ROOT = Path(__file__).parents[1]


def module(name: str, *words: str, **around: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *words],
        env={**os.environ, **around},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_runs_rate_is_that_of_its_steady_part() -> None:
    # 4 s of start, then 100 frames/s, and a last second in which the rest trickles in.
    course = [(float(second), max(0, second - 4) * 100) for second in range(15)] + [(15.0, 1010)]
    summary = {"throughput": course, "seconds": 15.0, "ready": 9, "failed": 0}
    figures = of_run({**summary, "stage_seconds": {"cnn": 7.04}}, wall=20.0)
    assert figures["steady_fps"] == 100
    assert figures["stages"] == {"cnn": 7.0}


def test_rows_become_a_table() -> None:
    rows = [{"part": "cnn", "what": "ours", "fps": 5, "device": "a card"}]
    assert shown({"rows": rows}).splitlines()[-1] == "| cnn | ours | fps 5 |"


def test_a_run_that_grows_or_slows_down_does_not_hold() -> None:
    even: list[dict[str, float]] = [
        {"clips": n * 1000, "cpu_s": 20.0 + n * 5, "flow": 300, "worker": 400} for n in range(1, 11)
    ]
    found = judged(even)
    assert found["holds"]
    assert found["cpu_ms_a_clip"] == pytest.approx(5)
    assert not judged([*even[:-1], even[-1] | {"worker": 441}])["holds"]
    slower = [point | {"cpu_s": point["cpu_s"] + n**2 / 20} for n, point in enumerate(even)]
    assert not judged(slower)["holds"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_gpu_machines_figures_can_be_made_on_a_cpu(tmp_path: Path) -> None:
    backend = "jax" if importlib.util.find_spec("jax") else "tensorflow"
    around = {"KERAS_BACKEND": backend, "PREFECT_HOME": str(tmp_path / "prefect")}
    out = tmp_path / "gpu.json"
    words = ["--dry", "--only", "cnn,decode,run,heads", "--out", str(out)]
    module("gpu", *words, PIXELS_ONCE_CACHE=str(tmp_path / "cache"), **around)
    figures = json.loads(out.read_text())
    assert figures["machine"]["device"] == "cpu"
    rows = figures["rows"]
    assert not [row for row in rows if row["what"] == "failed" or "error" in row]
    assert {row["part"] for row in rows} == {"cnn", "decode", "run", "heads"}
    assert all(row["fps"] > 0 for row in rows if row["part"] == "decode")
    reached = [row["reached_s"] for row in rows if row["part"] == "run"]
    assert all(each["first frames at the CNN"] > 0 for each in reached)


@pytest.mark.long
def test_a_workers_cost_is_one_json_object_in_the_last_line() -> None:
    last = json.loads(
        module("worker", "--batches", "1", "--size", "32", "--out", "").splitlines()[-1]
    )
    assert set(last) == {"ms_per_clip", "frames_per_second", "paced_ratio"}
    assert all(value > 0 for value in last.values())


SMALL = {
    "scheduling": "--clips 256",
    "decoding": "--pairs 1",
    "endtoend": "--clips 2 --rounds 1",
    "engine": "--seconds 0.2 --rounds 1",
    "epoch": "--clips 32 --rounds 1",
    "exchange": "--rows 320 --steps 4 --width 16 --rounds 1",
    "feed": "--rounds 1 --sizes 240p --scale 0.05",
    "first_epoch": "--backends tensorflow --heads gru --clips 24 --epochs 2",
    "fixed": "--rounds 1 --clips 8,16 --done 8 --cnn-ms 1",
    "isolation": "--pairs 1 --cnn-ms 1",
    "loaders": "--rows 128 --rounds 1",
    "report": "--rows 64",
    "rows": "--rows 2000 --rounds 1",
    "seeking": "--minutes 0.5 --pairs 1",
    "similar": "--clips 2000 --rounds 1",
    "startup": "--rounds 1",
    "store": "--rows 64 --rounds 1",
    "training": "--units 32 --batch 16 --rounds 1",
}
"""What `make bench` runs, as small as it goes. Without: those that only run for minutes."""


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared clips are not here")
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_runs_from_beginning_to_end(name: str, tmp_path: Path) -> None:
    around = {"PREFECT_HOME": str(tmp_path / "prefect"), "BENCH_RESULTS": str(tmp_path / "results")}
    assert module(name, *SMALL[name].split(), **around)
