"""Markdown as Prefect's pages show it: tables, and pictures that need no address of their own."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """The lines of a table.

    >>> markdown_table(("run", "top-1"), [("gru", 0.5)])
    ['| run | top-1 |', '| --- | --- |', '| gru | 0.5 |']
    """
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, cells))} |" for cells in lines]


def picture(title: str, png: bytes) -> str:
    """A PNG in markdown as a data URL: image artifacts would need an address of their own."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"
