"""SHA-256 of values as JSON, and of a trained head."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np


def json_digest(values: Any) -> str:
    """SHA-256 (hex) of plain JSON values; the order of keys does not count."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def head_digest(model: Any, classes: Sequence[str]) -> str:
    """SHA-256 (hex) over the class names in their order, then each weight's shape, dtype and bytes.

    Equal for a model that was saved and loaded; names of layers and the states of dropouts do not
    count. `metrics.json` keeps it, so that a loaded head can be compared with the one that was trained.
    """
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for weight in model.get_weights():
        array = np.ascontiguousarray(weight)
        digest.update(json.dumps([list(array.shape), str(array.dtype)]).encode())
        digest.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
    return digest.hexdigest()
