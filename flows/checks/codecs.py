"""Which codecs decode on this machine, by decoding."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.errors import UnreadableClip
from pipeline.hushing import hushed

FRAMES = 8
SAMPLES = {
    # what people call it: (encoder, file ending)
    "H.264": ("libx264", ".mp4"),
    "H.265": ("libx265", ".mp4"),
    "MPEG-4 (Xvid, UCF101)": ("mpeg4", ".avi"),
    "MPEG-2": ("mpeg2video", ".mpg"),
    "VP8": ("libvpx", ".webm"),
    "VP9": ("libvpx-vp9", ".webm"),
    "AV1": ("libsvtav1", ".mp4"),
    "Motion JPEG": ("mjpeg", ".avi"),
}


def tried() -> Iterator[tuple[str, str]]:
    """(what was found, the remedy or "") of each codec: a tiny clip of it is written and read."""
    from pipeline.features.decoding import FramePlan, read_clip

    plan = FramePlan(size=64)
    with tempfile.TemporaryDirectory() as folder:
        for name, (encoder, ending) in SAMPLES.items():
            path = Path(folder) / f"{encoder}{ending}"
            with hushed(every_line=True), _scheduling_kept():  # encoders write to standard error
                is_written = _write(path, encoder)
            if not is_written:
                yield f"{name}: not tried, no encoder here to make a sample", ""
                continue
            remedy = (
                f"pip install --force-reinstall av opencv-python-headless; or turn {name} clips into "
                "H.264: ffmpeg -i in -c:v libx264 out.mp4"
            )
            try:
                with hushed(every_line=True):
                    read = read_clip(str(path), plan)
            except UnreadableClip as error:
                yield f"{name}: does not decode ({error.reason})", remedy
                continue
            if read.frames_decoded != FRAMES:
                found = f"{name}: {read.frames_decoded} of {FRAMES} frames decode"
                yield found, remedy
            else:
                yield f"{name}: decodes, by {read.decoder}", ""


@contextlib.contextmanager
def _scheduling_kept() -> Iterator[None]:
    """Leave this thread scheduled as before: run by root, SVT-AV1 gives it a real-time priority.

    It would hand that on to every process that it starts, and all others on the machine would wait.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def _write(path: Path, encoder: str) -> bool:
    """Write the sample; False where this build of FFmpeg has no such encoder."""
    import av

    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(encoder, rate=25)
            stream.width = stream.height = 128
            stream.pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
            for number in range(FRAMES):
                picture = np.full((128, 128, 3), 20 + 25 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(stream.encode())
    except (av.error.FFmpegError, ValueError):
        return False
    return True
