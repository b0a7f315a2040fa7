"""Runs the benchmarks one after the other, prints their tables and says how long each took.

    python -m benchmarks [--rounds 5] [--only engine,endtoend]

The figures go to `benchmarks/results/*.json`. Features that several of them read are made once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

# In minutes, on two cores: sizes are smaller than each script's own where the ratio is the same.
BENCHES: dict[str, tuple[str, list[str]]] = {
    "engine": ("the CNN alone", ["--seconds", "3"]),
    "motion": ("a step of motion beside InceptionV3's", ["--seconds", "3"]),
    "endtoend": ("stage one end to end", ["--clips", "12"]),
    "worker": ("a worker's own cost per clip", []),
    "scheduling": ("the flow's own cost per clip, with tasks that return at once", []),
    "feed": ("the frames a CNN is fed, by picture size", []),
    "decoding": ("reading a clip beside OpenCV", []),
    "seeking": ("a long clip by seeking", ["--minutes", "20", "--pairs", "1"]),
    "isolation": ("decoding in child processes", ["--pairs", "2"]),
    "store": ("chunks, shards, compression", ["--rows", "256"]),
    "rows": ("a million rows", ["--rounds", "1"]),
    "exchange": ("export and import beside a copy", ["--rows", "3000", "--rounds", "1"]),
    "loaders": ("the loaders beside batches", ["--rows", "1024"]),
    "startup": ("from the command to the first frames", ["--rounds", "3"]),
    "commands": ("how soon small commands answer", []),
    "fixed": ("what a run costs besides its clips", []),
    "epoch": ("a GRU's epoch", ["--clips", "512"]),
    "first_epoch": ("a first epoch's overhead, head by head", ["--epochs", "3", "--limit", "180"]),
    "training": ("the wide LSTM", []),
    "joined": ("the wide LSTM on joined streams", []),
    "similar": ("the nearest of a million clips", ["--rounds", "3"]),
    "memory": ("memory over 1,000 clips", []),
    "many": ("a run of very many clips, killed and resumed", ["--clips", "20000"]),
    "hours": ("a video of two hours as rows, and the memory of its run", []),
    "report": ("the report of 10,000 rows", []),
    "ray_data": ("`features` beside the same job in Ray Data", []),
    "scale": ("what clips and rows cost, for the plan in docs/scale.md", ["--measure"]),
}
ROUNDS = {
    *("engine", "feed", "motion", "endtoend", "store", "loaders", "fixed", "epoch"),
    *("training", "joined"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(BENCHES))
    arguments = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        if "BENCH_STORE" not in os.environ and _reads_features(arguments.only):
            from benchmarks.features import real_features

            print("features of real clips for the benchmarks that read them …", file=sys.stderr)
            os.environ["BENCH_STORE"] = real_features(Path(scratch))
        for name in arguments.only.split(","):
            text, words = BENCHES[name]
            rounds = ["--rounds", str(arguments.rounds)] if name in ROUNDS else []
            print(f"\n## {name}: {text}\n", flush=True)
            began = time.perf_counter()
            # As a module: a script's own folder would come first, and has a store.py of its own.
            command = [sys.executable, "-m", f"benchmarks.{name}", *words, *rounds]
            ended = subprocess.run(command, cwd=HERE.parent)
            if ended.returncode:
                failed.append(name)
            print(f"\n({time.perf_counter() - began:.0f} s)", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _reads_features(only: str) -> bool:
    return bool({"store", "epoch", "training"} & set(only.split(",")))


if __name__ == "__main__":
    sys.exit(main())
