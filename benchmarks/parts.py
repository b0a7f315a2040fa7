"""Many parts of long files beside one pass over each file, in CPU time; and every frame checked.

Videos with painted frame numbers are made, and parts of random places and lengths, some of which overlap.
They are read as a run reads them: the rows of a file in the order of time, 64 to a batch, each batch with
one opening of the file. Beside it stands one pass over each file from its first frame to its last, which
fits every frame that some part wants, once, into a room as a decoder process has it. Both on one thread,
in this process, one file each in turn.

    python -m benchmarks.parts [--videos 10] [--minutes 10] [--parts 1000]
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.features.decoding.parts import PartReader
from pipeline.features.decoding.values import ClipSource, FramePlan, parts_of
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


def read_parts(path: Path, spans: list[Span], right: list[list[int]]) -> tuple[float, int]:
    """CPU seconds of reading all parts, and how many frames were checked."""
    spent, checked = 0.0, 0
    room = np.zeros(PLAN.frames_shape, np.uint8)  # as a decoder process has it
    for first in range(0, len(spans), ROWS):
        batch = spans[first : first + ROWS]
        order, parts = parts_of([ClipSource(str(path), -1, span) for span in batch])
        began = time.process_time()
        with PartReader(str(path), PLAN, parts[order[0]].of.spans) as reader:
            for i in order:
                read = reader.read(parts[i].number, room)
                spent += time.process_time() - began
                numbers = [number_in(picture) for picture in read.frames]
                if not numbers == read.frame_index.tolist() == right[first + i]:
                    raise SystemExit(f"{batch[i]} of {path}: {numbers}, not {right[first + i]}")
                checked += len(numbers)
                began = time.process_time()
        spent += time.process_time() - began
    return spent, checked


def one_pass(path: Path, wanted: set[int]) -> float:
    """CPU seconds of decoding every frame and fitting those that are wanted, into a room as above."""
    room = np.zeros((PLAN.sampling.steps, HEIGHT, WIDTH, 3), np.uint8)
    places = itertools.cycle(room)
    began = time.process_time()
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
    asked = parser.parse_args()
    frames = round(asked.minutes * 60 * RATE)
    ours = theirs = 0.0
    checked = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(asked.videos):
            options = {"g": "50", "bf": "3", "preset": "ultrafast"}
            path = Path(folder) / f"{number}.mp4"
            sizes = {"width": WIDTH, "height": HEIGHT}
            write_numbered_clip(path, frames, rate=RATE, options=options, **sizes)
            spans = random_spans(asked.parts // asked.videos, frames / RATE, seed=number)
            right = [frames_of(span, frames) for span in spans]
            spent, count = read_parts(path, spans, right)
            theirs += one_pass(path, {frame for part in right for frame in part})
            ours, checked = ours + spent, checked + count
            print(f"{path.name}: {len(spans)} parts, {count} frames right", flush=True)
    print(
        f"{asked.parts} parts of {asked.videos} videos of {asked.minutes:g} minutes: {checked} frames"
    )
    print(f"parts {ours:.2f} s, one pass {theirs:.2f} s of CPU time: {ours / theirs:.3f} ×")


if __name__ == "__main__":
    main()
