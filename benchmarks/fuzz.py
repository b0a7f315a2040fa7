"""300 mutated clips of five containers through a whole run: what becomes of each.

Real clips in mp4, mkv, avi, webm and mov (some put from one container into another, their packets
unchanged; generated ones where no real ones are at hand) are broken by bit flips, cuts, swapped
blocks and spliced headers, all by one seed. The run must end by itself with every row ready or
failed with a known reason, and no child may be left. Where `ffmpeg` is installed its own frames of every
clip are the reference: a ready row has as many, and the same pictures. Ends with status 1 where that does
not hold.

    python -m benchmarks.fuzz [--count 300] [--seed 0]
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

import store
from benchmarks.alternating import save
from benchmarks.fuzz_frames import beside_ffmpeg
from pipeline.features.reasons import FAILURES

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("PIXELS_ONCE_SHARED", ROOT.parent / "shared")) / "clips"
CONTAINERS = {
    "mp4": "libx264",
    "mkv": "libx264",
    "avi": "mpeg4",
    "webm": "libvpx",
    "mov": "mpeg4",
}

EXACT = {"fflags": "bitexact"}  # no random ids, no dates: one seed makes the same bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        write_mutations(Path(scratch) / "clips", arguments.count, arguments.seed)
        status, left = run(Path(scratch))
        table = store.open(f"{scratch}/s.zarr").table()
        beside = beside_ffmpeg(f"{scratch}/s.zarr", Path(scratch) / "clips")
    faults = []
    if status or left:
        faults.append(f"the run ended with {status} and left {left}")
    states = Counter(table["state"])
    if set(states) - {"ready", "failed"} or len(table) != arguments.count:
        faults.append(f"{len(table)} rows of {arguments.count}: {dict(states)}")
    reasons = Counter(table.loc[table["state"] == "failed", "reason"])
    if set(reasons) - set(FAILURES):
        faults.append(f"unknown reasons {set(reasons) - set(FAILURES)}")
    if beside is not None:
        faults += beside.faults
    report = {
        "seed": arguments.seed,
        "clips": len(table),
        "states": dict(states),
        "warned": int(((table["state"] == "ready") & (table["reason"] != "")).sum()),
        "reasons": dict(reasons.most_common()),
        "by mutation": by_kind(table),
        "as ffmpeg": None if beside is None else beside.alike,
        "by release": [] if beside is None else beside.by_release,
        "faults": faults,
    }
    save("fuzz", report)
    print(shown(report))
    return 1 if faults else 0


def shown(figures: dict[str, Any]) -> str:
    """What became of the clips, by the kind of damage and by reason."""
    states, reasons = figures["states"], figures["reasons"]
    lines = ["| damage | ready | failed |", "| --- | ---: | ---: |"]
    for kind, one in figures["by mutation"].items():
        lines.append(f"| {kind} | {one.get('ready', 0)} | {one.get('failed', 0)} |")
    failed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    lines += [
        "",
        f"{figures['clips']} clips: {states.get('ready', 0)} ready ({figures['warned']} of them with a "
        f"warning), {states.get('failed', 0)} failed ({failed}); the run ended by itself, and no "
        f"process was left; {_compared(figures)}"
        if not figures["faults"]
        else "; ".join(figures["faults"]),
    ]
    return "\n".join(lines)


def _compared(figures: dict[str, Any]) -> str:
    alike = figures.get("as ffmpeg")
    if alike is None:
        return "their frames were not compared with ffmpeg's"
    others = len(figures.get("by release", []))
    return (
        f"the frames of {alike} ready clips are those that ffmpeg decodes, and {others} clips are told "
        "apart by FFmpeg's own releases (the system's and PyAV's)"
    )


def run(scratch: Path) -> tuple[int, list[str]]:
    """Extract the clips; the exit status, and the names of children that outlived the run."""
    words = ["features", "--videos", str(scratch / "clips"), "--store", str(scratch / "s.zarr")]
    words += ["--backbone", "frames", "--frames", "8", "--batch", "20"]
    mark = f"pixels-once-fuzz-{os.getpid()}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FUZZ_MARK": mark}
    command = [sys.executable, "-m", "flows", *words]
    status = subprocess.run(
        command, cwd=scratch, env=environment, stdout=subprocess.DEVNULL
    ).returncode
    children = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FUZZ_MARK") == mark:
                children.append(process)
        except psutil.Error:
            continue
    # Those that end with the run may take a moment to notice.
    _, alive = psutil.wait_procs(children, timeout=20)
    return status, [" ".join(process.cmdline()) for process in alive]


def write_mutations(folder: Path, count: int, seed: int) -> None:
    """`count` broken clips, in one folder per kind of mutation."""
    drawn = random.Random(seed)
    folder.mkdir()
    sources = real_clips(folder, drawn) if REAL.is_dir() else generated_clips(folder)
    for number in range(count):
        kind = list(CONTAINERS)[number % len(CONTAINERS)]
        name = list(MUTATIONS)[number // len(CONTAINERS) % len(MUTATIONS)]
        others = [data for other, clips in sources.items() if other != kind for data in clips]
        data = bytearray(drawn.choice(sources[kind]))
        data = MUTATIONS[name](data, drawn, drawn.choice(others))
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{number:03d}.{kind}").write_bytes(data)


def real_clips(scratch: Path, drawn: random.Random) -> dict[str, list[bytes]]:
    """Sound real clips by container: those that are in it, and six put into mkv and mov."""
    with (REAL / "odd" / "expected.csv").open(encoding="utf-8") as file:
        sound = [row["file"] for row in csv.DictReader(file) if row["status"] == "ready"]
    found: dict[str, list[bytes]] = {kind: [] for kind in CONTAINERS}
    for name in sound:
        found[name.rsplit(".", 1)[1]].append((REAL / "odd" / name).read_bytes())
    for path in drawn.sample(sorted((REAL / "fight").rglob("*.mp4")), 6):
        found["mp4"].append(path.read_bytes())
        for kind in ("mkv", "mov"):
            found[kind].append(remuxed(path, scratch / f"sound.{kind}"))
    return found


def remuxed(source: Path, target: Path) -> bytes:
    """The packets of a clip's video in another container."""
    with av.open(str(source)) as given, av.open(str(target), "w", options=EXACT) as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    data = target.read_bytes()
    target.unlink()
    return data


def generated_clips(scratch: Path) -> dict[str, list[bytes]]:
    """A sound clip of each container, for where there are no real ones."""
    return {kind: [encode(scratch / f"sound.{kind}", codec)] for kind, codec in CONTAINERS.items()}


def encode(path: Path, codec: str) -> bytes:
    """A sound clip of 40 moving frames."""
    with av.open(str(path), "w", options=EXACT) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.codec_context.thread_count = 1
        rows, columns = np.mgrid[0:96, 0:160]
        for number in range(40):
            wave = np.sin((columns + 4 * number) / 9) + np.cos((rows - 3 * number) / 7)
            picture = np.repeat(((wave + 2) * 63).astype(np.uint8)[..., None], 3, axis=2)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    path.unlink()
    return data


def flip_bits(data: bytearray, drawn: random.Random, other: bytes) -> bytes:
    """Flip 1 to 200 bits anywhere."""
    for _ in range(drawn.randint(1, 200)):
        bit = drawn.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def cut(data: bytearray, drawn: random.Random, other: bytes) -> bytes:
    """Lose the end, or a piece of the middle."""
    start = drawn.randrange(len(data))
    stop = len(data) if drawn.random() < 0.5 else drawn.randrange(start, len(data))
    return bytes(data[:start] + data[stop:])


def swap_blocks(data: bytearray, drawn: random.Random, other: bytes) -> bytes:
    """Exchange pairs of blocks of 64 to 1,024 bytes."""
    size = min(drawn.choice([64, 256, 1024]), len(data) // 4)
    for _ in range(drawn.randint(1, 8)):
        one, two = (drawn.randrange(len(data) - size) for _ in range(2))
        first, second = bytes(data[one : one + size]), bytes(data[two : two + size])
        data[one : one + size], data[two : two + size] = second, first
    return bytes(data)


def splice_header(data: bytearray, drawn: random.Random, other: bytes) -> bytes:
    """Put the beginning of another container before, or over, this one's."""
    head = drawn.choice([16, 64, 512, 2048])
    return other[:head] + bytes(data[head if drawn.random() < 0.5 else 0 :])


MUTATIONS: dict[str, Callable[[bytearray, random.Random, bytes], bytes]] = {
    "flipped": flip_bits,
    "cut": cut,
    "swapped": swap_blocks,
    "spliced": splice_header,
}


def by_kind(table: object) -> dict[str, dict[str, int]]:
    """How many of each mutation ended in which state."""
    counts = table.groupby(["label", "state"], observed=True).size()  # type: ignore[attr-defined]
    found: dict[str, dict[str, int]] = {}
    for (label, state), number in counts.items():
        found.setdefault(label, {})[state] = int(number)
    return found


if __name__ == "__main__":
    sys.exit(main())
