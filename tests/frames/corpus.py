"""The corpus at work: a clip made, its truth told by `ffmpeg`, and every cell of it compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UnreadableClip
from tests.frames.comparing import Comparison, Truth, compare_clip, compare_timeline
from tests.frames.making import FFMPEG, FFPROBE, Maker
from tests.frames.paths import RULES, Children, by_reader, by_seeking, by_timeline
from tests.frames.recipes import Recipe
from tests.frames.reference import Reference, reference

HERE = FFMPEG is not None and FFPROBE is not None
PATHS = ("reader", "seeking", "child")
TIMELINE = ("timeline", "all")
ALL = (*((path, rule) for path in PATHS for rule in RULES), TIMELINE)
"""Every cell of a clip: a path and a rule."""


@dataclass(kw_only=True)
class Examined:
    """A clip's cells, each compared. `reference` is None for what is no clip."""

    recipe: Recipe
    reference: Reference | None = None
    cells: dict[tuple[str, str], Comparison] = field(default_factory=dict)

    def differences(self) -> dict[str, list[str]]:
        """What differs, in words → the cells in which it does."""
        found: dict[str, list[str]] = {}
        for (path, rule), comparison in self.cells.items():
            for kind, text in comparison.differences.items():
                found.setdefault(f"{kind}: {text}", []).append(f"{path}/{rule}")
        return found

    def kinds(self) -> set[str]:
        """The kinds of difference that were seen."""
        return {kind for cell in self.cells.values() for kind in cell.differences}


class Corpus:
    """Clips and what is right about them, each made once; decoder processes for as long as it lives."""

    def __init__(self, folder: Path) -> None:
        self._maker = Maker(folder)
        self._children = Children()

    def clip(self, recipe: Recipe) -> Path:
        """The clip's file."""
        return self._maker.clip(recipe)

    def examine(self, recipe: Recipe, cells: Iterable[tuple[str, str]] = ALL) -> Examined:
        """The clip, by these paths and rules, against `ffmpeg`."""
        path = self.clip(recipe)
        if recipe.fails:
            return Examined(
                recipe=recipe, cells={cell: self._refused(recipe, *cell) for cell in cells}
            )
        told = reference(path, recipe.stream)
        truth = Truth.of(told, recipe)
        compared = {(way, rule): self._compared(path, truth, way, rule) for way, rule in cells}
        return Examined(recipe=recipe, reference=told, cells=compared)

    def _compared(self, path: Path, truth: Truth, way: str, rule: str) -> Comparison:
        try:
            if way == "timeline":
                return compare_timeline(*by_timeline(path), truth)
            return compare_clip(self._read(path, way, rule), truth, rule)
        except UnreadableClip as error:
            return Comparison(differences={"count": f"none: {error}"})

    def _refused(self, recipe: Recipe, way: str, rule: str) -> Comparison:
        path = self.clip(recipe)
        try:
            if way == "timeline":
                by_timeline(path)
            else:
                self._read(path, way, rule)
        except UnreadableClip as error:
            if error.reason in recipe.fails.split("|"):
                return Comparison()
            return Comparison(differences={"reason": f"{error.reason}, not {recipe.fails}"})
        return Comparison(differences={"reason": f"read, not {recipe.fails}"})

    def _read(self, path: Path, way: str, rule: str):  # type: ignore[no-untyped-def]
        read = {"reader": by_reader, "seeking": by_seeking, "child": self._children.read}
        return read[way](path, rule)

    def close(self) -> None:
        self._children.close()


@contextmanager
def opened(folder: Path) -> Iterator[Corpus]:
    """A corpus in a folder, whose processes end with the block."""
    corpus = Corpus(folder)
    try:
        yield corpus
    finally:
        corpus.close()
