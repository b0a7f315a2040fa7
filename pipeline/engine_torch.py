"""PyTorch's part of `pipeline.engine`: a model for inference. Imported where torch is the backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
import torch


def compiled(model: Any, shape: tuple[int, ...], dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    """As `pipeline.engine.compiled`; torch runs it as it is."""
    model.eval()

    def run(inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs = model(keras.ops.convert_to_tensor(inputs), training=False)
            return np.asarray(outputs.float().cpu().numpy())

    return run


def device() -> Literal["gpu", "cpu"]:
    """ "gpu" where PyTorch can use one, else "cpu"."""
    return "gpu" if torch.cuda.is_available() else "cpu"
