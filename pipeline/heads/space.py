"""What `search` may try: values of a head's options and of the training, drawn one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

from pipeline.heads.config import DEFAULTS, TrainConfig
from pipeline.heads.zoo import head_kind
from pipeline.heads.zoo.kinds import FITS


class Draws(Protocol):
    """Draws named values; `optuna.trial.Trial` is one."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = ...) -> float:
        """A number from low to high, by its logarithm if `log`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One head with its options, and the settings of the training that differ from those asked for."""

    head: str
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


Range = tuple[float, float, bool]
"""low, high, whether by the logarithm"""
WIDTHS = (32, 64, 128, 256)
OPTIONS: Mapping[str, Range | tuple[Any, ...]] = {
    "units": WIDTHS,
    "second_units": WIDTHS,
    "dense": WIDTHS,
    "project": (64, 128),
    "pool": (),
    "dropout": (0.1, 0.7, False),
    "step_dropout": (0.0, 0.6, False),
    "depth": (2, 3, 4),
}
"""Options of heads that are searched, where a head has them: choices (none: the head's), or a range."""
TRAINING: Mapping[str, Range | tuple[Any, ...]] = {
    "lr": (3e-4, 5e-3, True),
    "epochs": (20, 40, 60, 80),
    "weight_decay": (1e-3, 0.3, True),
    "label_smoothing": (0.0, 0.2, False),
    "feature_dropout": (0.0, 0.3, False),
    "step_masking": (0.0, 0.4, False),
    "mixup": (0.0, 0.4, False),
    "weight_averaging": (0.0, 0.98),
}
"""Settings of a training by gradients that are searched."""
FIXED: Mapping[str, Any] = {"stopping": "fixed", "schedule": "cosine", "warmup": 0.1}
"""Settings of every such training: no clips are left to stop by, so the epochs are searched."""


def draw(trial: Draws, heads: Sequence[tuple[str, Mapping[str, Any]]], asked: TrainConfig) -> Point:
    """A point of the space of these heads (name, options that are given and not searched).

    asked: the training's settings; those that are not at their default are not searched. A head that is
    solved for chooses its own strength, so nothing of it is searched.
    """
    names = [f"{number}:{name}" for number, (name, _) in enumerate(heads)]
    chosen = names.index(trial.suggest_categorical("head", names))
    head, given = heads[chosen]
    kind = head_kind(head)
    if getattr(kind.configure(given), "fit", FITS[0]) == "solved":
        return Point(head=head, options=dict(given))
    prefix = names[chosen]
    known = kind.options() if "preset" not in given else {}
    choices = {item.name: item.metadata.get("choices") for item in fields(kind.config)}
    options = {
        name: _drawn(trial, f"{prefix}.{name}", choices.get(name) or values)
        for name, values in OPTIONS.items()
        if name in known and name not in given
    }
    open_settings = [name for name in (*TRAINING, *FIXED) if _is_default(asked, name)]
    changes = {
        name: FIXED[name] if name in FIXED else _drawn(trial, f"{prefix}.{name}", TRAINING[name])
        for name in open_settings
    }
    return Point(head=head, options=dict(given) | options, changes=changes)


def _is_default(asked: TrainConfig, name: str) -> bool:
    return bool(getattr(asked, name) == getattr(DEFAULTS, name))


def _drawn(trial: Draws, name: str, values: Range | tuple[Any, ...]) -> Any:
    if len(values) == 3 and isinstance(values[2], bool):
        low, high, log = values
        return trial.suggest_float(name, low, high, log=log)
    return trial.suggest_categorical(name, values)
