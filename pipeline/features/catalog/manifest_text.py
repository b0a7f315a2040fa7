"""A manifest's file as a table of text: CSV, or JSON as ActivityNet's."""

from __future__ import annotations

import csv
import io
from typing import Any

import pandas as pd

from pipeline.errors import ConfigError
from pipeline.features.catalog import remote
from pipeline.features.files import read_start

COLUMNS = {
    *("path", "video_name", "label", "tag", "split", "group", "size_bytes", "mtime_ns"),
    *("start", "end", "start_frame", "end_frame", "id"),
}
LINE = "line"
"""The column that says where in the file each row stands: a line's number, or a text."""


def read_csv(manifest: str) -> pd.DataFrame:
    """The known columns of the file as text, and `LINE`; a row for each that is not blank.

    A row may end in surplus commas; a surplus value means an unquoted comma somewhere before it, so that
    every value behind that comma is in the wrong column.
    """
    tab = manifest.lower().endswith(".tsv")
    rows = csv.reader(
        io.StringIO(text_of(manifest), newline=""),
        delimiter="\t" if tab else ",",
        skipinitialspace=True,
        strict=True,
    )
    try:
        names = [name.strip() for name in next(rows, [])]
        at = {name: i for i, name in enumerate(names) if name in COLUMNS}
        doubled = sorted(name for name in at if names.count(name) > 1)
        if doubled:
            raise ConfigError(f"{manifest} has two columns {doubled[0]}: keep one")
        columns: dict[str, list[Any]] = {name: [] for name in (*at, LINE)}
        for row in rows:
            if not any(row):
                continue
            if any(value.strip() for value in row[len(names) :]):
                mark = "tab" if tab else "comma"
                raise ConfigError(
                    f"{manifest} has {len(row)} values for {len(names)} columns in line "
                    f"{rows.line_num}: put values that hold a {mark} in double quotes"
                )
            if any("\0" in value for value in row):
                raise ConfigError(
                    f"{manifest} has a NUL character in line {rows.line_num}: save it as UTF-8 text"
                )
            for name, i in at.items():
                columns[name].append(row[i] if i < len(row) else "")
            columns[LINE].append(rows.line_num)
    except csv.Error as error:
        raise ConfigError(
            f"{manifest} cannot be read as a manifest: line {rows.line_num}: {error}"
        ) from None
    return pd.DataFrame(columns, dtype=object)


def text_of(manifest: str) -> str:
    """The file's text. Raises `ConfigError` for what cannot be read as UTF-8."""
    try:
        if remote.is_remote(manifest):
            import fsspec

            with fsspec.open(manifest, "rb") as file:
                data = bytes(file.read())
        else:
            data = read_start(manifest, -1)
    except Exception as error:  # each service raises its own kinds
        detail = getattr(error, "strerror", None) or remote.without_secrets(str(error))
        error_class = remote.service_error(error) if remote.is_remote(manifest) else ConfigError
        raise error_class(f"{remote.without_secrets(manifest)} cannot be read: {detail}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{manifest} cannot be read as a manifest: byte {error.start} is no UTF-8: "
            "save it as UTF-8 text"
        ) from None
