"""The result of one clip: a fixed-length, masked sequence of features, or a reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding.values import ClipFrames, DecoderFacts
from pipeline.spec import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipResult(DecoderFacts):
    """The result of one clip of a batch.

    index: its position in the batch. status: "ready", "failed" with a reason code, or "stopped"
        (not begun when the run was asked to stop). reason: a code of `reasons`; a ready clip may
        carry a warning. detail: a sentence for people.
    features: (steps, *shape) of the spec's dtype, zero in padding; None unless ready.
    mask: (steps,) bool. frame_index: (steps,) int32, −1 in padding. timestamp: (steps,) float32
        seconds, NaN in padding. All padding unless ready.
    previews: JPEG files, oldest frame first; () unless ready and asked for.
    sha256: of the file as it was read; "" where it is not known.
    """

    index: int
    status: Literal["ready", "failed", "stopped"]
    reason: str = ""
    detail: str = ""
    features: NDArray[Any] | None = None
    mask: NDArray[np.bool_]
    frame_index: NDArray[np.int32]
    timestamp: NDArray[np.float32]
    previews: tuple[bytes, ...] = ()
    sha256: str = ""

    def __repr__(self) -> str:
        shape = None if self.features is None else self.features.shape
        why = f" {self.reason}" if self.reason else ""
        return f"ClipResult({self.index}: {self.status}{why}, features={shape})"


def empty_result(
    spec: Spec, index: int, status: Literal["failed", "stopped"], reason: str = "", detail: str = ""
) -> ClipResult:
    """A result without a sequence: all padding."""
    steps = spec.sampling.steps
    return ClipResult(
        index=index,
        status=status,
        reason=reason,
        detail=detail,
        mask=np.zeros(steps, np.bool_),
        frame_index=np.full(steps, -1, np.int32),
        timestamp=np.full(steps, np.nan, np.float32),
    )


def ready_result(spec: Spec, index: int, read: ClipFrames, features: NDArray[Any]) -> ClipResult:
    """The sequence of a clip: `features` (steps, *shape), zero behind the clip's frames.

    It is a failure, `not_finite`, where a value is no finite number in the spec's dtype: float32
    may hold what overflows float16. Of `read` its facts and previews are used, not its frames.
    """
    count = len(read.frame_index)
    result = replace(empty_result(spec, index, "failed"), **read.facts, sha256=read.sha256)
    if features.dtype.kind == "f" and not np.isfinite(features).all():
        features[:] = 0
        detail = f"a feature is no finite number as {spec.dtype}"
        return replace(result, reason="not_finite", detail=detail)
    result.mask[:count] = True
    result.frame_index[:count] = read.frame_index
    result.timestamp[:count] = read.timestamp
    return replace(
        result, status="ready", reason=read.reason, features=features, previews=read.previews
    )
