"""JAX's part of `pipeline.engine`: its set-up, its devices, and a compiled model.

Importing this module does not import JAX.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
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


def scan(
    step: Callable[..., Any],
    state: Any,
    inputs: Sequence[Any],
    *,
    outputs: Sequence[Any],
    keep: Sequence[Any] = (),
    kept: Sequence[Any] = (),
    reverse: bool = False,
) -> tuple[Any, Any]:
    """As `pipeline.engine.scan`."""
    import jax

    def one(state: Any, values: Any) -> Any:
        return step(state, *values)

    # On an H100, one step a turn: an LSTM of 4096 takes 8.0 ms, a GRU of 512 1.3 ms; eight: 7.5 and
    # 0.9; all forty: 7.0, and four times as long to compile. On a CPU one is the fastest.
    unroll = 8 if device() == "gpu" else 1
    _, made = jax.lax.scan(one, state, (*inputs, *kept), reverse=reverse, unroll=unroll)
    return made[: len(outputs)], made[len(outputs) :]
