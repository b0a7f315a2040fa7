"""JAX's part of `pipeline.engine`: its set-up, its devices, and a compiled model.

Importing this module does not import JAX.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import Any, Literal

import numpy as np

from pipeline.homes import cache_folder

LEAST_COMPILE_S = 0.1
"""Functions that compile faster than this are not cached."""


def prepare(cpu_flags: Collection[str]) -> None:
    """Cache what JAX compiles in our cache folder, unless the user has named another.

    JAX cannot change its threads after its start; `pipeline.engine.quiet` sets how it takes GPU memory.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        return
    # By processor too: code compiled for one CPU may not run on another that shares the folder.
    processor = hashlib.sha256(" ".join(sorted(cpu_flags)).encode()).hexdigest()[:12]
    folder = cache_folder() / "jax" / f"{jax.__version__}-{processor}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_COMPILE_S)


def device() -> Literal["gpu", "cpu"]:
    """ "gpu" where JAX can use one, else "cpu"."""
    import jax

    return "gpu" if jax.default_backend() in ("gpu", "cuda", "rocm") else "cpu"


def device_name() -> str:
    """The first device as its driver names it, e.g. `NVIDIA H100 80GB HBM3`."""
    import jax

    return str(jax.devices()[0].device_kind)


def compiled(model: Any, shape: tuple[int, ...], dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    """As `pipeline.engine.compiled`."""
    import jax

    # The weights are arguments, not constants: XLA would fold constants for minutes.
    weights = (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )

    def forward(weights: Any, inputs: Any) -> Any:
        return model.stateless_call(*weights, inputs, training=False)[0]

    inputs = jax.ShapeDtypeStruct(shape, np.dtype(dtype))
    function = jax.jit(forward).lower(weights, inputs).compile()
    return lambda inputs: np.asarray(function(weights, jax.device_put(inputs)))
