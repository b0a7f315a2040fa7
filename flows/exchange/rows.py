"""Foreign arrays as rows of a store: which rows there will be, of what spec, and the values of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from flows.exchange.arrays import Foreign, readable
from flows.exchange.entries import Entry
from flows.exchange.manifest import Told
from flows.exchange.sources import Source, State
from flows.settings.features import parse_sampling
from pipeline.errors import ConfigError, UnreadableClip
from pipeline.spec import IMPORTED, Sampling, Spec

MOST_CHUNK_BYTES = 1 << 31
"""Of the rows of one chunk, which are in memory at once."""
_MOST_STEPS = 1 << 22  # of a sequence that is split
_PIECE = re.compile(r"#steps=\d+,\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How arrays become rows. See `flows.cli.import_.Settings`."""

    store: str
    steps: int = 0
    long: str = "refuse"
    dtype: str = "auto"
    source: str = ""
    sampling: str = ""
    batch: int = 64
    lease: bool = True


def spec_of(source: Source, rules: Rules, name: str) -> Spec:
    """The store's spec, from the first array that can be read."""
    about = source.about
    first: Foreign | None = None
    for entry in source.entries:
        with suppress(UnreadableClip):
            first = source.read(entry)
            break
    if first is None:
        raise ConfigError(
            f"none of the {len(source.entries)} arrays can be read, e.g. {source.entries[0].file}: "
            "look at what wrote them"
        )
    told = parse_sampling(rules.sampling) if rules.sampling else {"rule": IMPORTED}
    dtype: Any = _stored_dtype(first.dtype) if rules.dtype == "auto" else rules.dtype
    shape = _clip_shape(first)[1:]
    if not dtype or not shape or min(shape) < 1:
        raise ConfigError(
            f"the first array is {first.shape} {first.dtype}: name a folder of T × D numbers"
        )
    steps = rules.steps or int(about.get("steps", 40))
    return Spec(
        sampling=Sampling(steps=steps, **told), interpolation="none", size=0, backbone=IMPORTED,
        dtype=dtype, shape=shape, source=rules.source or about.get("source") or name,
    )  # fmt: skip


def require_small(spec: Spec, batch: int) -> None:
    """Raise `ConfigError` where one chunk would not fit into memory, whatever the first array claims."""
    size = spec.row_bytes * batch
    if size > MOST_CHUNK_BYTES:
        raise ConfigError(
            f"a chunk of {batch} rows of {spec.sampling.steps} steps of {spec.shape} {spec.dtype} would "
            f"be {size / 1e9:.1f} GB: choose a smaller --batch or --steps, or take out the first array"
        )


def pieces_of(source: Source, steps: int) -> Iterator[Entry]:
    """The entries of a source, those that have more steps in pieces of as many as a row has."""
    for entry in source.entries:
        length = 0
        with suppress(UnreadableClip):  # told where it is read
            length = _clip_shape(source.read(entry))[0]
        if length <= steps or length > _MOST_STEPS:  # read as one, it is `too_long`
            yield entry
            continue
        for start in range(0, length, steps):
            yield replace(entry, start=start, stop=min(start + steps, length))


def row_id(piece: Entry) -> str:
    if piece.stop < 0:
        return piece.id
    return f"{piece.id}#steps={piece.start},{piece.stop}"


def clip_of(row_id: str) -> str:
    """The id of the clip that a row with this id is, or is a piece of."""
    return _PIECE.sub("", row_id)


def _clip_shape(foreign: Foreign) -> tuple[int, ...]:
    return (1, *foreign.shape) if len(foreign.shape) == 1 else foreign.shape


def _stored_dtype(dtype: np.dtype[Any]) -> str:
    """What keeps the values: float32 for all but float16 and uint8 (float64 is rounded)."""
    if dtype.kind not in "iufb":
        return ""
    name = dtype.name  # without the order of bytes
    return name if name in ("float16", "uint8") else "float32"


def read_piece(
    source: Source, piece: Entry, told: Told, state: State, rules: Rules, out: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read a row's real steps into `out`, (steps, *shape), zero behind them; (frames (n,), times (n,)).

    told: what the source says of the entry; a step's number stands for the frame and the time that it
    does not say. state: of the entry's file when it was listed. Raises `UnreadableClip` with the reason;
    `out` is to be cleared then.
    """
    steps = len(out)
    foreign = source.read(piece)
    shape = _clip_shape(foreign)
    if shape[1:] != out.shape[1:]:
        raise UnreadableClip(
            "wrong_shape", f"its steps are {shape[1:]}, the store's {out.shape[1:]}"
        )
    if shape[0] < 1:
        raise UnreadableClip("no_frames", "it has no steps")
    start, stop = piece.start, shape[0] if piece.stop < 0 else piece.stop
    if stop - start > steps:
        if rules.long != "cut":
            raise UnreadableClip("too_long", f"it has {shape[0]} steps, the store {steps}")
        stop = start + steps
    if foreign.dtype.kind not in "iufb" or (
        rules.dtype == "auto" and _stored_dtype(foreign.dtype) != out.dtype
    ):
        raise UnreadableClip("wrong_dtype", f"it is {foreign.dtype}, the store {out.dtype}")
    whole = not piece.start and stop == shape[0]
    _read_values(foreign, start, stop, out[: stop - start], told.digest if whole else None)
    source.require_same(piece.file, state)
    out[stop - start :] = 0
    if not is_finite(out[: stop - start]):
        raise UnreadableClip("not_finite")
    at = foreign.frames if told.frames is None else told.frames
    when = foreign.times if told.times is None else told.times
    if when is not None and (len(when) != shape[0] or not np.isfinite(when).all()):
        when = None
    if at is not None and (len(at) != shape[0] or at[0] < 0 or (at[1:] <= at[:-1]).any()):
        at = None
    count = np.arange(start, stop)
    frames = count if at is None else np.asarray(at)[start:stop]
    return frames, count if when is None else np.asarray(when, np.float32)[start:stop]


def _read_values(
    foreign: Foreign, start: int, stop: int, out: NDArray[Any], digest: int | None
) -> None:
    """Read steps into `out`; `digest` is that of their bytes as they were exported, if it is known."""
    flat = len(foreign.shape) == 1
    if digest is not None and foreign.dtype != out.dtype:
        with readable():
            plain = np.ascontiguousarray(foreign.read(0, foreign.shape[0]))
        with np.errstate(over="ignore"):
            np.copyto(out, plain[None] if flat else plain, casting="unsafe")
    else:
        first, last = (0, foreign.shape[0]) if flat else (start, stop)
        with readable():
            foreign.read_into(first, last, out[0] if flat else out)
        plain = out
    if digest is not None and google_crc32c.value(plain.reshape(-1).view(np.uint8)) != digest:
        raise UnreadableClip("unreadable", "its bytes are not those that were exported")


def is_finite(values: NDArray[Any]) -> bool:
    """Whether no value is NaN or infinite. NumPy converts each float16; its bits say it at once."""
    if values.dtype == np.float16 and values.flags.c_contiguous and values.size:
        return bool((values.view(np.uint16) & 0x7FFF).max() < 0x7C00)
    return bool(np.isfinite(values).all())
