"""Sampling a long clip by exact seeking beside reading it through, and whether the frames agree.

Makes a 480p H.264 clip with B-frames at 30 frames/s and a keyframe every 250, or takes yours.

    python -m benchmarks.seeking [--minutes 20] [--pairs 3] [--clip FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np

from benchmarks.alternating import save
from pipeline.features.decoding import ClipFrames, FramePlan, read_clip, seeking

WIDTH, HEIGHT, RATE = 854, 480, 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--clip", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        clip = arguments.clip or f"{scratch}/long.mp4"
        if not arguments.clip:
            make_clip(clip, round(arguments.minutes * 60 * RATE))
        report = measure(clip, arguments.pairs)
    save("seeking", report)
    print(shown(report))


def shown(figures: dict[str, Any]) -> str:
    """What seeking costs of reading through, and whether the frames are the same."""
    same = "the same frames, pixel for pixel" if figures["same"] else "**other frames**"
    return (
        f"sampling 40 of {figures['frames']:,} frames by seeking takes "
        f"{statistics.median(figures['ratios']):.3f} of reading the clip through, in CPU seconds: {same}"
    )


def measure(clip: str, pairs: int) -> dict[str, Any]:
    """Run the pairs, print a line each, return the figures."""
    ratios = []
    same = True
    for _ in range(pairs):
        sought, sought_s = timed(clip, by_seeking=True)
        through, through_s = timed(clip, by_seeking=False)
        ratios.append(sought_s / through_s)
        same &= bool(np.array_equal(sought.frames, through.frames))
        print(
            f"{sought.frames_decoded} frames: {sought.decoder} {sought_s:.2f} CPU s, "
            f"{through.decoder} {through_s:.2f} CPU s, {ratios[-1]:.3f} of reading through"
        )
    return {"frames": through.frames_decoded, "ratios": ratios, "same": same}


def timed(clip: str, *, by_seeking: bool) -> tuple[ClipFrames, float]:
    """The clip's frames and the CPU seconds that they cost."""
    longest, seeking.LONG_FRAMES = seeking.LONG_FRAMES, 0 if by_seeking else sys.maxsize
    began = time.process_time()
    try:
        return read_clip(clip, FramePlan()), time.process_time() - began
    finally:
        seeking.LONG_FRAMES = longest


def make_clip(path: str, frames: int) -> None:
    """Write a clip in which a soft pattern wanders under the frame's number."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (HEIGHT, 2 * WIDTH, 3), dtype=np.uint8)
    pattern = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        settings = "keyint=250:bframes=2:b-adapt=0:scenecut=0"
        stream.options = {"preset": "ultrafast", "x264-params": settings}
        for number in range(frames):
            left = number % WIDTH
            picture = pattern[:, left : left + WIDTH].copy()
            cv2.putText(picture, str(number), (200, 260), 0, 4, (255, 255, 255), 8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
