"""Searching every byte that a run leaves for planted secrets, however they are written down.

A secret is looked for as it is, JSON-escaped, percent-encoded (once and twice), in hexadecimal, in
UTF-16 and in Base64 at each alignment; and inside what is compressed, encoded, zipped or a SQLite table.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import io
import json
import re
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

_DEPTH = 4
_PACKED = (b"\x1f\x8b", b"x\x9c", b"x\x01", b"x\xda", b"PK", b"\x28\xb5")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")


def search(places: Mapping[str, bytes], secrets: Mapping[str, str]) -> list[str]:
    """Lines of `WAY in PLACE (how)` for all that is found.

    places: name → bytes; secrets: way of giving it → secret.
    """
    forms = {(way, how): form for way, text in secrets.items() for how, form in _forms(text)}
    return [
        f"{way} in {place}{inside} ({how})"
        for place, data in places.items()
        for inside, part in _unwrapped(data)
        for (way, how), form in forms.items()
        if form in part
    ]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by path; their names too, for a secret may be in one."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {**found, f"{folder} (names)": "\n".join(map(str, folder.rglob("*"))).encode()}


def _forms(secret: str) -> Iterator[tuple[str, bytes]]:
    raw = secret.encode()
    yield "as it is", raw
    seen = {raw}
    texts = {
        "JSON": json.dumps(secret)[1:-1],
        "JSON twice": json.dumps(json.dumps(secret)[1:-1])[1:-1],
        "percent": quote(secret, safe=""),
        "percent but slashes": quote(secret),
        "percent with plus": quote_plus(secret),
        "percent twice": quote(quote(secret, safe=""), safe=""),
        "hexadecimal": raw.hex(),
        "repr": repr(secret)[1:-1],
        "HTML": secret.replace("&", "&amp;"),
    }
    forms = {how: text.encode() for how, text in texts.items()}
    forms["UTF-16"] = secret.encode("utf-16-le")
    for shift in range(3):
        # Only the middle is the secret's alone: the ends share their letters with what is beside it.
        whole = base64.b64encode(b"\0" * shift + raw)
        middle = whole[4:][: (len(raw) - 3) // 3 * 4]
        forms[f"Base64 +{shift}"] = middle
        forms[f"Base64 for URLs +{shift}"] = middle.replace(b"+", b"-").replace(b"/", b"_")
    for how, form in forms.items():
        if form not in seen:
            seen.add(form)
            yield how, form


def _unwrapped(data: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """The data and whatever is packed in it, each with a name for how it was got out."""
    yield "", data
    if depth == _DEPTH:
        return
    for how, inner in _inside(data):
        for deeper, part in _unwrapped(inner, depth + 1):
            yield f" → {how}{deeper}", part


def _inside(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data[:16] == b"SQLite format 3\0":
        yield from _cells(data)
    if data[:4] == b"PK\3\4":
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name, archive.read(name)
    if data[:2] == b"\x1f\x8b":
        with contextlib.suppress(OSError, EOFError, zlib.error):
            yield "gzip", gzip.decompress(data)
    if data[:1] == b"\x78":
        with contextlib.suppress(zlib.error):
            yield "zlib", zlib.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        from numcodecs import zstd

        with contextlib.suppress(RuntimeError, ValueError):
            yield "zstd", bytes(zstd.decompress(data))
    for run in _BASE64.findall(data):
        packed = run.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        with contextlib.suppress(binascii.Error):
            inner = base64.b64decode(packed + b"=" * (-len(packed) % 4))
            if inner[:2] in (b"\x1f\x8b", b"PK") or inner[:1] in (b"\x78", b"\x80", b"{", b"["):
                yield "Base64", inner


def _cells(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Every table of a SQLite file, its cells one after another: in the file long ones are scattered."""
    with tempfile.NamedTemporaryFile(suffix=".db") as file:
        file.write(data)
        file.flush()
        with contextlib.closing(sqlite3.connect(file.name)) as database:
            tables = database.execute("select name from sqlite_master where type = 'table'")
            for (table,) in tables.fetchall():
                with contextlib.suppress(sqlite3.DatabaseError):
                    rows = database.execute(f'select * from "{table}"').fetchall()
                    cells = [cell for row in rows for cell in row if isinstance(cell, str | bytes)]
                    raw = [cell.encode() if isinstance(cell, str) else cell for cell in cells]
                    yield f"table {table}", b"\n".join(raw)
                    for cell in raw:
                        for how, inner in _inside(cell) if cell[:2] in _PACKED else ():
                            yield f"table {table} → {how}", inner


def database_of(home: Path) -> dict[str, bytes]:
    """Prefect's database as one file, what is still in its journal included."""
    found = {}
    for path in home.rglob("*.db"):
        with (
            tempfile.NamedTemporaryFile(suffix=".db") as copy,
            contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(copy.name)) as target,
        ):
            source.backup(target)
            target.execute("pragma journal_mode = delete")
            target.commit()
            found[f"{path} (with its journal)"] = Path(copy.name).read_bytes()
    return found
