"""Standard error without the lines that TensorFlow and LiteRT log as they start."""

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
