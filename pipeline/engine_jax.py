"""JAX's part of `pipeline.engine`: its set-up, its devices, and a compiled model.

Importing this module does not import JAX.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import numpy as np

from pipeline.homes import cache_folder

LEAST_COMPILE_S = 0.0
"""Functions that compile faster than this are not cached. Building a head compiles fifty, none of which
takes a tenth of a second: together they are most of the building."""
SOONER = {"xla_cpu_use_fusion_emitters": False}
"""XLA's older way from operations to machine code: a training step is compiled a third sooner, and is
as fast."""


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


def compile_sooner(model: Any) -> None:
    """Have a compiled Keras model's training step compiled with `SOONER`, on a CPU.

    Keras passes XLA no options. Where XLA does not know them any more, Keras' own way stays.
    """
    import jax

    if device() != "cpu" or not _knows(tuple(SOONER.items())):
        return
    step = jax.jit(model.train_step, donate_argnums=0, compiler_options=SOONER)
    model.train_function = model._make_function(step)


def forget_compiled() -> None:
    """As `pipeline.engine.forget_compiled`; what is used again is made again, by the cache on disk."""
    import jax

    jax.clear_caches()


@functools.cache
def _knows(options: tuple[tuple[str, Any], ...]) -> bool:
    """Whether XLA takes these options."""
    import jax

    try:
        jax.jit(lambda x: x, compiler_options=dict(options)).lower(0.0).compile()
    except (RuntimeError, ValueError):
        return False
    return True


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


def joined(blocks: Sequence[np.ndarray]) -> Any:
    """As `pipeline.engine.joined`."""
    import jax

    return _joining()(jax.device_put(list(blocks)))


@functools.cache
def _joining() -> Any:
    import jax

    return jax.jit(jax.numpy.concatenate)


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


def kernel_gradient(x: Any, kernel: Any, upstream: Any) -> Any:
    """As `pipeline.engine.kernel_gradient`."""
    import jax

    def convolved(kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    (gradient,) = jax.vjp(convolved, kernel)[1](upstream)
    return gradient
