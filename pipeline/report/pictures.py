"""Previews as images: in a page, and as one grid in a file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from pipeline.drawing import new_figure, save_figure
from pipeline.report.contents import ClipCard


def data_url(jpeg: bytes) -> str:
    """A JPEG file as a `data:` URL."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def middle(pictures: Sequence[bytes]) -> bytes:
    """The middle picture of a clip, or b"" if there is none."""
    return pictures[len(pictures) // 2] if pictures else b""


def save_grid(cards: Sequence[ClipCard], path: Path, *, title: str = "", columns: int = 4) -> None:
    """Draw the cards as one PNG: a strip of each clip's previews, with its label and note."""
    import matplotlib.image

    columns = max(1, min(columns, len(cards)))
    rows = -(-max(1, len(cards)) // columns)
    figure = new_figure(3.6 * columns, 1.9 * rows + 0.5)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, card in zip(axes.flat, cards, strict=False):
        pictures = [
            matplotlib.image.imread(io.BytesIO(data), format="jpg") for data in card.pictures
        ]
        for place, picture in enumerate(pictures):
            axis.imshow(picture, extent=(place, place + 0.97, 0, 0.97))
        if not pictures:
            axis.text(1.5, 0.5, "no picture", ha="center", va="center", color="0.4")
        axis.set_xlim(0, 3)
        axis.set_ylim(0, 1)
        axis.set_aspect("equal")
        words = " · ".join(word for word in (card.label, card.note) if word)
        name = card.video_id if len(card.video_id) <= 42 else f"…{card.video_id[-41:]}"
        axis.set_title(f"{words}\n{name}", fontsize=8)
    save_figure(figure, path, dpi=110)
