"""The streams of a join: which numbers of a step are whose, as values that a run records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from pipeline.errors import SpecMismatch
from pipeline.heads.source import SequenceSource
from pipeline.plain import json_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream: the channels `start` to `stop` of a joined step.

    name: its backbone, with a number where two streams have the same
    shape: of a step as its store holds it; skeleton: whether it is read as skeletons
    first_stage: what `predict` needs, as the store keeps it
    """

    name: str
    url: str
    fingerprint: str
    spec: Mapping[str, Any]
    shape: tuple[int, ...]
    start: int
    stop: int
    skeleton: bool = False
    first_stage: Mapping[str, Any]

    @property
    def channels(self) -> slice:
        """Its place among the channels of a joined step."""
        return slice(self.start, self.stop)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; `from_dict` reads them back."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(**{**values, "shape": tuple(values["shape"])})


def streams_of(sources: Sequence[SequenceSource]) -> tuple[Stream, ...]:
    """The streams of these sources, in their order.

    Raises `SpecMismatch` for fewer than two, for the same features twice, and for pixels.
    """
    if len(sources) < 2:
        raise SpecMismatch("one store alone cannot be joined: name another after a +")
    streams: list[Stream] = []
    for source in sources:
        url = str(getattr(source, "url", ""))
        for before in streams:
            if before.fingerprint == source.fingerprint:
                raise SpecMismatch(
                    f"{url or 'a stream'} holds the same features as {before.url or before.name} (spec "
                    f"{source.fingerprint[:12]}): name each stream once"
                )
        if len(source.shape) == 3:
            raise SpecMismatch(
                f"{url or 'a stream'} holds frames of shape {tuple(source.shape)}, and only features "
                "(vectors or landmarks) can be joined: leave it out"
            )
        stored = getattr(source, "stored", source)
        start = streams[-1].stop if streams else 0
        attributes = getattr(source, "attributes", {})
        streams.append(
            Stream(
                name=_name(source.spec),
                url=url,
                fingerprint=source.fingerprint,
                spec=dict(source.spec),
                shape=tuple(int(n) for n in stored.shape),
                start=start,
                stop=start + math.prod(source.shape),
                skeleton=bool(getattr(source, "skeleton", False)),
                first_stage=dict(attributes.get("first_stage", {})),
            )
        )
    names = [stream.name for stream in streams]
    numbered = [
        f"{name} {names[: i + 1].count(name)}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
    return tuple(replace(each, name=name) for each, name in zip(streams, numbered, strict=True))


def streams_in(clips: Any) -> tuple[Stream, ...]:
    """The streams of clips whose source is a join; empty for any other."""
    return tuple(getattr(clips.source, "streams", ()))


def joined_spec(streams: Sequence[Stream]) -> dict[str, Any]:
    """The specs of all streams as one: `streams` → number (from 1) → spec."""
    return {"streams": {str(i): dict(each.spec) for i, each in enumerate(streams, start=1)}}


def joined_fingerprint(streams: Sequence[Stream]) -> str:
    """SHA-256 (hex) of the streams' fingerprints in their order."""
    return json_digest({"streams": [stream.fingerprint for stream in streams]})


def _name(spec: Mapping[str, Any]) -> str:
    backbone = str(spec.get("backbone") or "stream")
    return str(spec.get("source") or backbone) if backbone == "imported" else backbone
