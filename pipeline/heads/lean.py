"""Keras, imported when it is first used, and without the libraries that it only tries for extras.

`import keras` takes seconds, and loads OpenCV, scikit-learn and matplotlib where they are installed
(for its image drawing, wrappers and plots). The list of heads and a leaderboard need no Keras at
all; a training needs none of the extras, and starts a second earlier so.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any


class _Keras:
    """The module `keras`; the first attribute that is asked for imports it."""

    _importing = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        with self._importing:
            if "keras" not in sys.modules:
                from pipeline.engine import quiet, require_backend
                from pipeline.hushing import hushed, without_extras

                quiet()
                require_backend()
                with hushed(), without_extras():
                    import keras
            import keras
        value = getattr(keras, name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import keras
else:
    keras = _Keras()

__all__ = ["keras"]
