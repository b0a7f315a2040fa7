"""Reading a clip beside OpenCV: CPU time at 240p, 480p and 1080p, and whether the pictures agree.

Ours is `read_clip`: FFmpeg through PyAV. Beside it stands OpenCV's `VideoCapture`, as this project
read clips before: `grab` every frame, `retrieve` the 40 wanted ones, crop, scale, turn into RGB. Both
decode on one thread, in this process, in turn, the same H.264 clips of 3 seconds (testsrc2 with noise,
90 frames). A ratio above 1 says that ours takes less.

    python -m benchmarks.decoding [--pairs 10] [--clips FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.alternating import save
from pipeline.features.decoding import FramePlan, read_clip
from pipeline.features.sampling import sample_indices

SIZES = {"240p": (426, 240), "480p": (854, 480), "1080p": (1920, 1080)}
RATE, FRAMES = 30, 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--clips", default="", help="a folder of clips, as one more line")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (width, height) in SIZES.items():
            path = f"{scratch}/{name}.mp4"
            make_clip(path, width, height)
            report[name] = measure([path] * arguments.pairs)
            print(f"{name}: {report[name]['ratio']:.3f}", file=sys.stderr)
        if arguments.clips:
            clips = sorted(map(str, Path(arguments.clips).rglob("*.mp4")))
            report[Path(arguments.clips).name] = measure(clips)
    save("decoding", report)
    print(shown(report))


def shown(figures: dict[str, Any]) -> str:
    """A line per size: milliseconds a clip by both, and their ratio."""
    lines = [
        "| clips | ours, ms | OpenCV, ms | ours is × | mean difference, levels |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in figures.items():
        if name != "machine":
            lines.append(
                f"| {name} | {row['ours_ms']:.1f} | {row['opencv_ms']:.1f} | {row['ratio']:.2f} "
                f"| {row['levels']:.3f} |"
            )
    return "\n".join(lines)


def measure(paths: list[str]) -> dict[str, Any]:
    """Every clip by both ways, in turn; CPU milliseconds a clip (medians), the ratio of the sums."""
    plan = FramePlan()
    ours: list[float] = []
    opencv: list[float] = []
    levels: list[float] = []
    for place, path in enumerate([paths[0], *paths]):
        ways: list[tuple[Callable[[], NDArray[np.uint8]], list[float]]] = [
            (lambda path=path: read_clip(path, plan).frames, ours),  # type: ignore[misc]
            (lambda path=path: by_opencv(path, plan), opencv),  # type: ignore[misc]
        ]
        frames = []
        for way, spent in ways if place % 2 else ways[::-1]:
            began = time.process_time()
            frames.append(way())
            spent.append(1000 * (time.process_time() - began))
        a, b = frames
        levels.append(float(np.abs(a.astype(np.int16) - b).mean()) if a.shape == b.shape else 255.0)
    return {
        "clips": len(paths),
        "ours_ms": statistics.median(ours[1:]),  # the first of each warms up
        "opencv_ms": statistics.median(opencv[1:]),
        "ratio": sum(opencv[1:]) / sum(ours[1:]),
        "levels": statistics.mean(levels),
    }


def by_opencv(path: str, plan: FramePlan) -> NDArray[np.uint8]:
    """The clip's frames by OpenCV alone, by the header's count."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = set(sample_indices(plan.sampling, count).tolist())
    kept = []
    index = 0
    while capture.grab():
        if index in wanted:
            picture = capture.retrieve()[1]
            height, width = picture.shape[:2]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            square = picture[top : top + side, left : left + side]
            method = cv2.INTER_AREA if side >= plan.size else cv2.INTER_LINEAR
            kept.append(cv2.resize(square, (plan.size, plan.size), interpolation=method))
        index += 1
    capture.release()
    frames = np.empty((len(kept), plan.size, plan.size, 3), np.uint8)
    for place, picture in enumerate(kept):
        cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=frames[place])
    return frames


def make_clip(path: str, width: int, height: int) -> None:
    """Write a moving test picture with noise as H.264, as a camera's clip would be compressed."""
    graph = av.filter.Graph()
    source = graph.add("testsrc2", f"size={width}x{height}:rate={RATE}")
    noise = graph.add("noise", "alls=12:allf=t:all_seed=1")
    sink = graph.add("buffersink")
    source.link_to(noise)
    noise.link_to(sink)
    graph.configure()
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "26", "preset": "medium"}
        for number in range(FRAMES):
            frame = graph.pull()
            assert isinstance(frame, av.VideoFrame)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
