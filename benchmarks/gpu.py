"""The figures of a GPU machine: the CNN, the decoders, a run, the heads, and what one would pick instead.

For a bare machine: Python, JAX (or torch, TensorFlow) and our other dependencies; seeded random
weights. Each part is a process of its own with a limit, so that one that fails leaves the others.

    KERAS_BACKEND=jax python -m benchmarks.gpu --videos CLIPS [--only cnn,heads] [--out FILE]

Clips are read again and again (`--clips` of them, as links) where there are fewer. `--dry` does
everything small, on a CPU, to see that it works; its figures say nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.alternating import RESULTS
from benchmarks.gpu_parts import PARTS
from pipeline import engine

LIMIT_S = {"cnn": 150, "peers": 120, "decode": 60, "run": 120, "heads": 180}
HEADS = ("lstm", "lstm:small", "gru", "gru:wide", "bilstm", "stacked", "transformer", "convlstm")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", default="", help="a folder of clips; generated ones without it")
    parser.add_argument("--clips", type=int, default=3360)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--quick", action="store_true", help="the fastest precision alone")
    parser.add_argument("--dry", action="store_true", help="everything small, on a CPU")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.dry:
        arguments.clips, arguments.seconds, arguments.heads = min(arguments.clips, 6), 0.1, "gru"
    if arguments.part:
        PARTS[arguments.part](arguments)
        return
    figures = measured(sys.argv[1:], arguments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(shown(figures))


def measured(words: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Every part's rows, and the machine; a part that fails is a row with its last words."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as scratch:
        if not arguments.videos:
            from pipeline.features.demo import write_demo_clips

            write_demo_clips(Path(scratch) / "demo")
            words = [*words, "--videos", str(Path(scratch) / "demo")]
        for part in arguments.only.split(","):
            command = [sys.executable, "-m", "benchmarks.gpu", *words, "--part", part]
            began = time.perf_counter()
            lines, status = _limited(command, LIMIT_S[part] * (5 if arguments.dry else 1))
            rows += [json.loads(line) for line in lines]
            if status:
                rows.append({"part": part, "what": "failed", "status": status})
            spent = round(time.perf_counter() - began, 1)
            print(json.dumps({"part": part, "seconds": spent}), file=sys.stderr, flush=True)
            for line in lines:
                print(line, file=sys.stderr, flush=True)
    # A part whose backend never began cannot tell its device.
    device = next((row["device"] for row in rows if row.get("device", "gpu") != "gpu"), "?")
    machine = {
        "device": device,
        "cores": engine.cores(),
        "python": sys.version.split()[0],
        **engine.software(),
    }
    return {"machine": machine, "rows": rows}


def _limited(command: list[str], limit_s: float) -> tuple[list[str], int]:
    """The rows that a part printed, and its exit status; past its limit it ends with all it started."""
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, stdout=said, stderr=sys.stderr, start_new_session=True)
        try:
            status = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = 124
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        said.seek(0)
        return [line for line in said.read().splitlines() if line.startswith("{")], status


def shown(figures: dict[str, Any]) -> str:
    """A Markdown table of the rows, the machine below it."""
    lines = ["| part | what | figures |", "| --- | --- | --- |"]
    for row in figures["rows"]:
        kept = {k: v for k, v in row.items() if k not in ("part", "what", "device")}
        said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in kept.items())
        lines.append(f"| {row['part']} | {row['what']} | {said} |")
    note = figures.get("note", "")
    return "\n".join(lines) + (f"\n\n{note.rstrip('.')}" if note else "")


if __name__ == "__main__":
    main()
