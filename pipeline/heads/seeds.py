"""Seeds as values: every random choice of a run has a seed of its own, derived from the run's by name.

Keras draws a seed that is left out from Python's process-wide generator, which other threads
(Prefect's websocket, Dask's `sizeof`) draw from too. So every seed is given.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections import Counter
from typing import Any

from pipeline.heads.lean import keras

BITS = 31
"""Some backends hold a seed as a signed 32-bit number."""


def derived_seed(seed: int, *names: str) -> int:
    """The seed of these names under a run's `seed`: 0 to 2³¹ − 1, from their SHA-256."""
    words = "\0".join([str(int(seed)), *names])
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big") >> (32 - BITS)


class SeededLayers:
    """Makes the layers of one head. What is random in them draws from seeds of their own.

    A layer's seeds follow from the run's seed, the head, the layer's name and what the seed is for
    (`kernel_initializer`, …, `seed` for dropout). A layer without a name gets the one that Keras
    gives in a fresh process: `dense`, `dense_1`, ….

    prefix: of the layers' names in the model, where several heads are in one
    """

    def __init__(self, seed: int, head: str, prefix: str = "") -> None:
        self.seed = seed
        self.head = head
        self.prefix = prefix
        self._made: Counter[str] = Counter()

    def __call__(self, kind: type[Any], *arguments: Any, **options: Any) -> Any:
        """The layer `kind(*arguments, **options)` with a seed wherever it takes one."""
        name = options.setdefault("name", self._next_name(kind))
        starts = kind.start_weights(*arguments) if hasattr(kind, "start_weights") else {}
        for parameter, default in _parameters(kind).items():
            seed = derived_seed(self.seed, self.head, name, parameter)
            if parameter == "seed":
                options["seed"] = seed
            elif parameter.endswith("_initializer"):
                start = options.get(parameter, starts.get(parameter, default))
                options[parameter] = seeded_initialiser(start, seed)
        options["name"] = self.prefix + name
        return kind(*arguments, **options)

    def dense(self, x: Any, units: int, activation: str | None = "relu", **options: Any) -> Any:
        """`x` through a dense layer."""
        return self(keras.layers.Dense, units, activation=activation, **options)(x)

    def convolution(self, kind: type[Any], x: Any, filters: int, size: Any, **options: Any) -> Any:
        """`x` through a convolution of this kind, with ReLU and as long and wide as before."""
        return self(kind, filters, size, padding="same", activation="relu", **options)(x)

    def dropout(self, x: Any, rate: float) -> Any:
        """`x` with a dropout on it."""
        from pipeline.heads.dropout import Dropout  # only now: a class of a layer imports Keras

        return self(Dropout, rate)(x)

    def probabilities(
        self, x: Any, classes: int, name: str = "probabilities", *, activation: str = "softmax"
    ) -> Any:
        """The end of a head: softmax over the classes, in float32 whatever the policy."""
        return self.dense(x, classes, activation=activation, dtype="float32", name=name)

    def _next_name(self, kind: type[Any]) -> str:
        stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", kind.__name__).lower()
        number = self._made[stem]
        self._made[stem] += 1
        return f"{stem}_{number}" if number else stem


def seeded_initialiser(initialiser: Any, seed: int) -> Any:
    """The same initialiser (a name or an instance) with this seed; unchanged if it draws nothing."""
    if isinstance(initialiser, str):
        # Not `initializers.get`: it makes an instance first, whose seed comes from Python's generator.
        kind = getattr(keras.initializers, "".join(initialiser.title().split("_")))
        return kind(seed=seed) if "seed" in inspect.signature(kind).parameters else kind()
    config = initialiser.get_config()
    return (
        type(initialiser).from_config({**config, "seed": seed}) if "seed" in config else initialiser
    )


def _parameters(kind: type[Any]) -> dict[str, Any]:
    """Name → default of all parameters of a layer's constructor and its parents'."""
    parameters: dict[str, Any] = {}
    for parent in reversed(kind.__mro__):
        if "__init__" in vars(parent):
            signature = inspect.signature(vars(parent)["__init__"]).parameters.values()
            parameters |= {parameter.name: parameter.default for parameter in signature}
    return parameters
