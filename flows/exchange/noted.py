"""What a folder's manifest says that an earlier export has written, and whether that still holds."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.exchange.entries import is_inside
from flows.exchange.formats import Format


@dataclass(frozen=True, slots=True)
class Note:
    """A row that was written and read back. steps: its real ones · digest, stored: of its features
    and of its row in the store · embedded: of the facts that are in its file (`Format.embeds`).
    """

    id: str
    file: str
    key: str
    steps: int
    digest: int
    stored: int
    embedded: bytes


class Notes:
    """The rows of a manifest, by number; a line that is no line of ours counts as none."""

    def __init__(self, path: Path, writer: Format) -> None:
        self._writer = writer
        blocks: dict[str, dict[int, Note]] = {}
        last = ("", -1)
        for line in path.open("rb") if path.exists() else ():
            try:
                said = json.loads(line)
                note = Note(
                    said["id"], said["file"], said["key"], len(said["frames"]), said["digest"],
                    said["stored"], embedded(said, writer),
                )  # fmt: skip
                row = said["row"]
                if type(row) is not int or not is_inside(note.file):
                    continue
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
            # A shard that was written again has no other rows than those of its last block of lines.
            if not writer.per_clip and (note.file != last[0] or row <= last[1]):
                blocks[note.file] = {}
            last = (note.file, row)
            blocks.setdefault(note.file if not writer.per_clip else "", {})[row] = note
        self.rows = {row: note for block in blocks.values() for row, note in block.items()}
        self._counts = Counter(note.file for note in self.rows.values())

    @property
    def files(self) -> set[str]:
        """The files that are named, those of the export's own format."""
        return {name for name in self._counts if name.endswith(self._writer.ending)}

    def holds(self, lines: list[dict[str, Any]]) -> list[bool]:
        """Whether what was written of these rows, those of one unit, is what would be written now.

        lines: `Clip.facts()` and `file`. A shard holds as a whole, or not at all.
        """
        same = []
        for line in lines:
            note = self.rows.get(line["row"])
            same.append(
                note is not None
                and (note.file, note.stored) == (line["file"], line["stored"])
                and note.embedded == embedded(line, self._writer)
            )
        if not self._writer.per_clip:
            whole = all(same) and self._counts[lines[0]["file"]] == len(lines)
            return [whole] * len(lines)
        return same


def embedded(line: dict[str, Any], writer: Format) -> bytes:
    """A digest of the facts that are in a clip's file."""
    text = json.dumps([line[name] for name in writer.embeds])
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
