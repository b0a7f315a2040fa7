"""Reading a clip beside OpenCV: CPU time at 240p, 480p and 1080p, and whether the pictures agree.

Ours is `read_clip`: FFmpeg through PyAV. Beside it stands OpenCV's `VideoCapture`, as this project
read clips before: `grab` every frame, `retrieve` the 40 wanted ones, crop, scale, turn into RGB. Both
decode on one thread the same H.264 clips of 3 seconds (a moving test picture with noise, 90 frames),
one clip after the other, each in a process of its own, round by round in turn.

    python -m benchmarks.decoding [--rounds 7] [--clips FOLDER]
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

from benchmarks.alternating import compare, rates, save, serve
from pipeline.features.decoding import FramePlan, read_clip
from pipeline.features.sampling import sample_indices

SIZES = {"240p": (426, 240), "480p": (854, 480), "1080p": (1920, 1080)}
CLIPS = {"240p": 8, "480p": 3, "1080p": 1}
"""How often a clip of each size is read in a round."""

RATE, FRAMES = 30, 90
WAYS = {"ours": "ours", "opencv": "OpenCV"}
PLAN = FramePlan()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clips", default="", help="a folder of clips, as one more line")
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        serve(lambda: _prepared(arguments.way, _sets(arguments.folder, arguments.clips)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, (width, height) in SIZES.items():
            make_clip(f"{folder}/{name}.mp4", width, height)
        words = ["--folder", folder, "--clips", arguments.clips]
        report = compare(__file__, WAYS, words, arguments.rounds)
        sets = _sets(folder, arguments.clips)
        report["levels"] = {name: _apart(paths) for name, paths in sets.items()}
    save("decoding", report)
    print(shown(report))


def shown(figures: dict[str, Any]) -> str:
    """A line per size: CPU milliseconds a clip by both, their ratio, and how far pictures differ."""
    lines = [
        "| clips | ours, ms | OpenCV, ms | ours is × | mean difference, levels |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, levels in figures["levels"].items():
        ours, opencv = rates(figures, "ours", name), rates(figures, "opencv", name)
        ratio = statistics.median(b / a for a, b in zip(ours, opencv, strict=True))
        lines.append(
            f"| {name} | {statistics.median(ours):.1f} | {statistics.median(opencv):.1f} "
            f"| {ratio:.2f} | {levels:.3f} |"
        )
    return "\n".join(lines)


def _sets(folder: str, clips: str) -> dict[str, list[str]]:
    sets = {name: [f"{folder}/{name}.mp4"] * count for name, count in CLIPS.items()}
    if clips:
        sets[Path(clips).name] = sorted(map(str, Path(clips).rglob("*.mp4")))[:40]
    return sets


def _prepared(way: str, sets: dict[str, list[str]]) -> Callable[[], dict[str, float]]:
    """A round: every set's clips, one after the other; CPU milliseconds a clip by set."""
    cv2.setNumThreads(1)
    read = by_opencv if way == "opencv" else by_us

    def one_round() -> dict[str, float]:
        answer = {}
        for name, paths in sets.items():
            began = time.process_time()
            for path in paths:
                read(path)
            answer[name] = 1000 * (time.process_time() - began) / len(paths)
        return answer

    one_round()  # warms up
    return one_round


def _apart(paths: list[str]) -> float:
    """The mean difference of the two ways' pictures, in levels of 255."""
    pairs = [(by_us(path), by_opencv(path)) for path in dict.fromkeys(paths)]
    same = [(a, b) for a, b in pairs if a.shape == b.shape]
    return statistics.mean(float(np.abs(a.astype(np.int16) - b).mean()) for a, b in same)


def by_us(path: str) -> NDArray[np.uint8]:
    """The clip's frames by `read_clip`."""
    return read_clip(path, PLAN).frames


def by_opencv(path: str) -> NDArray[np.uint8]:
    """The clip's frames by OpenCV alone, by the header's count."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = set(sample_indices(PLAN.sampling, count).tolist())
    kept = []
    index = 0
    while capture.grab():
        if index in wanted:
            picture = capture.retrieve()[1]
            height, width = picture.shape[:2]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            square = picture[top : top + side, left : left + side]
            method = cv2.INTER_AREA if side >= PLAN.size else cv2.INTER_LINEAR
            kept.append(cv2.resize(square, (PLAN.size, PLAN.size), interpolation=method))
        index += 1
    capture.release()
    frames = np.empty((len(kept), PLAN.size, PLAN.size, 3), np.uint8)
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
