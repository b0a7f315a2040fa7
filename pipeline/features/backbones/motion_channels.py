"""The 261 numbers of a step of `motion`: their names and order, and what a mirror does to them.

Planning a run names them in the store, so nothing heavy is imported here. docs/format.md explains them.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

CELLS = 3
"""Cells of the crop along each side."""
TOWARDS = ("right", "right_down", "down", "left_down", "left", "left_up", "up", "right_up")
"""The directions of a histogram, as seen on the screen; after them comes "still"."""
DIRECTIONS = len(TOWARDS)
QUANTILES = (0.5, 0.75, 0.9, 0.97, 0.99)
"""Of the speed, among the statistics."""

_SPEEDS = ("speed_mean", "speed_std", *(f"speed_q{round(q * 100)}" for q in QUANTILES))
_CHANGES = ("divergence_abs_mean", "curl_abs_mean", "moving_share")
_PLACES = ("centre_x", "centre_y", "spread_x", "spread_y")
_FLOWS = ("u", "v", "divergence", "curl")


def _histogram(kind: str) -> list[str]:
    cells = [f"{row}{column}" for row in range(CELLS) for column in range(CELLS)]
    return [f"{kind}_{cell}_{towards}" for cell in cells for towards in (*TOWARDS, "still")]


CHANNELS: tuple[str, ...] = (
    *_histogram("hof"),
    *_histogram("mbh_u"),
    *_histogram("mbh_v"),
    *(f"stat_{name}" for name in (*_SPEEDS, *_CHANGES, *_PLACES, *_FLOWS)),
)
"""The name of each number; a histogram's are `KIND_ROWCOLUMN_DIRECTION`, `00` the top left cell."""

_NEGATED = ("stat_centre_x", "stat_u", "stat_curl")


def mirrored(vectors: NDArray[Any]) -> NDArray[Any]:
    """(…, 261): what the vectors would be with left and right exchanged in every frame."""
    place = {name: number for number, name in enumerate(CHANNELS)}
    exchanged: NDArray[Any] = vectors[..., [place[_opposite(name)] for name in CHANNELS]]
    for name in _NEGATED:
        exchanged[..., place[name]] *= -1
    exchanged[..., place["stat_centre_x"]] += 1
    return exchanged


def _opposite(name: str) -> str:
    """The channel whose number a channel takes over in a mirror."""
    kind, _, rest = name.partition("_")
    if kind == "stat":
        return name
    if kind == "mbh":
        kind, rest = name[:5], name[6:]
    row, column, towards = rest[0], int(rest[1]), rest[3:]
    if towards != "still":
        turn = TOWARDS.index(towards)
        # u itself changes its sign, which turns its gradient once more.
        turn = -turn if kind == "mbh_u" else DIRECTIONS // 2 - turn
        towards = TOWARDS[turn % DIRECTIONS]
    return f"{kind}_{row}{CELLS - 1 - column}_{towards}"
