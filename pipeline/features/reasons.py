"""The stable codes that say why a clip failed, or what is odd about a ready one.

A code is data: it is stored in the row's `reason` column and is never renamed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What one code means and what happens next.

    `retried`: whether a later run tries such a clip again by itself although its file is
    unchanged. The others are tried again when the file changes, or on `--retry CODE`.
    """

    code: str
    meaning: str
    retried: bool
    remedy: str


def _table(*reasons: Reason) -> dict[str, Reason]:
    return {r.code: r for r in reasons}


FAILURES: dict[str, Reason] = _table(
    Reason(
        code="missing",
        meaning="the file was listed, but was gone when it was to be read",
        retried=True,
        remedy="put the file back, or take it out of the manifest",
    ),
    Reason(
        code="unreachable",
        meaning="the disk or the network that holds the file did not answer",
        retried=True,
        remedy="mend the mount or the connection and run again",
    ),
    Reason(
        code="unreadable",
        meaning="no decoder opens the file: it is empty, cut short, locked, or not a video",
        retried=False,
        remedy="replace the file by a sound copy",
    ),
    Reason(
        code="no_video",
        meaning="the file opens but has no video stream",
        retried=False,
        remedy="take the file out, or replace it",
    ),
    Reason(
        code="no_frames",
        meaning="the file opens and has a video stream, which yields no frame",
        retried=False,
        remedy="replace the file by a sound copy",
    ),
    Reason(
        code="codec_unsupported",
        meaning="FFmpeg, as PyAV brings it, has no decoder for this codec",
        retried=False,
        remedy="convert the clip to H.264",
    ),
    Reason(
        code="decoder_crashed",
        meaning="the process that decoded the clip died",
        retried=False,
        remedy="convert the clip again from its source",
    ),
    Reason(
        code="timed_out",
        meaning="decoding stood still, or went past the time limit for a clip of this size",
        retried=False,
        remedy="try again with a longer limit, or convert the clip again from its source",
    ),
    Reason(
        code="out_of_memory",
        meaning="decoding asked for more memory than it may use, or the system killed it",
        retried=True,
        remedy="free memory, or convert the clip to a smaller picture",
    ),
    Reason(
        code="too_large",
        meaning="the picture has more pixels than a clip may have",
        retried=False,
        remedy="convert the clip to a smaller picture",
    ),
    Reason(
        code="not_finite",
        meaning="the features came out as NaN or infinity",
        retried=False,
        remedy="look at the clip, or use precision float32",
    ),
)

WARNINGS: dict[str, Reason] = _table(
    Reason(
        code="fewer_frames",
        meaning="fewer frames could be decoded than the file declares",
        retried=False,
        remedy="compare frames_declared with frames_decoded; replace the file if it was cut short",
    ),
    Reason(
        code="times_mended",
        meaning="the file's times do not rise: frames with such a time were put after the one before",
        retried=False,
        remedy="nothing for sampling by count; for times, join the recordings again with one clock",
    ),
)
