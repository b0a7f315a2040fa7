"""FFmpeg's decoded frames → upright RGB pictures → the square that the backbone looks at."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer, Type
from numpy.typing import NDArray

from pipeline.errors import UnreadableClip
from pipeline.features.decoding.values import FramePlan

Picture = NDArray[np.uint8]
Matrix = tuple[int, int, int, int]


_MOST_GRAPHS = 4
"""Several plans may want other margins of the same frames."""


class Converter:
    """FFmpeg's frames → (height, width, 3) uint8 RGB, by swscale in a filter graph.

    The graph keeps its output buffers, which PyAV's own reformatter allocates for every frame: half
    the cost of a small picture. Flags and threads are those that make swscale take its fast path.
    """

    def __init__(self) -> None:
        self._graphs: dict[tuple[Any, ...], Any] = {}

    def convert(self, raw: Any, margins: tuple[int, int] = (0, 0)) -> Picture:
        """The picture of a frame, without `margins` pixels on the left and right, above and below."""
        shape = (raw.width, raw.height, raw.format.name, raw.colorspace, raw.color_range, margins)
        graph = self._graphs.get(shape)
        if graph is None:
            if len(self._graphs) == _MOST_GRAPHS:  # of a video that changes its shape
                self._graphs.clear()
            graph = self._graphs[shape] = _graph(raw, *margins)
        graph.push(raw)
        picture: Picture = graph.pull().to_ndarray()
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


class LastFrames:
    """The pictures of the last two frames, by what they were made for; a rule by time looks back."""

    def __init__(self) -> None:
        self._held: dict[int, dict[Any, Picture]] = {}

    def of(self, index: int) -> dict[Any, Picture]:
        """Those of a frame; empty when it is first asked for."""
        if index not in self._held:
            if len(self._held) > 1:
                del self._held[next(iter(self._held))]
            self._held[index] = {}
        return self._held[index]


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
    if not len(sides):  # most have none: asking an empty container costs 20 times as much
        return None
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


def fit_picture(
    picture: Picture, plan: FramePlan, aspect: float = 1.0, out: Picture | None = None
) -> Picture:
    """The picture fitted to (size, size, 3), its channels in the order they came.

    `crop` takes the centre square (the spare pixel of an odd margin stays right or below),
    `squash` the whole picture without its proportions, `pad` the whole picture in the middle of
    black. `whole` gives the whole picture in its proportions, its longer side `size`, or in the shape
    of `out`. `area` averages when neither side grows and is linear otherwise.
    aspect: how many times wider than high a pixel is shown; the picture is stretched to that shape
    in the same step. out: contiguous (size, size, 3) uint8 to write into, else fresh.
    """
    if out is None:
        sides = (
            _in_proportion(picture, plan.size, aspect) if plan.fit == "whole" else (plan.size,) * 2
        )
        out = np.empty((*sides, 3), np.uint8)
    if plan.fit == "pad":
        out[:] = 0
        _fill(_middle_of(out, picture, aspect), picture, plan.interpolation)
    else:
        if plan.fit == "crop":
            picture = _centre_square(picture, aspect)
        _fill(out, picture, plan.interpolation)
    if plan.view == "mirror":
        out[:] = out[:, ::-1].copy()
    return out


def _centre_square(picture: Picture, aspect: float) -> Picture:
    """The largest part of the middle that is shown square."""
    height, width = picture.shape[:2]
    side = min(height, width * aspect)
    rows, columns = _pixels(side), _pixels(side / aspect)
    top, left = (height - rows) // 2, (width - columns) // 2
    return picture[top : top + rows, left : left + columns]


def _middle_of(canvas: Picture, picture: Picture, aspect: float) -> Picture:
    """The part of a square canvas that the whole picture fills when it is shown in proportion."""
    size = len(canvas)
    rows, columns = _in_proportion(picture, size, aspect)
    top, left = (size - rows) // 2, (size - columns) // 2
    return canvas[top : top + rows, left : left + columns]


def _in_proportion(picture: Picture, size: int, aspect: float) -> tuple[int, int]:
    """Rows and columns of a picture whose longer side is `size` pixels."""
    height, width = picture.shape[0], picture.shape[1] * aspect
    scale = size / max(height, width)
    return _pixels(height * scale), _pixels(width * scale)


def _fill(out: Picture, picture: Picture, interpolation: str) -> None:
    height, width = out.shape[:2]
    if picture.shape[:2] == (height, width):
        out[:] = picture
        return
    grows = height > picture.shape[0] or width > picture.shape[1]
    method = "linear" if interpolation == "area" and grows else interpolation
    flag = getattr(cv2, f"INTER_{method.upper()}")
    if out.flags.c_contiguous:
        cv2.resize(picture, (width, height), dst=out, interpolation=flag)
    else:
        out[:] = cv2.resize(picture, (width, height), interpolation=flag)


def _pixels(length: float) -> int:
    return max(1, round(length))
