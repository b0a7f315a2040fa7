"""How a setting is declared: a dataclass field with the words that `--help` prints for it."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, help: str, *, choices: tuple[str, ...] = (), metavar: str = "") -> Any:
    """A dataclass field with the words that `--help` prints for it."""
    return field(default=default, metadata={"help": help, "choices": choices, "metavar": metavar})
