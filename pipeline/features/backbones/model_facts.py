"""What can be read from a user's model without running it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError, WeightsNotFound

Dimension = int | None
"""Of an axis; None where the model leaves it open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output of a model. shape: the batch first, None where the file does not say its rank.

    dtype: as NumPy names it; "" where it is not known.
    """

    name: str
    shape: tuple[Dimension, ...] | None = None
    dtype: str = ""

    def __str__(self) -> str:
        axes = "" if self.shape is None else f" ({', '.join(_axis(n) for n in self.shape)})"
        return f"{self.name!r}{axes}{' ' * bool(self.dtype)}{self.dtype}"


def _axis(length: Dimension) -> str:
    return "any" if length is None else str(length)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a model says of itself. parameters: how many numbers it has learned; 0 where not known.

    files: beside the model's own, those that it keeps its weights in.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: int = 0
    files: tuple[Path, ...] = ()

    def __str__(self) -> str:
        ways = (
            ("inputs", "input", self.inputs),
            ("outputs", "output", self.outputs),
        )
        return " and ".join(
            f"{one if len(tensors) == 1 else many} {', '.join(map(str, tensors))}"
            for many, one, tensors in ways
        )


def require_model_file(path: Path) -> Path:
    """The path, absolute. Raises `WeightsNotFound` if nothing is there, `ConfigError` for a folder."""
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a folder: name the model file inside it")
    if not path.exists():
        raise WeightsNotFound(
            f"there is no model file {str(path)!r}: give the path of one that exists"
        )
    return path.absolute()
