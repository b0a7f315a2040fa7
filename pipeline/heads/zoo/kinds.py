"""What a head is to the rest: a name, and a typed config that builds its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from types import ModuleType
from typing import Any, Protocol

from pipeline.errors import ConfigError, did_you_mean
from pipeline.heads.lean import keras
from pipeline.heads.seeds import SeededLayers


class HeadConfig(Protocol):
    """A dataclass of a head's options.

    It may have `fit` (how its weights are found, one of `FITS`; default `gradient`) and
    `raw_features` (whether it reads features as they are, not normalised).
    """

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Normalised x (batch, steps, *shape), mask (batch, steps) → probabilities (batch, classes).

        Of a head that labels every step: (batch, steps, classes).
        """


class _Layers:
    """The layers that heads are built of; imported, with Keras, when the first head is built."""

    def __getattr__(self, name: str) -> Any:
        for module in (*own_layers(), keras.layers):
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"neither pipeline.heads nor Keras has a layer {name}")


def own_layers() -> tuple[ModuleType, ...]:
    """The modules with layers of our own; a saved head can be loaded once they are imported."""
    from pipeline.heads import convolutional, dropout, layers, mixing, pooling, recurrent

    return layers, pooling, recurrent, convolutional, dropout, mixing


layers = _Layers()
"""Keras' layers, but where `own_layers` have theirs."""

FITS = ("gradient", "solved")
"""`gradient`: epochs over batches. `solved`: the last layer as a convex problem."""
STRONGEST = 1e4
"""The largest strength of a head that is solved for: beyond it there is hardly a penalty."""
WIDEST = 65_536
"""No layer of a head has more units or filters: beyond it memory fails first."""


def option(
    default: Any,
    *,
    before: Any = MISSING,
    choices: Sequence[str] = (),
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """An option of a head with bounds of its own.

    before: what a run that was made before there was this option counts as; at this value it is left
        out of a run's identity, so that such runs keep theirs
    """
    metadata = {"choices": tuple(choices), "least": least, "most": most}
    recorded_always = before is MISSING
    return field(
        default=default, metadata=metadata | ({} if recorded_always else {"before": before})
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadKind:
    """One entry of the zoo.

    `reads` names the kinds of step it takes: `features` (a vector per step; poses are such) or
    `frames` (height, width, channel). `presets` are named changes to the config's defaults.
    `recipes` are settings of the training that go with a preset ("": with none): they take the place of
    defaults.
    `few` is the preset that a training of few clips takes if neither a preset nor an option is given.
    `lr` is the learning rate that suits it, `source` where the idea comes from. `per_step`: it labels
    every step of a video, (batch, steps, classes), and is trained with annotations.
    """

    name: str
    reads: tuple[str, ...] = ("features",)
    one_line: str
    source: str
    config: type
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    few: str = ""
    lr: float = 1e-3
    per_step: bool = False

    def configure(self, options: Mapping[str, Any]) -> Any:
        """The typed config of these options (text from a command line is converted).

        `preset` picks named defaults first. Raises `ConfigError` on an unknown or unfit option.
        """
        given = dict(options)
        config = self.config()
        preset = given.pop("preset", "")
        if preset:
            if preset not in self.presets:
                known = ", ".join(sorted(self.presets)) or "none"
                raise ConfigError(f"{self.name} has no preset {preset!r}: it has {known}")
            config = replace(config, **self.presets[preset])
        for name, value in given.items():
            if name not in self.options():
                hint = did_you_mean(name, self.options())
                raise ConfigError(f"{self.name} has no option {name!r}: {hint}")
            config = replace(config, **{name: _convert(self.name, name, value, config)})
        return config

    def options(self) -> dict[str, Any]:
        """Every option with its default."""
        return {f.name: f.default for f in fields(self.config) if f.default is not MISSING}

    def unrecorded(self) -> dict[str, Any]:
        """Every option with the value that a run has that does not record it."""
        return {f.name: _before(f) for f in fields(self.config)}


def config_dict(config: Any) -> dict[str, Any]:
    """A head's config as plain JSON values; tuples become lists.

    Options that a run need not record (`option`'s `before`) are left out.
    """
    later = {f.name: _before(f) for f in fields(config) if "before" in f.metadata}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(config).items()
        if name not in later or later[name] != value
    }


def _before(item: Field[Any]) -> Any:
    return item.metadata.get("before", item.default)


def _bounded(
    head: str,
    name: str,
    value: Any,
    kind: type,
    choices: Sequence[str],
    least: float,
    most: float | None,
) -> Any:
    """The value of an option that has choices, or a range of its own (both ends in it)."""
    if choices:
        if str(value) in choices:
            return str(value)
        wanted = f"one of {', '.join(choices)}"
    else:
        top = WIDEST if most is None else most
        wanted = f"a {'whole ' * (kind is int)}number from {least:g} to {top:g}"
        try:
            number = float(value)
            if least <= number <= top and (kind is float or number == int(number)):
                return kind(number)
        except (TypeError, ValueError, OverflowError):
            pass
    raise ConfigError(f"{name} of {head} is {value!r}: give {wanted}")


def _convert(head: str, name: str, value: Any, config: Any) -> Any:
    kind = type(getattr(config, name))
    item = next(item for item in fields(config) if item.name == name)
    least, most = item.metadata.get("least"), item.metadata.get("most")
    choices = item.metadata.get("choices") or ()
    if choices or most is not None:
        return _bounded(head, name, value, kind, choices, least or 0, most)
    try:
        if kind is bool:
            if str(value).lower() not in ("true", "false", "1", "0", "yes", "no"):
                raise ValueError(value)
            return str(value).lower() in ("true", "1", "yes")
        if kind is int:
            if not 1 <= float(value) <= WIDEST or float(value) != int(float(value)):
                raise ValueError(value)
            return int(float(value))
        if kind is tuple:
            parts = str(value).split(",") if isinstance(value, str) else list(value)
            if not parts or not all(1 <= int(part) <= WIDEST for part in parts):
                raise ValueError(value)
            return tuple(int(part) for part in parts)
        if kind is float and not 0 <= float(value) < 1:
            raise ValueError(value)
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        wanted = {
            bool: "true or false",
            int: f"a whole number from 1 to {WIDEST}",
            float: "a number from 0 up to 1",
            tuple: f"whole numbers from 1 to {WIDEST} with commas between",
        }
        raise ConfigError(
            f"{name} of {head} is {value!r}: give {wanted.get(kind, kind.__name__)}"
        ) from None
