"""How a setting is declared: a dataclass field with the words that `--help` prints for it."""

from __future__ import annotations

from dataclasses import field
from typing import Any

LARGEST_SEED = 2**32 - 1
MOST_PROCESSES = 4096


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    metavar: str = "",
    least: float = 0,
    most: float | None = None,
) -> Any:
    """A dataclass field with the words that `--help` prints for it.

    least, most: the bounds of a number, inclusive. Numbers are never negative unless `least` is.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "metavar": metavar,
        "least": least,
        "most": most,
    }
    return field(default=default, metadata=metadata)
