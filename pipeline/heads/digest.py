"""What a trained head is, in one hash: its classes in order and the bytes of its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np


def head_digest(model: Any, classes: Sequence[str]) -> str:
    """SHA-256 (hex) over the class names in their order, then each weight's shape, type and bytes.

    Equal for a model that was saved and loaded; names of layers and the states of dropouts do not
    count. `metrics.json` keeps it, so that a head is held against what it was trained as.
    """
    found = hashlib.sha256(json.dumps(list(classes)).encode())
    for weight in model.get_weights():
        array = np.ascontiguousarray(weight)
        found.update(json.dumps([list(array.shape), str(array.dtype)]).encode())
        found.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
    return found.hexdigest()
