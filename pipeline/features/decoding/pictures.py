"""FFmpeg's decoded frames → upright RGB pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer, Type
from numpy.typing import NDArray

from pipeline.errors import UnreadableClip

Picture = NDArray[np.uint8]
Matrix = tuple[int, int, int, int]


class Converter:
    """FFmpeg's frames → (height, width, 3) uint8 RGB, by swscale in a filter graph.

    The graph keeps its output buffers, which PyAV's own reformatter allocates for every frame: half
    the cost of a small picture. Flags and threads are those that make swscale take its fast path.
    """

    def __init__(self) -> None:
        self._shape: tuple[Any, ...] = ()
        self._graph: Any = None

    def convert(self, raw: Any, margins: tuple[int, int] = (0, 0)) -> Picture:
        """The picture of a frame, without `margins` pixels on the left and right, above and below."""
        shape = (raw.width, raw.height, raw.format.name, raw.colorspace, raw.color_range, margins)
        if shape != self._shape:
            self._graph, self._shape = _graph(raw, *margins), shape
        self._graph.push(raw)
        picture: Picture = self._graph.pull().to_ndarray()
        return picture


def _graph(raw: Any, across: int, down: int) -> Any:
    graph = Graph()
    graph.threads = 1
    last = graph.add(
        "buffer",
        video_size=f"{raw.width}x{raw.height}",
        pix_fmt=raw.format.name,
        time_base="1/1000",
        colorspace=str(raw.colorspace),
        range=str(raw.color_range),
    )
    steps: list[tuple[str, str | None]] = []
    if across or down:
        kept = f"{raw.width - 2 * across}:{raw.height - 2 * down}:{across}:{down}:exact=1"
        steps.append(("crop", kept))
    steps += [("scale", "flags=bicubic"), ("format", "rgb24"), ("buffersink", None)]
    for name, settings in steps:
        step = graph.add(name, settings)
        last.link_to(step)
        last = step
    graph.configure()
    return graph


def spare(width: int, height: int, aspect: float) -> tuple[int, int]:
    """Pixels on either side of a picture, and above and below, that its centre square leaves out.

    Multiples of 16, so that subsampled colours and the instructions that convert them stay aligned.
    """
    side = min(height, width * aspect)
    return int(width - side / aspect) // 2 // 16 * 16, int(height - side) // 2 // 16 * 16


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `UnreadableClip` `too_large` for a picture of more than `max_pixels` pixels."""
    if width * height > max_pixels:
        raise UnreadableClip(
            "too_large", f"{width}×{height} is more than {max_pixels} pixels: convert it smaller"
        )


def display_matrix(raw: Any) -> Matrix | None:
    """(a, b, c, d) of a frame's display matrix, by which x' = a·x + c·y and y' = b·x + d·y."""
    # Not by `raw.side_data`: a frame that was asked for it holds itself, until a garbage collection.
    sides = SideDataContainer(raw)  # type: ignore[call-arg]  # the stub knows no arguments
    data = sides.get(Type.DISPLAYMATRIX)
    if data is None:
        return None
    words = np.frombuffer(data, np.int32).tolist()
    return words[0], words[1], words[3], words[4]


def swaps_sides(matrix: Matrix | None) -> bool:
    """Whether a display matrix lays the picture on its side."""
    return matrix is not None and abs(matrix[1]) > abs(matrix[0])


def turn_upright(picture: Picture, matrix: Matrix | None) -> Picture:
    """The picture turned and mirrored as its display matrix says, to the nearest right angle."""
    if matrix is None:
        return picture
    a, b, c, d = matrix
    across, down = (c, b) if swaps_sides(matrix) else (a, d)
    if swaps_sides(matrix):
        picture = picture.swapaxes(0, 1)
    turned = picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
    return np.ascontiguousarray(turned)
