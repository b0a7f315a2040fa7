"""Importing TensorFlow and Keras without their start-up logs and without the extras they look for."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

_CHATTER = re.compile(
    rb"WARNING: All log messages before absl|[IW]\d{4} \d\d:\d\d:\d\d|INFO: Created TensorFlow Lite"
)

_KERAS_EXTRAS = ("cv2", "sklearn", "matplotlib", "torchvision")


@contextlib.contextmanager
def hushed(*, every_line: bool = False) -> Iterator[None]:
    """Keep the lines that TensorFlow and LiteRT log as they start from standard error.

    TensorFlow 2.21 writes them whatever its log level says. They come from C++ code, so the descriptor
    itself is redirected; any other line that arrives meanwhile is passed on afterwards, unless
    `every_line` is to be dropped.
    """
    try:
        sys.stderr.flush()
        real = os.dup(2)
    except (OSError, ValueError, AttributeError):
        yield
        return
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            aside.seek(0)
            kept = b"".join(line for line in aside if not every_line and not _CHATTER.match(line))
            with open(real, "wb", buffering=0) as stderr:
                stderr.write(kept)


@contextlib.contextmanager
def without_extras() -> Iterator[None]:
    """Within the block, an import of Keras does not find the libraries that it only tries for extras.

    OpenCV, scikit-learn and matplotlib, for its image drawing, wrappers and plots, take a second.
    """
    hidden = [name for name in _KERAS_EXTRAS if name not in sys.modules]
    for name in hidden:
        # The import system's own way to say "not installed".
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
