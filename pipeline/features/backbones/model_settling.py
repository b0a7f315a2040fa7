"""A model's facts and its user's TOML file → the kind of backbone that it is, key by key.

Each key is read from the model, said in the file, or assumed; one that nobody knows is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from pipeline.errors import ConfigError
from pipeline.features.backbones.family import BackboneKind
from pipeline.features.backbones.model_config import ModelConfig
from pipeline.features.backbones.model_facts import ModelFacts, Tensor
from pipeline.spec import Preprocessing

LAYOUTS = {4: ("NHWC", "NCHW"), 5: ("NTHWC", "NCTHW", "NTCHW")}
_NUMBERS = ("float32", "float16", "float64", "bfloat16", "uint8")
_MOST_RANK = 5
_EXAMPLES = {
    "size": "size = 224",
    "layout": 'layout = "NCHW"',
    "scale": 'scale = "1/255"',
    "window": "window = 16",
    "output": 'output = "features"',
    "pool": 'pool = "mean"',
}
_TELLS = {
    "size": "the side of its pictures in pixels",
    "layout": "the order of its axes",
    "scale": "what pixels of 0 to 255 are multiplied by",
    "window": "how many frames it reads for a step",
    "output": "which of its outputs is the feature",
    "pool": "what becomes of its output's other axes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One key of a model: its value, and where that came from."""

    key: str
    value: Any
    source: Literal["read from the model", "said", "assumed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A model that can be loaded. kind: its `shape` is () until the model has run."""

    kind: BackboneKind
    choices: tuple[Choice, ...]


def settle(name: str, model: str, facts: ModelFacts, config: ModelConfig) -> Settled:
    """The kind of backbone that a model is.

    name: of the backbone, as a spec has it · model: the file or function, for messages.
    Raises `ConfigError` where the model cannot be a first stage, contradicts the file, or where a
    key is missing that the model does not tell.
    """
    keys = _Keys(model, facts, config)
    image = _image(keys)
    assert image.shape is not None
    layout = keys.settle("layout", _layout(image.shape), LAYOUTS[len(image.shape)])
    axes = dict(zip(layout, image.shape, strict=True))
    if axes["C"] not in (3, None):
        keys.refuse(
            f"its input has {axes['C']} channels", "export one that reads pictures of three"
        )
    if axes["H"] != axes["W"]:
        keys.refuse(
            f"its pictures are {axes['W']} × {axes['H']} pixels", "export it for square ones"
        )
    size = keys.settle("size", axes["H"])
    window = keys.settle("window", axes["T"]) if "T" in axes else 1
    if "T" not in axes and config.window not in (None, 1):
        keys.refuse(
            f"it reads one frame, and window in {config.source!r} is {config.window}",
            "take that line out, or export a model with an axis of time",
        )
    gap = keys.settle("gap", None, default=1) if window > 1 else 0
    scale = keys.settle("scale", None, default=1.0 if image.dtype == "uint8" else None)
    output = _output(keys)
    preprocessing = Preprocessing(
        layout=layout,
        color=keys.settle("color", None, default="RGB"),
        scale=scale,
        mean=keys.settle("mean", None, default=(0.0, 0.0, 0.0)),
        std=keys.settle("std", None, default=(1.0, 1.0, 1.0)),
        output=output.name if len(facts.outputs) > 1 else "",
        pool=_pool(keys, output.shape, config),
    )
    kind = BackboneKind(
        name=name,
        size=size,
        shape=(),
        dtype=keys.settle("dtype", None, default="float16"),
        interpolation=keys.settle("interpolation", None, default="area"),
        fit=keys.settle("fit", None, default="crop"),
        window=window,
        gap=gap,
        preprocessing=preprocessing,
        has_precisions=True,
    )
    return Settled(kind=kind, choices=tuple(keys.choices))


def pooled_axes(shape: tuple[Any, ...], layout: str) -> tuple[int, ...]:
    """The axes of an output beside batch and channels: those of the input's place, or of tokens.

    Of (batch, tokens, channels) the channels are last; of pictures they are where the input has them.
    """
    first = len(shape) > 3 and layout in ("NCHW", "NCTHW")
    return tuple(range(2, len(shape))) if first else tuple(range(1, len(shape) - 1))


def require_pool(model: str, shape: tuple[Any, ...], pool: str | None) -> None:
    """Raise `ConfigError` where an output of this shape (batch first) can be no step with this `pool`."""
    text = f"({', '.join('any' if n is None else str(n) for n in shape)})"
    if len(shape) < 2 or len(shape) > _MOST_RANK:
        raise ConfigError(
            f"the model {model} gives {text} for a batch, which has {len(shape)} axes: export one that "
            "gives a vector for each step, or up to three axes of places that can be pooled"
        )
    if len(shape) == _MOST_RANK and pool in (None, "none"):
        raise ConfigError(
            f'the model {model} gives {text}, of rank {len(shape)}: set pool (pool = "mean" averages '
            "all places), or export it with a vector for each step"
        )
    if pool == "first" and len(shape) != 3:
        raise ConfigError(
            f'pool is "first", which takes the first of several tokens, and the model {model} gives '
            f"{text}: use mean, max or none"
        )


class _Keys:
    """The keys of a model as they are settled, one after the other."""

    def __init__(self, model: str, facts: ModelFacts, config: ModelConfig) -> None:
        self.model, self.facts, self.config = model, facts, config
        self.choices: list[Choice] = []

    def settle(
        self, key: str, read: Any, allowed: tuple[Any, ...] = (), default: Any = None
    ) -> Any:
        """The value of a key: what was read, else said, else the default, else it is asked for."""
        said = getattr(self.config, key)
        if said is not None and read is not None and said != read:
            self.refuse(
                f"{key} is {said!r} in {self.config.source!r} and the model has {read!r}",
                "take that line out, or export the model anew",
            )
        if said is not None and allowed and said not in allowed:
            self.refuse(
                f"{key} is {said!r} in {self.config.source!r}", f"use one of {', '.join(allowed)}"
            )
        if read is not None:
            self.choices.append(Choice(key=key, value=read, source="read from the model"))
            return read
        if said is not None:
            self.choices.append(Choice(key=key, value=said, source="said"))
            return said
        if default is None:
            self.ask(key)
        self.choices.append(Choice(key=key, value=default, source="assumed"))
        return default

    def ask(self, key: str) -> NoReturn:
        """Raise the sentence that names a missing key."""
        where = repr(self.config.source) if self.config.source else "a TOML file beside it"
        raise ConfigError(
            f"the model {self.model} does not say {_TELLS[key]} (it has {self.facts}): "
            f"write {key} into {where}, e.g. {_EXAMPLES[key]}"
        )

    def refuse(self, fact: str, remedy: str) -> NoReturn:
        """Raise the sentence of a model that cannot be a first stage."""
        raise ConfigError(f"the model {self.model} cannot be used: {fact}: {remedy}")


def _image(keys: _Keys) -> Tensor:
    inputs = keys.facts.inputs
    if len(inputs) != 1:
        names = ", ".join(map(str, inputs)) or "none"
        keys.refuse(
            f"it has {len(inputs)} inputs ({names})",
            "export one that reads pictures and nothing else",
        )
    (image,) = inputs
    if image.shape is None or len(image.shape) not in LAYOUTS:
        keys.refuse(
            f"its input is {image}",
            "export one that reads (batch, channels, height, width), or with time",
        )
    if image.dtype not in _NUMBERS:
        keys.refuse(f"its input is {image}", "export one that reads float32 or uint8")
    return image


def _layout(shape: tuple[int | None, ...]) -> str | None:
    """The only order of axes that has three channels where the shape has a 3; None if unclear."""
    fitting = [layout for layout in LAYOUTS[len(shape)] if shape[layout.index("C")] == 3]
    return fitting[0] if len(fitting) == 1 else None


def _output(keys: _Keys) -> Tensor:
    outputs = {tensor.name: tensor for tensor in keys.facts.outputs}
    said = keys.config.output
    if said is not None and said not in outputs:
        keys.refuse(
            f"output is {said!r} in {keys.config.source!r}",
            f"its outputs are {', '.join(outputs)}",
        )
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    return outputs[keys.settle("output", None)]


def _pool(keys: _Keys, shape: tuple[Any, ...] | None, config: ModelConfig) -> Any:
    """What is said; else nothing is pooled of a vector, and of anything else it is asked for."""
    if shape is None:
        # Asked for once the model has run, if it needs it.
        return keys.settle("pool", None, default="none")
    require_pool(keys.model, shape, config.pool)
    return keys.settle("pool", None, default="none" if len(shape) == 2 else None)
