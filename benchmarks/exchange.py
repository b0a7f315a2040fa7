"""Export and import of many rows beside a plain copy of the same files, and the memory of both.

A store of random features is exported in each format and imported again, each in a process of its own;
beside each `cp -r` copies the exported files. Neither finds its source in memory (it is dropped from the
page cache before), and both end with the disk's `sync`. A rate is the features' bytes a second, the
ratio that of the plain copy's seconds to ours in the same round. Memory is the peak of the process with
all rows and with a fifth of them: flat where both are alike. Processor seconds are of the processes, the
kernel's included. `--rounds 0` measures memory alone, beside which other programs may run, and leaves
the rates of these rows as they were, as the figures of formats that are not measured are left.

    python -m benchmarks.exchange [--rows 50000] [--steps 40] [--width 2048] [--formats npy,npz]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import store
from benchmarks.alternating import ROOT, kept, peak_mib, save
from flows.exchange.exporting import export_store
from flows.exchange.formats import FORMATS
from flows.exchange.importing import import_clips
from flows.exchange.rows import Rules

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--way", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(_one(*arguments.way.split("|"))))
        return
    size = {"rows": arguments.rows, "row_bytes": 2 * arguments.steps * arguments.width}
    before = kept("exchange")
    of_size = before.get("formats", {}) if {n: before.get(n) for n in size} == size else {}
    kinds = arguments.formats.split(",")
    unknown = [] if arguments.rounds else [kind for kind in kinds if kind not in of_size]
    if unknown:
        parser.error(f"there are no rates of {', '.join(unknown)} yet: give --rounds 1 first")
    report: dict[str, Any] = {**size, "formats": of_size}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = folder / "few.zarr", folder / "many.zarr"
        make_store(few, arguments.rows // 5, arguments.steps, arguments.width)
        make_store(many, arguments.rows, arguments.steps, arguments.width)
        for kind in kinds:
            if arguments.rounds:
                of_size[kind] = _rates(kind, few, many, folder / "work", arguments.rounds)
            else:
                _memory(of_size[kind], kind, few, many, folder / "work")
    save("exchange", report)
    print(shown(report))


def _rates(kind: str, few: Path, many: Path, work: Path, count: int) -> dict[str, Any]:
    rounds = []
    for number in range(count):
        rounds.append(_round(many, kind, work, ours_first=number % 2 == 0))
        done = ", ".join(
            f"{way} {one['copy_s'] / one['seconds']:.2f} × a copy"
            for way, one in rounds[-1].items()
        )
        print(f"  {kind}: round {number + 1} of {count}: {done}", file=sys.stderr)
    return _summary(rounds, _round(few, kind, work, copied=False))


def _memory(figures: dict[str, Any], kind: str, few: Path, many: Path, work: Path) -> None:
    """Set the memory in a format's figures, and nothing else."""
    small, large = (_round(source, kind, work, copied=False) for source in (few, many))
    for way, of in figures.items():
        of |= {"mib": large[way]["mib"], "mib_of_a_fifth": small[way]["mib"]}
        print(f"  {kind}: {way} {of['mib_of_a_fifth']:.0f} → {of['mib']:.0f} MiB", file=sys.stderr)


def shown(report: dict[str, Any]) -> str:
    """The table: seconds, the ratio to a plain copy, and MiB with a fifth of the rows and with all."""
    rows, size = report["rows"], report["rows"] * report["row_bytes"]
    lines = [
        f"{rows:,} rows, {size / 1e9:.1f} GB of features.",
        "",
        "| format | export MB/s | × a copy | CPU s | MiB, a fifth → all "
        "| import MB/s | × a copy | CPU s | MiB, a fifth → all |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, of in report["formats"].items():
        cells = [
            f"{size / 1e6 / of[way]['seconds']:.0f} | {of[way]['ratio']:.2f} | {of[way]['cpu_s']:.1f} "
            f"| {of[way]['mib_of_a_fifth']:.0f} → {of[way]['mib']:.0f}"
            for way in ("export", "import")
        ]
        lines.append(f"| `{kind}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _summary(rounds: list[dict[str, Any]], small: dict[str, Any]) -> dict[str, Any]:
    summary = {}
    for way in ("export", "import"):
        summary[way] = {
            "seconds": statistics.median(one[way]["seconds"] for one in rounds),
            "ratio": statistics.median(one[way]["copy_s"] / one[way]["seconds"] for one in rounds),
            "cpu_s": statistics.median(one[way]["cpu_s"] for one in rounds),
            "copy_cpu_s": statistics.median(one[way]["copy_cpu_s"] for one in rounds),
            "copy_s": statistics.median(one[way]["copy_s"] for one in rounds),
            "mib": max(one[way]["mib"] for one in rounds),
            "mib_of_a_fifth": small[way]["mib"],
        }
    return summary


def _round(
    source: Path, kind: str, work: Path, *, ours_first: bool = True, copied: bool = True
) -> dict[str, Any]:
    """Export and import once, each beside a copy of the exported files, if `copied`."""
    work.mkdir()
    out, again = work / "out", work / "again.zarr"
    answers: dict[str, Any] = {}
    for way, read, made in (("export", source, out), ("import", out, again)):
        command = f"{way}|{kind}|{read}|{made}"
        if not ours_first:
            if not out.exists():  # something to copy, not timed
                _child(command)
            took = _copied(out, work / "copy")
            if way == "export":
                shutil.rmtree(out)
        _forget(read)
        answers[way] = _child(command)
        if not copied:
            continue
        if ours_first:
            took = _copied(out, work / "copy")
        answers[way] |= {"copy_s": took[0], "copy_cpu_s": took[1]}
    shutil.rmtree(work)
    return answers


def _forget(folder: Path) -> None:
    """Drop the files of a folder from the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _child(command: str) -> dict[str, Any]:
    os.sync()
    words = [sys.executable, "-m", "benchmarks.exchange", "--way", command]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _one(way: str, kind: str, source: str, target: str) -> dict[str, float]:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    started = spent.ru_utime + spent.ru_stime
    began = time.perf_counter()
    if way == "export":
        done = export_store(source, target, format=kind).written
    else:
        done = import_clips(source, Rules(store=target)).ready
    os.sync()
    seconds = time.perf_counter() - began
    assert done, f"nothing was {way}ed"
    spent = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = spent.ru_utime + spent.ru_stime - started
    return {"seconds": seconds, "cpu_s": cpu_s, "mib": peak_mib()}


def _copied(source: Path, target: Path) -> tuple[float, float]:
    """Seconds that `cp -r` and `sync` take, and processor seconds of `cp`."""
    _forget(source)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    os.sync()
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(target)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make_store(path: Path, rows: int, steps: int, width: int) -> None:
    """A store of random features, its masks whole."""
    spec = {
        "sampling": {"rule": "uniform", "steps": steps, "stride": 0, "fps": 0.0, "offset": 0.5},
        "backbone": "random",
        "shape": [width],
        "dtype": "float16",
    }
    store.create(
        str(path),
        layout=store.Layout(steps=steps, shape=(width,), dtype="float16", batch=BATCH),
        spec=spec,
        fingerprint="0" * 64,
        software={"numpy": np.__version__},
    )
    rng = np.random.default_rng(0)
    block = rng.random((BATCH, steps, width), np.float32).astype(np.float16)
    with store.Writer.acquire(str(path), owner="benchmark") as writer:
        names = [f"class_{n % 10}/clip_{n:07d}.mp4" for n in range(rows)]
        index = writer.append(
            pd.DataFrame({"video_id": names, "label": [name.split("/")[0] for name in names]})
        )
        for start in range(0, rows, BATCH):
            part = index[start : start + BATCH]
            block[:, 0, 0] = np.arange(start, start + BATCH) % 2000
            digests = store.write_batch(
                str(path), start // BATCH, block[: len(part)], token=writer.token
            )
            count = np.tile(np.arange(steps), (len(part), 1))
            writer.set(part, digest=digests, fps=np.full(len(part), 10.0))
            writer.put_steps(
                part, count >= 0, count.astype(np.int32), (count / 10).astype(np.float32)
            )
            writer.mark(part, store.READY)
        writer.flush()


if __name__ == "__main__":
    main()
