"""Which Keras backend and device do the work, how they are set up, and one compiled function.

`engine_jax`, `engine_tensorflow` and `engine_torch` have what is theirs. Everything else writes plain
Keras 3, so that `KERAS_BACKEND=jax` or `torch` runs the same code. Importing this module imports none
of them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import engine_jax
from pipeline.errors import ConfigError
from pipeline.homes import keras_home
from pipeline.hushing import hushed, without_extras

if TYPE_CHECKING:
    from pipeline.spec import Precision

Device = Literal["gpu", "cpu"]

_PACKAGES = {"tensorflow": ("tensorflow", "tensorflow-cpu"), "jax": ("jax",), "torch": ("torch",)}


def prepare(threads: int = 0) -> None:
    """Set the backend up, once per process and before any layer is built.

    Quiet logs; GPU memory that grows with need (TensorFlow takes all of it otherwise, and building
    an LSTM layer is enough to trigger that); `threads` threads per operation (0: one per core this
    process may use). Only the first call has an effect, and only before the backend has started.
    """
    quiet()
    if _prepared:
        return
    require_backend()
    _prepared.append(True)
    threads = threads or cores()
    if backend_name() == "tensorflow":
        _prepare_tensorflow(threads)
    elif backend_name() == "torch":
        import torch

        torch.set_num_threads(threads)
    elif backend_name() == "jax":
        engine_jax.prepare(cpu_flags())


def require_backend() -> None:
    """Raise `ConfigError` where Keras' backend is not known or not installed. Imports nothing."""
    name = backend_name()
    if name not in _PACKAGES:
        raise ConfigError(
            f"Keras' backend is {name!r}: set KERAS_BACKEND to tensorflow, jax or torch"
        )
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    others = [other for other in _PACKAGES if importlib.util.find_spec(other) is not None]
    raise ConfigError(
        f"Keras' backend {name} is not installed: "
        + (f"set KERAS_BACKEND={others[0]}, or " if others else "")
        + f"pip install {_PACKAGES[name][-1]}"
    )


def quiet() -> None:
    """Silence the backends' start-up logs. Acts only before they are imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


_prepared: list[bool] = []


def _prepare_tensorflow(threads: int) -> None:
    # TensorFlow's import brings Keras.
    with hushed(), without_extras():
        import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    try:
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(min(2, threads))
    except RuntimeError:
        # TensorFlow has started already; its settings can no longer change.
        return


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def backend_name() -> str:
    """ "tensorflow", "jax" or "torch": what Keras runs on, without importing it.

    Keras' own order: `KERAS_BACKEND`, then its configuration file, then TensorFlow.
    """
    if "keras" in sys.modules:
        return str(sys.modules["keras"].backend.backend())
    if chosen := os.environ.get("KERAS_BACKEND"):
        return chosen
    try:
        settings = json.loads((keras_home() / "keras.json").read_text())
    except (OSError, ValueError):
        return "tensorflow"
    return (
        str(settings.get("backend", "tensorflow")) if isinstance(settings, dict) else "tensorflow"
    )


def backend_is_chosen() -> bool:
    """Whether the user asked for a Keras backend other than the default by `KERAS_BACKEND`."""
    return os.environ.get("KERAS_BACKEND", "tensorflow") not in ("", "tensorflow")


def software() -> dict[str, str]:
    """Versions of Keras and the backend it runs on, without importing them."""
    installed = filter(None, map(version, _PACKAGES.get(backend_name(), ())))
    versions = {"keras": version("keras"), backend_name(): next(installed, "")}
    return {name: text for name, text in versions.items() if text}


def version(package: str) -> str:
    """The installed version of a package, "" where there is none. Does not import it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def device() -> Device:
    """ "gpu" where the Keras backend can use one, else "cpu". Imports the backend.

    For planning, `device_hint` says what the hardware has without importing anything.
    """
    found: Device = _part().device()
    return found


def device_hint() -> Device:
    """ "gpu" where an NVIDIA driver offers this process a device, else "cpu"."""
    return "gpu" if gpu_capability() else "cpu"


def nvidia_smi(field: str) -> list[str]:
    """What NVIDIA's driver says of each GPU, e.g. `index`; empty without a driver. Imports nothing."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        reply = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return reply.stdout.split()


@functools.cache
def _ask_driver() -> float:
    try:
        return min(map(float, nvidia_smi("compute_cap")), default=0.0)
    except ValueError:
        return 0.0


def gpu_capability() -> float:
    """The CUDA compute capability of the weakest GPU this process may use; 0.0 where none is."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return 0.0
    return _ask_driver()


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The CPU's features by their Linux names; empty where the system does not list them."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def precisions() -> tuple[Precision, ...]:
    """The precisions that this machine computes in hardware, the fastest first.

    bfloat16 on a CPU with AVX512-BF16 or AMX and on GPUs from compute capability 8.0, float16 on
    GPUs from 7.0, float32 everywhere. Imports no backend, so a plan can ask.
    """
    if capability := gpu_capability():
        if capability >= 8:
            return ("bfloat16", "float16", "float32")
        return ("float16", "float32") if capability >= 7 else ("float32",)
    if cpu_flags() & {"avx512_bf16", "amx_bf16"}:
        return ("bfloat16", "float32")
    return ("float32",)


def auto_precision() -> Precision:
    """The precision that `auto` means on this machine, without importing a backend."""
    return precisions()[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error of a backend means that the device's memory is full."""
    message = f"{type(error).__name__}: {error}".lower()
    signs = ("resource_exhausted", "resourceexhausted", "out of memory")
    return any(words in message for words in signs)


def device_name() -> str:
    """The device that Keras' backend computes on, as its driver names it."""
    if device() == "cpu":
        return "cpu"
    if backend_name() == "jax":
        return engine_jax.device_name()
    if backend_name() == "torch":
        import torch

        return str(torch.cuda.get_device_name(0))
    import tensorflow as tf

    first = tf.config.list_physical_devices("GPU")[0]
    return str(tf.config.experimental.get_device_details(first).get("device_name", "gpu"))


def keras_policy(precision: str) -> str:
    """The Keras dtype policy of a precision: weights stay float32, products are computed in it."""
    return precision if precision == "float32" else f"mixed_{precision}"


def joined(blocks: Sequence[np.ndarray]) -> Any:
    """Arrays of one shape, one behind the other, as what `compiled` gives takes them.

    On JAX they are brought together on the device: their memory must stay as it is until what is
    computed from them is known. Elsewhere they are copied into one array.
    """
    return engine_jax.joined(blocks) if backend_name() == "jax" else np.concatenate(blocks)


def compiled(
    model: Any, shape: tuple[int, ...], *, dtype: str = "float32"
) -> Callable[[np.ndarray], np.ndarray]:
    """One compiled inference function of a Keras model for one fixed input shape.

    shape: the whole input's, batch included. dtype: its type. The function takes and returns numpy
    arrays.
    """
    require_backend()
    function: Callable[[np.ndarray], np.ndarray] = _part().compiled(model, shape, dtype)
    return function


def scan(
    step: Callable[..., Any],
    state: Sequence[Any],
    inputs: Sequence[Any],
    *,
    outputs: Sequence[tuple[str, tuple[int, ...]]],
    keep: Sequence[tuple[str, tuple[int, ...]]] = (),
    kept: Sequence[Any] = (),
    reverse: bool = False,
) -> tuple[Sequence[Any], Sequence[Any]]:
    """A loop over steps that is traced once, on TensorFlow and JAX; returns (outputs, kept).

    step: (state, *inputs of the step, *kept of the step) → (state, values), a value for each of
        `outputs`, then one for each of `keep`
    state: tensors (batch, *shape)
    inputs: tensors (steps, batch, *shape)
    outputs: dtype and shape of what is returned as (steps, batch, *shape)
    keep: dtype and shape of what another scan is given as `kept`, of no other use
    reverse: from the last step to the first
    """
    made: tuple[Sequence[Any], Sequence[Any]] = _part().scan(
        step, state, inputs, outputs=outputs, keep=keep, kept=kept, reverse=reverse
    )
    return made


def compile_sooner(model: Any) -> None:
    """Have a compiled Keras model's training step compiled in less time, where the backend can."""
    if backend_name() == "jax":
        engine_jax.compile_sooner(model)


def forget_compiled() -> None:
    """Let go of what was compiled for models that are gone, where the backend keeps it."""
    if backend_name() == "jax":
        engine_jax.forget_compiled()


def kernel_gradient(x: Any, kernel: Any, upstream: Any) -> Any:
    """The gradient of a kernel (h, w, in, out) from that of what it made of `x`, padded to "same"."""
    return _part().kernel_gradient(x, kernel, upstream)


def _part() -> Any:
    """What is the backend's own."""
    return importlib.import_module(f"pipeline.engine_{backend_name()}")
