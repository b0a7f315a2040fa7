"""Bare readers of clips for `benchmarks.feed`, each in a child process: `python readers.py NAME`.

It reads a path per line and answers with the number of frames that it has read from it: 40, at the
middles of 40 equal parts of the clip, as squares of 299 pixels in RGB. It imports nothing of ours, so
that an environment with torchcodec alone can run it. One thread each; as many children as cores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

SIZE, STEPS = 299, 40


def wanted(count: int) -> list[int]:
    """The frames to read of a clip of so many."""
    return [int((step + 0.5) * count / STEPS) for step in range(STEPS)]


def by_opencv() -> Callable[[str], Sequence[Any]]:
    """`grab` every frame, `retrieve` those that are wanted."""
    import cv2

    cv2.setNumThreads(1)

    def read(path: str) -> Sequence[Any]:
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        chosen = set(wanted(int(capture.get(cv2.CAP_PROP_FRAME_COUNT))))
        frames: list[Any] = []
        index = 0
        while capture.grab():
            if index in chosen:
                fitted = _fitted(cv2, capture.retrieve()[1])
                frames.append(cv2.cvtColor(fitted, cv2.COLOR_BGR2RGB))
            index += 1
        return frames

    return read


def by_pyav() -> Callable[[str], Sequence[Any]]:
    """Decode every frame, `to_ndarray` those that are wanted."""
    import av
    import cv2

    cv2.setNumThreads(1)

    def read(path: str) -> Sequence[Any]:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            chosen = set(wanted(stream.frames))
            decoded = enumerate(container.decode(stream))
            return [
                _fitted(cv2, frame.to_ndarray(format="rgb24"))
                for index, frame in decoded
                if index in chosen
            ]

    return read


def by_torchcodec() -> Callable[[str], Sequence[Any]]:
    """`get_frames_at`, cropped and scaled by the decoder's own transforms."""
    import torch
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import CenterCrop, Resize

    torch.set_num_threads(1)

    def read(path: str) -> Sequence[Any]:
        facts = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate").metadata
        side = min(facts.height, facts.width)
        decoder = VideoDecoder(
            path,
            num_ffmpeg_threads=1,
            seek_mode="approximate",
            dimension_order="NHWC",
            transforms=[CenterCrop((side, side)), Resize((SIZE, SIZE))],
        )
        frames: Sequence[Any] = decoder.get_frames_at(wanted(facts.num_frames)).data
        return frames

    return read


READERS = {"opencv": by_opencv, "pyav": by_pyav, "torchcodec": by_torchcodec}


def _fitted(cv2: Any, picture: Any) -> Any:
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    method = cv2.INTER_AREA if side >= SIZE else cv2.INTER_LINEAR
    return cv2.resize(square, (SIZE, SIZE), interpolation=method)


def main(name: str) -> None:
    """Answer until standard input ends; the first answer is that it is ready."""
    read = READERS[name]()
    print("ready", flush=True)
    for line in sys.stdin:
        print(len(read(line.rstrip("\n"))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
