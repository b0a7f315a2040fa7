"""What a user says of a model that its file does not: a TOML file beside it, or one that is named."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Self, get_args

from pipeline.errors import ConfigError, nearest
from pipeline.spec import Colour, Fit, Layout, Pool, Triple

INTERPOLATIONS = ("area", "linear", "cubic", "nearest")

_CHOICES: dict[str, tuple[str, ...]] = {
    "layout": get_args(Layout),
    "color": get_args(Colour),
    "pool": get_args(Pool),
    "interpolation": INTERPOLATIONS,
    "fit": tuple(name for name in get_args(Fit) if name != "whole"),
    "dtype": ("float16", "float32"),
}
_WHOLE = ("size", "window", "gap")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The keys of the TOML file; None where it does not have one. source: the file, "" for none."""

    size: int | None = None
    layout: Layout | None = None
    color: Colour | None = None
    scale: float | None = None
    mean: Triple | None = None
    std: Triple | None = None
    interpolation: str | None = None
    fit: Fit | None = None
    output: str | None = None
    pool: Pool | None = None
    dtype: str | None = None
    window: int | None = None
    gap: int | None = None
    source: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a TOML file. Raises `ConfigError` on an unknown key or a value that cannot be."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"there is no file {str(path)!r}: give BACKBONE_CONFIG the path of one that exists"
            ) from None
        except OSError as error:
            raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror})") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{str(path)!r} is not valid TOML: {error}") from None
        known = [item.name for item in fields(cls) if item.name != "source"]
        for key in values:
            if key not in known:
                raise ConfigError(
                    f"{str(path)!r} has an unknown key {key}"
                    + (nearest(key, known) or f": the keys are {', '.join(known)}")
                )
        return cls(source=str(path), **{k: _value(k, v, path) for k, v in values.items()})

    @classmethod
    def beside(cls, model: Path, named: str = "") -> Self:
        """That of a model file: the one that is named, else `model.toml` beside `model.onnx`, if any."""
        if named:
            return cls.read(Path(named).expanduser())
        path = model.with_suffix(".toml")
        return cls.read(path) if path.is_file() else cls()


def _value(key: str, value: Any, path: Path) -> Any:
    where = f"{key} in {str(path)!r} is {value!r}"
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise ConfigError(f"{where}: use one of {', '.join(_CHOICES[key])}")
        return value
    if key in _WHOLE:
        if type(value) is not int or value < 1:
            raise ConfigError(f"{where}: give a whole number, 1 or more")
        return value
    if key == "output":
        if not isinstance(value, str):
            raise ConfigError(f"{where}: give the output's name")
        return value
    if key == "scale":
        return _number(value, where)
    if not isinstance(value, list):
        return (_number(value, where),) * 3
    if len(value) != 3:
        raise ConfigError(f"{where}: give one number, or one for each of three channels")
    return tuple(_number(each, where) for each in value)


def _number(value: Any, where: str) -> float:
    """A number, or a text such as "1/255"."""
    try:
        if isinstance(value, str):
            over, _, under = value.partition("/")
            return float(Fraction(over) / Fraction(under or "1"))
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        pass
    raise ConfigError(f'{where}: give a number, or a fraction such as "1/255"')
