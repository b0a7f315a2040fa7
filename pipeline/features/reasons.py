"""The stable codes for why a clip failed, or what is wrong with a ready one.

A code is data: it is stored in the row's `reason` column and is never renamed. `reasons.csv` lists them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files


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


def _read(kind: str) -> dict[str, Reason]:
    text = files(__package__).joinpath("reasons.csv").read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(text.splitlines()) if row["kind"] == kind]
    return {
        r["code"]: Reason(r["code"], r["meaning"], r["remedy"], r["retried"] == "yes") for r in rows
    }


FAILURES = _read("failure")
WARNINGS = _read("warning")
