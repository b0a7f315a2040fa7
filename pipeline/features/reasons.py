"""The stable codes for why a clip failed, or what is wrong with a ready one.

A code is data: it is stored in the row's `reason` column and is never renamed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """What one code means and what happens next.

    retried: whether a later run tries such a clip again by itself although its file is unchanged.
    The others are tried again when the file changes, or on `--retry CODE`.
    """

    code: str
    meaning: str
    remedy: str
    retried: bool = False


def _table(*reasons: Reason) -> dict[str, Reason]:
    return {r.code: r for r in reasons}


FAILURES: dict[str, Reason] = _table(
    Reason(
        "missing",
        "the file was listed, but was gone when it was to be read",
        "put the file back, or take it out of the manifest",
        retried=True,
    ),
    Reason(
        "unreachable",
        "the disk or the network that holds the file did not answer",
        "mend the mount or the connection and run again",
        retried=True,
    ),
    Reason(
        "unreadable",
        "no decoder opens the file: it is empty, cut short, locked, or not a video",
        "replace the file by a sound copy",
    ),
    Reason(
        "no_video",
        "the file opens but has no video stream",
        "take the file out, or replace it",
    ),
    Reason(
        "no_frames",
        "the file opens and has a video stream, which yields no frame",
        "replace the file by a sound copy",
    ),
    Reason(
        "codec_unsupported",
        "FFmpeg, as PyAV brings it, has no decoder for this codec",
        "convert the clip to H.264",
    ),
    Reason(
        "decoder_crashed",
        "the process that decoded the clip died",
        "convert the clip again from its source",
    ),
    Reason(
        "timed_out",
        "decoding stood still, or went past the time limit for a clip of this size",
        "try again with a longer limit, or convert the clip again from its source",
    ),
    Reason(
        "out_of_memory",
        "decoding asked for more memory than it may use, or the system killed it",
        "free memory, or convert the clip to a smaller picture",
        retried=True,
    ),
    Reason(
        "too_large",
        "the picture has more pixels than a clip may have, or a part of an imported file is too large",
        "convert the clip to a smaller picture, or the file to smaller chunks",
    ),
    Reason(
        "not_finite",
        "the features came out as NaN or infinity",
        "look at the clip, or use precision float32",
    ),
    Reason(
        code="wrong_shape",
        meaning="an imported array has another number of axes or another width than the store's steps",
        retried=False,
        remedy="import it into a store of its own; say that arrays are D × T where they are",
    ),
    Reason(
        code="wrong_dtype",
        meaning="an imported array would lose precision, or holds no numbers",
        retried=False,
        remedy="import with the dtype that the store was made with, or convert the array",
    ),
    Reason(
        code="too_long",
        meaning="an imported sequence has more steps than the store",
        retried=False,
        remedy="import it cut or split, or into a store with more steps",
    ),
    Reason(
        code="pickled",
        meaning="the file holds Python objects, which could run code when they are read",
        retried=False,
        remedy="save it again with numpy.save as an array of numbers",
    ),
)

WARNINGS: dict[str, Reason] = _table(
    Reason(
        "fewer_frames",
        "fewer frames could be decoded than the file declares",
        "compare frames_declared with frames_decoded; replace the file if it was cut short",
    ),
    Reason(
        "times_mended",
        "the file's times do not rise: frames with such a time were put after the one before",
        "nothing for sampling by count; for times, join the recordings again with one clock",
    ),
)
