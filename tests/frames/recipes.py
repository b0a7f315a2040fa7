"""The corpus' clips, as `corpus.toml` tells them."""

from __future__ import annotations

import contextlib
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.frames.patching import PATCHES

Change = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one clip is made, and what is right about it; `corpus.toml` explains the fields.

    numbers: what its frames carry, in order; None where damage makes that unknown.
    """

    name: str
    trait: str
    encode: str
    inputs: str = ""
    input_flags: str = ""
    then: tuple[str, ...] = ()
    frames: int = 60
    size: tuple[int, int] = (128, 96)
    rate: str = "25"
    stream: str = "V:0"
    numbers: tuple[int, ...] | None = None
    even_times: bool = False
    fails: str = ""
    apart: dict[str, str] = field(default_factory=dict)
    quick: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def changes(self) -> tuple[list[str] | Change, ...]:
        """The steps of `then`: words for `ffmpeg`, `{in}` among them, or a change of the bytes."""
        return tuple(_change(*shlex.split(step)) for step in self.then)


def _change(name: str, *words: str) -> list[str] | Change:
    if name == "ffmpeg":
        return list(words)
    return lambda data: PATCHES[name](data, *map(_value, words))


def _value(word: str) -> float | int | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(word)
    return word


def _recipes() -> tuple[Recipe, ...]:
    told = tomllib.loads(Path(__file__).with_name("corpus.toml").read_text(encoding="utf-8"))
    words: dict[str, str] = {}
    for name, text in told["words"].items():
        words[name] = _filled(text, words)
    return tuple(_recipe(name, values, words) for name, values in told["clip"].items())


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], found[0]), text)


def _recipe(name: str, values: dict[str, Any], words: dict[str, str]) -> Recipe:
    values["encode"] = _filled(values["encode"], words)
    for key in ("then", "size"):
        if key in values:
            values[key] = tuple(values[key])
    numbers = values.pop("numbers", f"0-{values.get('frames', 60) - 1}")
    right = None if numbers == "damaged" else tuple(_ranges(numbers))
    return Recipe(name=name, numbers=right, **values)


def _ranges(text: str) -> list[int]:
    """`0-3 8-9` as 0, 1, 2, 3, 8, 9."""
    ends = [part.split("-") for part in text.split()]
    return [number for first, last in ends for number in range(int(first), int(last) + 1)]


RECIPES = _recipes()
