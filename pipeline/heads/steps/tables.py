"""What a store's table says of whole files: a line for each, their groups, and where their rows part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.heads.source import READY, Array, Mask, Rows
from pipeline.heads.steps.annotations import Annotations, fingerprint

_TOUCH_S = 1e-6


def lines_of(
    table: pd.DataFrame, files: Array, annotations: Annotations, usable: Sequence[str]
) -> pd.DataFrame:
    """A line per file, indexed by its first row; files that share a group, by any row, are one group."""
    mine = table.assign(file=files)[np.isin(files, usable) & (table["status"] == READY).to_numpy()]
    groups = _joined_groups(mine)
    lines = []
    for file in usable:
        rows = mine[mine["file"] == file]
        splits = sorted(set(rows["split"].astype(str).str.strip()) - {""})
        hashes = rows["sha256"].astype(str) if "sha256" in rows else pd.Series([""])
        lines.append(
            {
                "row": int(rows.index.min()),
                "video_id": file,
                "label": fingerprint(annotations.by_file[file]),
                "split": ",".join(splits),
                "group": groups[file],
                "status": READY,
                "sha256": hashes.iloc[0],
            }
        )
    return pd.DataFrame(lines).sort_values("row").set_index("row")


def _joined_groups(rows: pd.DataFrame) -> dict[str, str]:
    """The group of each file: the first of all that are tied to one of its rows; "" without any."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            name = above[name]
        return name

    for file, group in zip(rows["file"], rows["group"].astype(str), strict=True):
        if group:
            first, second = sorted([top(f"file:{file}"), top(f"group:{group}")])
            above[first] = second  # groups sort behind files, so a group is the name
    names = {file: top(f"file:{file}") for file in dict.fromkeys(rows["file"])}
    return {
        file: name.removeprefix("group:") if name.startswith("group:") else ""
        for file, name in names.items()
    }


def left_out_of(
    table: pd.DataFrame, ready: Mask, unannotated: Sequence[str], kept: set[Any]
) -> dict[str, int]:
    """Why rows and files take no part: reason → number."""
    status = table["status"].to_numpy()
    counts = {"pending": int((status == 0).sum()), "failed": int((status == 2).sum())}
    counts |= {"unannotated": len(unannotated), "kept_out_files": len(kept)}
    return {name: count for name, count in counts.items() if count}


def stretches_of(rows: Rows, table: pd.DataFrame) -> tuple[tuple[int, int], ...]:
    """The steps of a file cut where a row does not follow the one before."""
    changes = np.flatnonzero(np.diff(rows)) + 1
    cuts = [int(i) for i in changes if not _follows(table, int(rows[i - 1]), int(rows[i]))]
    return tuple(zip([0, *cuts], [*cuts, len(rows)], strict=True))


def _follows(table: pd.DataFrame, before: int, after: int) -> bool:
    """Whether a row begins where another of its file ends, or earlier."""
    if not {"end_s", "start_s", "end_frame", "start_frame"} <= set(table.columns):
        return True
    first, then = table.loc[before], table.loc[after]
    if first["end_frame"] >= 0 and then["start_frame"] >= 0:
        return bool(then["start_frame"] <= first["end_frame"])
    if pd.notna(first["end_s"]) and pd.notna(then["start_s"]):
        return bool(then["start_s"] <= first["end_s"] + _TOUCH_S)
    return True
