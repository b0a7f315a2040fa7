"""Many parts of long files beside one pass over each file, in CPU time; and every frame checked.

Videos with painted frame numbers are made, and parts of random places and lengths, some of which overlap.
They are read as a run reads them: the rows of a file in the order of time, 64 to a batch, each batch with
one opening of the file. Beside it stands one pass over each file from its first frame to its last, which
fits every frame that some part wants, once, into a room as a decoder process has it. Both on one thread,
in one process, in turns. A neighbour's load adds CPU time to either and never takes any off: of each file
the least of the rounds counts. The frame numbers are checked in a reading of their own.

    python -m benchmarks.parts [--videos 10] [--minutes 10] [--parts 1000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternating import save
from pipeline.features.decoding import packets
from pipeline.features.decoding.parts import PartReader
from pipeline.features.decoding.values import ClipFrames, ClipSource, FramePlan, parts_of
from pipeline.features.decoding.video import Video
from pipeline.spans import Span
from tests.features.clips import number_in, write_numbered_clip

RATE, ROWS = 25, 64
WIDTH, HEIGHT = 480, 272
PLAN = FramePlan(fit="whole", size=WIDTH)


def random_spans(count: int, length_s: float, seed: int) -> list[Span]:
    """Parts of 0.2 s to 60 s, in the order of time."""
    rng = random.Random(seed)
    spans = set[Span]()
    while len(spans) < count:
        start = rng.uniform(0, length_s - 0.3)
        end = min(length_s, start + 0.2 * 300 ** rng.random())
        spans.add(Span(round(start, 3), round(end, 3)))  # as annotators write them
    return sorted(spans, key=lambda span: (span.start_s, span.end_s))


def frames_of(span: Span, frames: int) -> list[int]:
    """The frames that `uniform` takes of a part, counted apart from the code that is measured."""
    assert span.start_s is not None
    assert span.end_s is not None
    inside = [i for i in range(frames) if span.start_s <= i / RATE + 1e-6 < span.end_s + 1e-6]
    if len(inside) <= 40:
        return inside
    return [inside[(2 * k + 1) * len(inside) // 80] for k in range(40)]


def check_parts(path: Path, spans: list[Span], right: list[list[int]]) -> int:
    """How many frames of all parts there are; each is the one that its number says, or this ends."""
    checked = 0
    for span, frames, read in zip(spans, right, each_part(path, spans), strict=True):
        numbers = [number_in(picture) for picture in read.frames]
        if not numbers == read.frame_index.tolist() == frames:
            raise SystemExit(f"{span} of {path}: {numbers}, not {frames}")
        checked += len(numbers)
    return checked


def read_parts(path: Path, spans: list[Span]) -> float:
    """CPU seconds of reading all parts, of a file that this process has not seen before."""
    packets._remembered.clear()
    began = time.process_time()
    for _ in each_part(path, spans):
        pass
    return time.process_time() - began


def each_part(path: Path, spans: list[Span]) -> Iterator[ClipFrames]:
    """The frames of every part, good until the next is asked for; by their ends in each batch."""
    room = np.zeros(PLAN.frames_shape, np.uint8)  # as a decoder process has it
    for first in range(0, len(spans), ROWS):
        batch = spans[first : first + ROWS]
        order, parts = parts_of([ClipSource(str(path), -1, span) for span in batch])
        with PartReader(str(path), PLAN, parts[order[0]].of.spans) as reader:
            for i in order:
                yield reader.read(parts[i].number, room)


def as_read(spans: list[Span]) -> list[Span]:
    """The parts in the order of `each_part`."""
    batches = [spans[first : first + ROWS] for first in range(0, len(spans), ROWS)]
    return [span for batch in batches for span in sorted(batch, key=lambda span: span.order)]


def one_pass(path: Path, wanted: set[int]) -> float:
    """CPU seconds of decoding every frame and fitting those that are wanted, into a room as above."""
    began = time.process_time()
    room = np.zeros((PLAN.sampling.steps, HEIGHT, WIDTH, 3), np.uint8)
    places = itertools.cycle(room)
    with Video(str(path)) as video:
        for frame in video:
            if frame.index in wanted:
                video.fitted(frame, PLAN, next(places))
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    report = {"parts": asked.parts, "videos": asked.videos, "minutes": asked.minutes}
    report |= measured(asked)
    save("parts", report)
    print(shown(report))


def measured(asked: argparse.Namespace) -> dict[str, Any]:
    """Frames that were checked, and CPU seconds of both ways: by video, by round."""
    frames = round(asked.minutes * 60 * RATE)
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    checked = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(asked.videos):
            options = {"g": "50", "bf": "3", "preset": "ultrafast"}
            path = Path(folder) / f"{number}.mp4"
            sizes = {"width": WIDTH, "height": HEIGHT}
            write_numbered_clip(path, frames, rate=RATE, options=options, **sizes)
            spans = as_read(random_spans(asked.parts // asked.videos, frames / RATE, seed=number))
            right = [frames_of(span, frames) for span in spans]
            count = check_parts(path, spans, right)
            wanted = {frame for part in right for frame in part}
            rounds = [
                (read_parts(path, spans), one_pass(path, wanted)) for _ in range(asked.rounds)
            ]
            ours.append([mine for mine, _ in rounds])
            theirs.append([its for _, its in rounds])
            checked += count
            print(f"{path.name}: {len(spans)} parts, {count} frames right", file=sys.stderr)
    return {"frames": checked, "ours": ours, "one_pass": theirs}


def shown(figures: dict[str, Any]) -> str:
    """The CPU time of the parts as a multiple of one pass, and its range over the videos."""
    least = [(min(a), min(b)) for a, b in zip(figures["ours"], figures["one_pass"], strict=True)]
    ours, theirs = (sum(each) for each in zip(*least, strict=True))
    ratios = [a / b for a, b in least]
    return (
        f"{figures['parts']:,} parts of {figures['videos']} videos of {figures['minutes']:g} minutes: "
        f"{figures['frames']:,} frames, every one the right one. Parts {ours:.2f} s, one pass "
        f"{theirs:.2f} s of CPU time: {ours / theirs:.3f} × (by video {min(ratios):.3f} to "
        f"{max(ratios):.3f}, least of {len(figures['ours'][0])} rounds)"
    )


if __name__ == "__main__":
    main()
