"""A store in one file: a ZIP archive without compression, read where it lies.

A member that is not compressed is a span of the archive, so a chunk is one read of a local file, or
one range request to a server. Nothing here writes: `store.pack` and `store.unpack` do.
"""

from __future__ import annotations

import asyncio
import io
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from store.errors import StoreDamaged, StorePacked, StoreUnwritable

_NO_ARCHIVE = (ValueError, OverflowError, EOFError, struct.error)
"""What zipfile raises, besides its own error, for a directory that is damaged."""
_HEADER = 30
_SPARE = 64  # what a member's own header may have beyond its name, with hardly an exception


class Archive:
    """The members of a packed store by name, and their bytes.

    `local` is the archive's path on this machine, or None where it is read by `fs`, an fsspec file
    system, at `path`; `members` what the archive says of each. Raises `StoreDamaged` for what is no ZIP
    archive or is compressed, `StoreUnwritable` for a server that sends whole files only.
    """

    def __init__(self, url: str, *, local: Path | None, fs: Any = None, path: str = "") -> None:
        self.url = url
        self.local = local
        self._fs, self._path = fs, path
        self._offsets: dict[str, int] = {}
        try:
            opened = local.open("rb") if local is not None else fs.open(path, "rb")
            with opened as file, zipfile.ZipFile(file) as archive:
                members = [m for m in archive.infolist() if not m.is_dir()]
                size = file.seek(0, io.SEEK_END)
        except (zipfile.BadZipFile, NotImplementedError, *_NO_ARCHIVE) as error:
            # What fsspec says where it may not read the end of a file before its beginning.
            if local is None and ("range" in str(error) or "streaming" in str(error)):
                raise StoreUnwritable(
                    f"the store {url} is on a server that knows no ranges of a file, and is read where "
                    "it lies: download it, or use a server that does"
                ) from error
            raise StoreDamaged(
                f"{url} is no whole ZIP archive ({error}): fetch or pack it again"
            ) from error
        self.members = {member.filename: member for member in members}
        packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise StoreDamaged(
                f"{url} has compressed members ({packed[0]}) and is read where it lies: unzip it, and "
                "pack the store with `pixels-once pack`"
            )
        self._require_apart(members, size)

    def _require_apart(self, members: list[zipfile.ZipInfo], size: int) -> None:
        """Raise `StoreDamaged` unless the members lie apart and inside of the archive, by their claims:
        what is read or unpacked is then never more than the archive.
        """
        ordered = sorted(members, key=lambda member: member.header_offset)
        starts = [*(member.header_offset for member in ordered[1:]), size]
        seen: set[str] = set()
        for member, following in zip(ordered, starts, strict=True):
            stop = member.header_offset + _HEADER + member.file_size
            if (
                min(member.header_offset, member.file_size) < 0
                or stop > following
                or member.compress_size != member.file_size
                or member.filename in seen
            ):
                raise StoreDamaged(
                    f"the member {member.filename} of {self.url} does not fit into the archive, or is "
                    "there twice: fetch or pack it again"
                )
            seen.add(member.filename)

    def span(self, name: str) -> tuple[Path, int, int] | None:
        """(file, offset, length) of a member of a local archive; None where there is no such."""
        member = self.members.get(name)
        if member is None or self.local is None:
            return None
        offset = self._offsets.get(name)
        if offset is None:
            with self.local.open("rb", buffering=0) as file:
                file.seek(member.header_offset)
                offset = member.header_offset + self._before(member, file.read(_HEADER))
            self._offsets[name] = offset
        return self.local, offset, member.file_size

    def read(self, name: str, *, check: bool = False) -> bytes | None:
        """A member's bytes, checked; None where there is no such member.

        Chunks of features are not checked unless asked for: their rows have digests.
        """
        member = self.members.get(name)
        if member is None:
            return None
        span = self.span(name)
        if span is not None:
            with span[0].open("rb", buffering=io.DEFAULT_BUFFER_SIZE) as file:
                file.seek(span[1])
                data = file.read(span[2])
        else:
            data = self._fetch(member)
        checked = check or not name.startswith("features/c")
        if len(data) != member.file_size or (checked and zlib.crc32(data) != member.CRC):
            raise StoreDamaged(f"{name} in {self.url} is damaged: fetch or pack the store again")
        return data

    def _fetch(self, member: zipfile.ZipInfo) -> bytes:
        start = member.header_offset
        guess = _HEADER + len(member.filename.encode()) + _SPARE + member.file_size
        data = self._range(start, start + guess)
        before = self._before(member, data[:_HEADER])
        if before + member.file_size > len(data):
            data = self._range(start, start + before + member.file_size)
        return data[before : before + member.file_size]

    def _range(self, start: int, stop: int) -> bytes:
        data = bytes(self._fs.cat_file(self._path, start=start, end=stop))
        # A server without ranges sends the whole file.
        return data[start:stop] if len(data) > stop - start else data

    def _before(self, member: zipfile.ZipInfo, header: bytes) -> int:
        """How many bytes stand before a member's own: its header, which repeats its name."""
        if len(header) < _HEADER or header[:4] != b"PK\3\4":
            raise StoreDamaged(
                f"the header of {member.filename} in {self.url} is damaged: fetch or pack it again"
            )
        name, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        return _HEADER + name + extra


class PackedStore(Store):  # type: ignore[misc]  # zarr is not followed by mypy
    """An archive as Zarr reads it."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, archive: Archive) -> None:
        super().__init__(read_only=True)
        self._archive = archive

    def __str__(self) -> str:
        return self._archive.url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackedStore) and other._archive is self._archive

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        data = await asyncio.to_thread(self._archive.read, key)
        if data is None:
            return None
        if isinstance(byte_range, RangeByteRequest):
            data = data[byte_range.start : byte_range.end]
        elif isinstance(byte_range, OffsetByteRequest):
            data = data[byte_range.offset :]
        elif isinstance(byte_range, SuffixByteRequest):
            data = data[-byte_range.suffix :]
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, span) for key, span in key_ranges]

    async def exists(self, key: str) -> bool:
        return key in self._archive.members

    async def set(self, key: str, value: Buffer) -> None:
        raise refusal(self._archive.url)

    async def delete(self, key: str) -> None:
        raise refusal(self._archive.url)

    async def list(self) -> AsyncIterator[str]:
        for name in self._archive.members:
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for name in self._archive.members:
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        below = (name[len(start) :] for name in self._archive.members if name.startswith(start))
        for name in sorted({name.split("/")[0] for name in below}):
            yield name


def refusal(url: str) -> StorePacked:
    """The error of whoever would write to a packed store."""
    return StorePacked(
        f"the store {url} is packed, and a packed store is only read: `pixels-once unpack --store "
        f"{url} --out clips.zarr` makes one that can be written"
    )
