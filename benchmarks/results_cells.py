"""The table of `docs/results.md`: which streams of which clips, and which heads on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REPEATS = 3
"""Of a head that is solved for; one that is trained by gradients takes minutes a fold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One store of a set's clips, or several joined step by step (`joins`: their names).

    features: flags of `features` · weights: whether it has any · pose: whether the pose model's
    """

    name: str
    title: str
    features: tuple[str, ...] = ()
    weights: bool = True
    pose: bool = False
    joins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSet:
    """The clips of one folder, and the streams of them; the first is what the others are held against."""

    name: str
    title: str
    streams: tuple[Stream, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One head of the table with its options and settings. part: which table shows it."""

    name: str
    head: str
    options: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    repeats: int = 1
    solved: bool = False
    part: str = "heads"


INCEPTION = Stream(name="inception_v3", title="InceptionV3", features=("--fit", "squash"))
MOTION = Stream(name="motion", title="motion", features=("--backbone", "motion"), weights=False)
SKELETON = Stream(
    name="skeleton", title="skeleton", features=("--backbone", "pose", "--fit", "pad"), pose=True
)


def joined(*streams: Stream) -> Stream:
    """These streams as one."""
    return Stream(
        name="+".join(stream.name for stream in streams),
        title=" + ".join(stream.title for stream in streams),
        joins=tuple(stream.name for stream in streams),
    )


STREAMS = (
    INCEPTION,
    MOTION,
    SKELETON,
    joined(INCEPTION, MOTION),
    joined(INCEPTION, SKELETON),
    joined(MOTION, SKELETON),
    joined(INCEPTION, MOTION, SKELETON),
)
STREAM_SETS = (
    StreamSet(name="tennis", title="Tennis strokes", streams=STREAMS),
    StreamSet(name="fight", title="Fight or no fight", streams=STREAMS),
)

GRADIENT: Mapping[str, Any] = {"epochs": 30, "patience": 8}


def _solved(name: str, head: str, part: str = "heads", **settings: Any) -> Cell:
    return Cell(name=name, head=head, settings=settings, repeats=REPEATS, solved=True, part=part)


def _trained(name: str, head: str, settings: Mapping[str, Any] = GRADIENT, **options: str) -> Cell:
    return Cell(name=name, head=head, settings=settings, options=tuple(options.items()))


CELLS = (
    _solved("frame_average", "frame_average"),
    _solved("pyramid", "pyramid"),
    _trained("gru few", "gru", {}, preset="few"),
    _trained("lstm 512", "lstm", units="512"),
    _trained("gru 512 → 256", "gru", preset="wide"),
    _trained("attention", "attention"),
    _trained("tcn", "tcn"),
    _solved("pyramid shuffled", "pyramid", "order", shuffle_steps=True),
    *(
        _solved(f"{head} {share:.0%}", head, "learning", train_groups=share)
        for head in ("frame_average", "pyramid")
        for share in (0.25, 0.5, 0.75)
    ),
)
"""The frame average comes first: the others are held against it."""
