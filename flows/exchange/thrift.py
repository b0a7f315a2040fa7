"""Values in Thrift's compact protocol, as Parquet's footers and page headers have them.

See github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. No value here is negative.
"""

from __future__ import annotations

from collections.abc import Sequence

Field = tuple[int, bytes]


def struct(fields: dict[int, Field]) -> bytes:
    found, last = bytearray(), 0
    for number, (kind, data) in sorted(fields.items()):
        found.append((number - last) << 4 | kind)
        found += data
        last = number
    return bytes(found) + b"\0"


def listed(kind: int, items: Sequence[bytes]) -> Field:
    size = len(items)
    head = bytes([size << 4 | kind]) if size < 15 else bytes([0xF0 | kind]) + varint(size)
    return 9, head + b"".join(items)


def i32(value: int) -> Field:
    return 5, zigzag(value)


def i64(value: int) -> Field:
    return 6, zigzag(value)


def text(value: str) -> Field:
    data = value.encode()
    return 8, varint(len(data)) + data


def zigzag(value: int) -> bytes:
    return varint(value << 1)  # nothing here is negative


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
