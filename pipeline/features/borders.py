"""One frame's border: what a watermark, a channel's logo or black bars show without the action."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.features.extraction import ClipResult, ClipSource
from pipeline.features.stage import FirstStage, Stage
from pipeline.spec import Sampling, Spec

SIDE = 64
"""The side of the square that a frame is squashed to, in pixels."""
MARGIN = SIDE // 8
"""How wide the strip along each edge is, in pixels."""
_SPEC = Spec(
    sampling=Sampling(steps=1),
    fit="squash",
    size=SIDE,
    backbone="frames",
    dtype="uint8",
    shape=(SIDE, SIDE, 3),
    aspect="display",
)


def read_borders(
    clips: Sequence[ClipSource], on_clip: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(the border strip of each clip's middle frame (n, 5376), which clips could be read (n,)).

    Decoded as `features` decodes, by processes of their own; on_clip: called after each clip.
    """

    def on_result(result: ClipResult) -> None:
        on_clip()

    frames = np.zeros((len(clips), SIDE, SIDE, 3), np.uint8)
    known = np.zeros(len(clips), bool)
    with FirstStage.load(Stage(spec=_SPEC.to_dict(), weights="none")) as stage:
        for result in stage.extractor.extract(clips, on_clip=on_result):
            if result.features is not None:
                frames[result.index], known[result.index] = result.features[0], True
    return border_strips(frames), known


def border_strips(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The pixels within `MARGIN` of an edge, (n, side, side, 3) → (n, numbers).

    >>> border_strips(np.zeros((2, 64, 64, 3), np.uint8)).shape
    (2, 5376)
    """
    edge = np.ones(frames.shape[1:3], bool)
    edge[MARGIN:-MARGIN, MARGIN:-MARGIN] = False
    return frames[:, edge].reshape(len(frames), -1)
