"""Which trainings a sweep is made of: heads, their options, and every point of the grid."""

from __future__ import annotations

import itertools
import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from flows.settings import SweepSettings
from flows.settings.resolve import parser_of, require_sane
from flows.train.flow import TRAINING, parse_options, store_name, widths
from pipeline.errors import ConfigError
from pipeline.heads.zoo import HEADS, head_kind, require_readable


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training of a sweep. `changes` are settings that differ from the sweep's own."""

    name: str
    head: str
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)


def trials(settings: SweepSettings, shape: Sequence[int]) -> list[Trial]:
    """Every training that the heads and the grid ask for, once each, in a fixed order.

    shape: of one step in the store; without `heads` every head that reads it is taken. Raises
    `ConfigError` for an unknown head, a grid that no head knows, or an option that cannot be.
    """
    axes = _axes(settings.grid)
    if settings.seeds > 1:
        if "seed" in axes:
            raise ConfigError(f"grid has seed, and seeds is {settings.seeds}: keep one")
        axes["seed"] = [str(settings.seed + number) for number in range(settings.seeds)]
    found: dict[str, Trial] = {}
    used: set[str] = set()
    for head, own in sweep_heads(settings.heads, shape):
        known = set(HEADS[head].options()) | {"preset"}
        mine = {name: values for name, values in axes.items() if name in known | set(TRAINING)}
        used |= mine.keys()
        shared = {
            name: value for name, value in parse_options(settings.options).items() if name in known
        }
        if settings.units and "units" in known:
            shared |= widths(head, settings.units)
        for values in itertools.product(*mine.values()):
            point = dict(zip(mine, values, strict=True))
            options = shared | own | {k: v for k, v in point.items() if k in known}
            changes = {k: _typed(k, v) for k, v in point.items() if k not in known}
            name = _name(head, settings, own | point)
            found[name] = Trial(name=name, head=head, options=options, changes=changes)
    lost = sorted(axes.keys() - used)
    if lost:
        raise ConfigError(
            f"grid has {lost[0]!r}, which no training and none of the heads knows: see "
            "`pixels-once heads --head NAME`"
        )
    return list(found.values())


def sweep_heads(text: str, shape: Sequence[int]) -> list[tuple[str, dict[str, Any]]]:
    """The heads of a sweep, each with the options behind its name: `lstm:units=512 mlp`.

    Empty: every head that reads steps of this shape. Commas part the names where no head has
    options. Raises `ConfigError` for an unknown head, `SpecMismatch` for one that cannot read.
    """
    if not text.strip():
        reads = "frames" if len(shape) == 3 else "features"
        return [(name, {}) for name, kind in HEADS.items() if reads in kind.reads]
    found = []
    for word in (text if ":" in text else text.replace(",", " ")).split():
        name, _, options = word.partition(":")
        require_readable(head_kind(name), shape)
        found.append((name, parse_options(options)))
    return found


def _axes(grid: str) -> dict[str, list[str]]:
    axes: dict[str, list[str]] = {}
    for word in grid.split():
        name, equals, values = word.partition("=")
        if not equals or not values:
            raise ConfigError(f"grid has {word!r}: write name=value,value, e.g. units=128,512")
        axes[name.replace("-", "_")] = [value for value in values.split(",") if value]
    return axes


def _typed(name: str, value: str) -> Any:
    item = next(item for item in fields(SweepSettings) if item.name == name)
    try:
        typed = parser_of(item)(value)
    except (ValueError, ArgumentTypeError):
        wanted = "yes or no" if item.type == "bool" else "a number"
        raise ConfigError(f"grid has {name}={value}: give {wanted}") from None
    require_sane(item, typed)
    return typed


def _name(head: str, settings: SweepSettings, point: dict[str, Any]) -> str:
    parts = [head, settings.name or store_name(settings.store)]
    parts += [f"{name}={value}" for name, value in point.items()]
    return re.sub(r"[^A-Za-z0-9=._-]+", "-", "-".join(parts))
