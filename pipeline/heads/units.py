"""What must not be separated by a split: clips of one group, and clips of equal bytes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.heads.source import Names, texts


def contents(clips: pd.DataFrame) -> Names:
    """A key of each clip's bytes, (clips,) text: equal keys, equal bytes; "" if unknown.

    `sha256:<hex>` of the file where the table has it, else `digest:<number>` of the features. A clip
    without a hash takes the hash of a clip with the same features, so one text serves for both.
    """
    nothing = np.full(len(clips), "", dtype=object)
    hashes = texts(clips, "sha256") if "sha256" in clips else nothing
    digests = digest_keys(clips)
    keys = np.where(hashes != "", "sha256:" + hashes, digests)
    alone = (hashes == "") & (digests != "")
    if alone.any() and (hashes != "").any():
        hashed = (hashes != "") & (digests != "")
        known = dict(zip(digests[hashed][::-1], keys[hashed][::-1], strict=True))
        keys[alone] = [known.get(digest, digest) for digest in digests[alone]]
    return np.asarray(keys, dtype=object)


def digest_keys(clips: pd.DataFrame) -> Names:
    """`digest:<number>` of each clip's features, (clips,) text; "" if it is not known (0)."""
    if "digest" not in clips:
        return np.full(len(clips), "", dtype=object)
    numbers = clips["digest"].to_numpy()
    return np.array([f"digest:{n}" if n else "" for n in numbers.tolist()], dtype=object)


def group_names(clips: pd.DataFrame) -> Names:
    """Each clip's group, (clips,) text; a clip without one is a group of its own.

    Groups that share a clip of equal bytes are one group, named after the first of them.
    """
    group, ids = texts(clips, "group"), texts(clips, "video_id")
    own = np.where(group == "", "clip:" + ids, group).astype(object)
    content = contents(clips)
    known = content != ""
    if not pd.Series(content[known]).duplicated().any():
        return own
    of, names = pd.factorize(own, sort=True)
    content[~known] = own[~known]
    same, distinct = pd.factorize(content)
    # Connected components: the lowest number spreads along shared groups and shared bytes.
    component = np.arange(len(names))
    while True:
        lowest = np.full(len(distinct), len(names))
        np.minimum.at(lowest, same, component[of])
        spread = component.copy()
        np.minimum.at(spread, of, lowest[same])
        spread = spread[spread]
        if np.array_equal(spread, component):
            return np.asarray(names, dtype=object)[component[of]]
        component = spread
