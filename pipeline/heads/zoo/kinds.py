"""What a head is to the rest: a name, and a typed config that builds its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Protocol

from pipeline.errors import ConfigError, did_you_mean
from pipeline.heads.lean import keras
from pipeline.heads.seeds import SeededLayers


class HeadConfig(Protocol):
    """A dataclass of a head's options."""

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Normalised x (batch, steps, *shape), mask (batch, steps) → probabilities (batch, classes)."""


class _Layers:
    """The layers that heads are built of; imported, with Keras, when the first head is built."""

    def __getattr__(self, name: str) -> Any:
        from pipeline.heads import layers, recurrent

        for module in (layers, recurrent, keras.layers):
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"neither pipeline.heads nor Keras has a layer {name}")


layers = _Layers()
"""Keras' layers, and those of `pipeline.heads.layers` and `recurrent` in place of Keras' own."""

WIDEST = 65_536
"""No layer of a head has more units or filters: beyond it memory fails first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadKind:
    """One entry of the zoo.

    `reads` names the kinds of step it takes: `features` (a vector per step; poses are such) or
    `frames` (height, width, channel). `presets` are named changes to the config's defaults.
    `lr` is the learning rate that suits it, `source` where the idea comes from.
    """

    name: str
    reads: tuple[str, ...] = ("features",)
    one_line: str
    source: str
    config: type
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lr: float = 1e-3

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


def config_dict(config: Any) -> dict[str, Any]:
    """A head's config as plain JSON values; tuples become lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}


def _convert(head: str, name: str, value: Any, config: Any) -> Any:
    kind = type(getattr(config, name))
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
