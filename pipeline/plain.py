"""Results as files that other programs read: strict JSON, and CSV that a spreadsheet opens safely."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def json_text(values: Any, *, indent: int | None = None) -> str:
    """`values` as JSON that every parser reads: NaN and infinities are null, arrays lists.

    What JSON does not know (a path, say) becomes its text.
    """
    return json.dumps(_plain(values), indent=indent, ensure_ascii=False, allow_nan=False)


def read_json(path: Path, *, absent: str, damaged: str) -> Any:
    """The values in a JSON file; raises `ConfigError` with these messages if it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(absent) from None
    except ValueError:
        raise ConfigError(damaged) from None


def write_json(path: Path, values: Mapping[str, Any], *, indent: int | None = 1) -> None:
    """Write JSON, indented for people unless `indent` is None; whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(json_text(values, indent=indent) + "\n", encoding="utf-8")


def json_digest(values: Any) -> str:
    """SHA-256 (hex) of plain JSON values; the order of keys does not count."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def escaped(cell: Any) -> Any:
    """A cell as a spreadsheet may see it: text that it would run as a formula gets a `'` before it.

    Numbers stay numbers. `unescaped` undoes it, whatever the text.
    """
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def unescaped(cell: Any) -> Any:
    """The text before `escaped`."""
    known = isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell)
    return cell[1:] if known else cell


def write_table(frame: pd.DataFrame, path: Path, *, index: bool = False) -> None:
    """Write a frame as CSV, whole or not at all.

    Texts and names are escaped, and quoted where they hold a line's end.
    """
    frame = frame.rename(columns=escaped, index=escaped)
    texts = [str(name) for name in (*frame.columns, *(frame.index if index else ()))]
    for position in _texts(frame):
        frame.isetitem(position, list(frame.iloc[:, position].map(escaped)))
        texts += map(str, frame.iloc[:, position])  # one that is missing, too
    # pandas leaves a lone carriage return unquoted, and readers end the line there.
    odd = any("\r" in text for text in texts)
    options: dict[str, Any] = {"quoting": csv.QUOTE_NONNUMERIC if odd else csv.QUOTE_MINIMAL}
    with whole(path) as temporary:
        frame.to_csv(temporary, index=index, encoding="utf-8", **options)


def write_rows(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as CSV, escaped, quoted and whole like `write_table`'s."""
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        # The usual end of a line, "\\r\\n", is what makes the writer quote a lone carriage return.
        csv.writer(file).writerows([escaped(cell) for cell in row] for row in rows)


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """What `write_table` wrote; `options` are those of `pandas.read_csv`. `NA` stays a name."""
    frame: Any = pd.read_csv(path, **({"keep_default_na": False} | options))
    frame = frame.rename(columns=unescaped, index=unescaped)
    for position in _texts(frame):
        frame.isetitem(position, list(frame.iloc[:, position].map(unescaped)))
    return frame  # type: ignore[no-any-return]


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces it at the end; on an error it is removed.

    A link stays one, and a path that is no file (a pipe, `/dev/stdout`) is written to directly.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()
    temporary = path.with_name(f".{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _texts(frame: pd.DataFrame) -> list[int]:
    """The positions of the columns that may hold text."""
    kinds = enumerate(frame.dtypes)
    return [position for position, kind in kinds if not pd.api.types.is_numeric_dtype(kind)]


def _plain(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str) else str(value)
