"""A video of two hours, a clip of 2 s and one of 41 steps in one store; the memory of its run.

The videos have 240 lines at 5 frames a second; two steps a second go through the `frames` backbone, so
that the machinery is what is measured. Once a second the flow's process, its workers and decoders are
read. Then the store is held against arithmetic (its rows, its padding, the frame of every step) and
against a plain pass over the long video, which crops and shrinks those frames. Ends with status 1 where
the flow or a worker holds more than 10 % more at the end than after a fifth of the rows.

    python -m benchmarks.hours [--hours 2]
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

import store
from benchmarks.alternating import save
from benchmarks.memory import ALLOWED, thinned, watch
from tests.features.clips import write_numbered_clip

RATE, FPS, STEPS, SIZE = 5, 2, 40, 64
LONG, SHORT, OVER = "long.mp4", "short.mp4", "steps41.mp4"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=2.0)
    seconds = round(parser.parse_args().hours * 3600)
    lengths = {LONG: float(seconds), SHORT: 2.0, OVER: (STEPS + 1) / FPS}
    with tempfile.TemporaryDirectory() as scratch:
        videos = Path(scratch) / "videos"
        videos.mkdir()
        for name, length_s in lengths.items():
            frames = math.ceil(length_s * RATE)
            options = {"g": "50", "preset": "ultrafast"}
            write_numbered_clip(
                videos / name, frames, rate=RATE, width=320, height=240, options=options
            )
        words = ["--sampling", f"fps={FPS}", "--long", "split"]
        curve = watch(videos, Path(scratch), words)
        source = store.open(str(Path(scratch) / "s.zarr"))
        for name, length_s in lengths.items():
            check(source, name, length_s, videos / name)
    print(" rows    flow MiB   worker MiB   decoders MiB")
    for point in thinned(curve):
        print("{clips:5} {flow:11.0f} {worker:12.0f} {decoders:14.0f}".format(**point))
    settled = next(point for point in curve if point["clips"] >= curve[-1]["clips"] / 5)
    shares = {name: curve[-1][name] / settled[name] for name in ("flow", "worker", "decoders")}
    save("hours", {"seconds": seconds, "shares": shares})
    grown = ", ".join(f"{name} {share - 1:+.1%}" for name, share in shares.items())
    print(f"memory at the last row, beside row {settled['clips']:.0f}: {grown}")
    return 0 if max(shares["flow"], shares["worker"]) <= ALLOWED else 1


def shown(figures: dict[str, Any]) -> str:
    """One sentence."""
    grown = ", ".join(f"{who} {share - 1:+.1%}" for who, share in figures["shares"].items())
    rows = math.ceil(figures["seconds"] * FPS / STEPS)
    return (
        f"{figures['seconds'] / 3600:g} hours are {rows} rows; memory at the last of them, beside that "
        f"after a fifth: {grown}"
    )


def check(source: store.Store, name: str, length_s: float, path: Path) -> None:
    """Hold one file of the store against arithmetic and against a plain pass over it."""
    table = source.table()
    rows = table[(table["file"] == name) | (table["video_id"] == name)]
    steps = math.floor(length_s * FPS)
    sequence = source.sequence(name)
    # A step looks at the middle of its half second.
    due = [math.floor((k + 0.5) / FPS * RATE + 1e-6) for k in range(steps)]
    padding = STEPS * len(rows) - len(sequence)
    if len(rows) != math.ceil(steps / STEPS) or padding >= STEPS:
        sys.exit(f"{name}: {len(rows)} rows of {STEPS} steps for {steps}")
    if sequence.frames.tolist() != due:
        sys.exit(f"{name}: frames {sequence.frames[:9]}…, not {due[:9]}…")
    if not np.allclose(sequence.times, np.array(due) / RATE, atol=1e-3):
        sys.exit(f"{name}: times {sequence.times[:9]}…")
    worst = 0.0
    places = {frame: place for place, frame in enumerate(due)}
    with av.open(str(path)) as container:
        for number, raw in enumerate(container.decode(video=0)):
            if number in places:
                picture = raw.to_ndarray(format="rgb24")[:, 40:280]
                small = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
                far = np.abs(small.astype(int) - sequence.features[places[number]])
                worst = max(worst, float(far.mean()))
    if worst > 1:
        sys.exit(f"{name}: a picture is {worst:.2f} levels off on average")
    print(
        f"{name}: {len(rows)} rows, {len(sequence):,} steps, {padding} of padding; every frame the one "
        f"that is due, pictures {worst:.2f} levels off at most"
    )


if __name__ == "__main__":
    sys.exit(main())
