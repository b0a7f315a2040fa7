"""What a training reads its sequences from: the protocol, and what a table of clips says.

The store's reader satisfies `SequenceSource` without importing it; so does anything in memory.
A split separates neither clips of one group (`group_names`) nor clips of equal bytes (`contents`),
nor parts of one file that overlap (`shared_contents`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.spans import fragments, joined_parts, whole_files

READY = 1
"""The status of a row whose features may be used (format version 1)."""

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Names = npt.NDArray[Any]
"""(clips,) text objects."""


class SequencesLike(Protocol):
    """Some rows' sequences: features (n, steps, *shape), mask (n, steps) bool, rows (n,) int64."""

    @property
    def features(self) -> Array: ...
    @property
    def mask(self) -> Mask: ...
    @property
    def rows(self) -> Rows: ...


@runtime_checkable
class SequenceSource(Protocol):
    """Anything that serves masked sequences with a table of their clips.

    `table()` is indexed by row number and has at least `video_id`, `label`, `split`, `group` and
    `status`. `load` may leave rows out (damaged ones): the caller uses `Sequences.rows`.
    """

    @property
    def fingerprint(self) -> str: ...
    @property
    def spec(self) -> dict[str, Any]: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def steps(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

    def table(self) -> pd.DataFrame: ...
    def load(self, rows: Any = None) -> SequencesLike: ...
    def batches(self, rows: Any, size: int) -> Iterator[Any]: ...
    def digests(self, rows: Any) -> npt.NDArray[np.uint32]: ...


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that a head can learn from: ready, and with a label."""
    return table[(table["status"] == READY) & (table["label"].astype(str) != "")]


def normalised(table: pd.DataFrame) -> pd.DataFrame:
    """The table with labels and groups as text without blanks around them: `Serve ` is `Serve`."""
    clean = {name: table[name].astype(str).str.strip() for name in ("label", "group")}
    return table.assign(**clean)


def texts(table: pd.DataFrame, column: str) -> Names:
    """A column of a table as text, (clips,)."""
    return table[column].astype(str).to_numpy(dtype=object)


def class_numbers(clips: pd.DataFrame, classes: Sequence[str]) -> Rows:
    """Each clip's label as its place in `classes`, (clips,); raises `ConfigError` if one is not in it."""
    labels = clips["label"].astype(str)
    numbers = pd.Index(classes).get_indexer(pd.Index(labels)).astype(np.int64)
    if (numbers < 0).any():
        raise ConfigError(
            f"the label {min(labels[numbers < 0])!r} is not among the {len(classes)} classes: "
            "name it in classes"
        )
    return numbers


def contents(clips: pd.DataFrame) -> Names:
    """A key of each clip's bytes, (clips,) text: equal keys, equal bytes; "" if unknown.

    `sha256:<hex>` of the file where the table has it, with `#t=1,3` behind it for a part of the file;
    else `digest:<number>` of the features. A clip without a hash takes the hash of a clip with the same
    features, so one text serves for both.
    """
    nothing = np.full(len(clips), "", dtype=object)
    hashes = texts(clips, "sha256") if "sha256" in clips else nothing
    digests = digest_keys(clips)
    parts = fragments(clips)
    hashed_as = "sha256:" + hashes + np.where(parts != "", "#" + parts, "")
    keys = np.where(hashes != "", hashed_as, digests)
    alone = (hashes == "") & (digests != "")
    if alone.any() and (hashes != "").any():
        hashed = (hashes != "") & (digests != "")
        known = dict(zip(digests[hashed][::-1], keys[hashed][::-1], strict=True))
        keys[alone] = [known.get(digest, digest) for digest in digests[alone]]
    return np.asarray(keys, dtype=object)


def shared_contents(clips: pd.DataFrame) -> Names:
    """`contents`, equal as well for parts of one file that have frames in common."""
    return joined_parts(contents(clips))


def digest_keys(clips: pd.DataFrame) -> Names:
    """`digest:<number>` of each clip's features, (clips,) text; "" if it is not known (0)."""
    if "digest" not in clips:
        return np.full(len(clips), "", dtype=object)
    numbers = clips["digest"].to_numpy()
    return np.array([f"digest:{n}" if n else "" for n in numbers.tolist()], dtype=object)


def group_names(clips: pd.DataFrame) -> Names:
    """Each clip's group, (clips,) text; a clip without one is a group of its own.

    Groups that share a clip of equal bytes, or parts of a file that overlap, are one group, named after
    the first of them. So are those of the parts of equal files for which nobody named a group.
    """
    group, ids = texts(clips, "group"), texts(clips, "video_id")
    own = np.where(group == "", "clip:" + ids, group).astype(object)
    content = shared_contents(clips)
    tied = [content, _unnamed_files(clips, group)]
    if not any(pd.Series(keys[keys != ""]).duplicated().any() for keys in tied):
        return own
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    of, names = pd.factorize(own, sort=True)
    for keys in tied:
        keys[keys == ""] = own[keys == ""]
    same, distinct = pd.factorize(np.concatenate(tied))
    # Groups that share bytes, directly or by way of others, have the name of the first of them.
    nodes = len(names) + len(distinct)
    of_each = np.tile(of, len(tied))
    shared = coo_array((np.ones(len(same)), (of_each, len(names) + same)), shape=(nodes, nodes))
    component = connected_components(shared, directed=False)[1][: len(names)]
    _, first, number = np.unique(component, return_index=True, return_inverse=True)
    return np.asarray(names, dtype=object)[first[number][of]]


def _unnamed_files(clips: pd.DataFrame, group: Names) -> Names:
    """The file of each part whose group is named after a file, by its hash; "" for all others."""
    files = whole_files(clips)
    unnamed = (fragments(clips) != "") & (group == files)
    hashes = texts(clips, "sha256") if "sha256" in clips else files
    return np.where(unnamed & (hashes != ""), "file:" + hashes, "").astype(object)
