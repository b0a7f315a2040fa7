"""Changes of a clip's bytes that no encoder makes: damage, false headers, display matrices, edits."""

from __future__ import annotations

import io
import struct
import subprocess
from collections.abc import Callable

import av


def cut_to(data: bytes, share: float) -> bytes:
    """The file ends after this share of it."""
    return data[: int(len(data) * share)]


def cut_from(data: bytes, share: float) -> bytes:
    """The file begins behind this share of it."""
    return data[int(len(data) * share) :]


def joined(data: bytes) -> bytes:
    """The file twice, one behind the other: its times begin anew in the middle."""
    return data + data


def joined_smaller(data: bytes) -> bytes:
    """A raw H.264 stream, and behind it the same smaller."""
    command = ["ffmpeg", "-v", "error", "-f", "h264", "-i", "-", "-vf", "scale=iw*3/4:ih*3/4"]
    command += ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "20", "-threads", "1"]
    command += ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-f", "h264", "-"]
    return data + subprocess.run(command, input=data, capture_output=True, check=True).stdout


def text(data: bytes, content: str) -> bytes:
    """A text instead."""
    return content.replace("\\n", "\n").encode()


def zeroed_packet(data: bytes, index: int, count: int = 1) -> bytes:
    """The payload of `count` video packets is zero, from the one at `index` on."""
    damaged = bytearray(data)
    with av.open(io.BytesIO(data)) as container:
        packets = [p for p in container.demux(video=0) if p.size and p.pos is not None]
        for packet in packets[index : index + count]:
            damaged[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    return bytes(damaged)


def zeroed_middle(data: bytes, at: float, size: int) -> bytes:
    """`size` zero bytes at this share of the file."""
    begin = int(len(data) * at)
    return data[:begin] + bytes(size) + data[begin + size :]


def without_units(data: bytes, first: int, last: int) -> bytes:
    """A raw H.264 stream without the units from `first` until before `last`."""
    units = data.split(b"\0\0\0\1")
    return b"\0\0\0\1".join(units[:first] + units[last:])


def avi_claims(data: bytes, frames: int) -> bytes:
    """An AVI whose two headers count `frames` frames."""
    changed = bytearray(data)
    main = data.index(b"avih") + 8
    changed[main + 16 : main + 20] = struct.pack("<I", frames)
    stream = data.index(b"strh") + 8
    changed[stream + 32 : stream + 36] = struct.pack("<I", frames)
    return bytes(changed)


def display_matrix(data: bytes, a: int, b: int, c: int, d: int, track: int = 1) -> bytes:
    """An MP4 whose track is shown through the matrix (a b; c d), not shifted."""
    begin = 0
    for _ in range(track):
        begin = data.index(b"tkhd", begin) + 4
    # Version and flags, times, id, duration and reserved words stand before the matrix.
    begin += 40 if data[begin] == 0 else 52
    one = 1 << 16
    words = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    return data[:begin] + struct.pack(">9i", *words) + data[begin + 36 :]


def edits(data: bytes, *ends: float) -> bytes:
    """An MP4, its index behind its data, that plays parts: start and length of each in seconds."""
    return late_edit(data, 0.0, *ends)


def late_edit(data: bytes, empty_s: float, *ends: float) -> bytes:
    """As `edits`, but for `empty_s` seconds nothing is shown before the first part."""
    movie, media = (_words(data, name)[3] for name in (b"mvhd", b"mdhd"))
    entries = [(round(empty_s * movie), -1)] if empty_s else []
    for start, length in zip(ends[::2], ends[1::2], strict=True):
        entries.append((round(length * movie), round(start * media)))
    listed = b"".join(struct.pack(">IiI", length, start, 1 << 16) for length, start in entries)
    elst = _boxed(b"elst", struct.pack(">II", 0, len(entries)) + listed)
    return _replaced(data, [b"moov", b"trak", b"edts"], _boxed(b"edts", elst))


def cover_first(data: bytes) -> bytes:
    """An MP4 whose cover (in `udta`) stands before its tracks, as drones and taggers write it."""
    begin, end = _find(data, 0, len(data), b"moov")
    boxes = [(name, data[first:last]) for name, first, last in _children(data, begin + 8, end)]
    header, *rest = [box for name, box in boxes if name != b"udta"]
    covers = [box for name, box in boxes if name == b"udta"]
    return data[: begin + 8] + b"".join([header, *covers, *rest]) + data[end:]


PATCHES: dict[str, Callable[..., bytes]] = {
    change.__name__: change
    for change in (
        cut_to, cut_from, joined, joined_smaller, text, zeroed_packet,
        zeroed_middle, without_units, avi_claims,
        display_matrix, edits, late_edit, cover_first,
    )
}  # fmt: skip
"""By the names that `corpus.toml` gives them."""


def _words(data: bytes, name: bytes) -> tuple[int, ...]:
    """The first five 32-bit words of the first box of this name; the fourth is its time scale."""
    begin = data.index(name) + 4
    return struct.unpack(">5I", data[begin : begin + 20])


def _boxed(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def _replaced(data: bytes, path: list[bytes], new: bytes) -> bytes:
    """The file with the box at `path` exchanged, and the sizes of those around it corrected."""
    begin, end, around = 0, len(data), []
    first = last = 0
    for name in path:
        first, last = _find(data, begin, end, name)
        around.append(first)
        begin, end = first + 8, last
    changed = bytearray(data[:first] + new + data[last:])
    for box in around[:-1]:
        size = struct.unpack(">I", data[box : box + 4])[0] + len(new) - (last - first)
        changed[box : box + 4] = struct.pack(">I", size)
    return bytes(changed)


def _find(data: bytes, begin: int, end: int, name: bytes) -> tuple[int, int]:
    for found, first, last in _children(data, begin, end):
        if found == name:
            return first, last
    raise ValueError(f"no box {name!r}")


def _children(data: bytes, begin: int, end: int) -> list[tuple[bytes, int, int]]:
    """(name, first byte, last byte + 1) of the boxes between two places."""
    found = []
    while begin + 8 <= end:
        size, name = struct.unpack(">I4s", data[begin : begin + 8])
        size = size or end - begin
        found.append((name, begin, begin + size))
        begin += size
    return found
