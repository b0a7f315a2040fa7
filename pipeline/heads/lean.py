"""Keras, imported without the libraries that it only tries for extras we do not use.

`import keras` loads OpenCV, scikit-learn and matplotlib where they are installed (for its image
drawing, wrappers and plots). A training needs none of them, and starts a second earlier so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = ("cv2", "sklearn", "matplotlib", "torchvision")


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        # The import system's own way to say "not installed".
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


if "keras" in sys.modules:
    import keras
else:
    from pipeline.engine import quiet, require_backend
    from pipeline.hushing import hushed

    quiet()
    require_backend()
    with hushed(), _without(EXTRAS):
        import keras

__all__ = ["keras"]
