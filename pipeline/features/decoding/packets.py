"""What a packet shows without being decoded: whether it is whole, and whether decoding can start at it.

The keyframe flag is not enough: encoders set it at the recovery points of intra-refresh and of open
GOPs too, from which some pictures come out wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

_H264_IDR, _H264_PICTURES = {5}, range(1, 6)
_HEVC_IRAP, _HEVC_PICTURES = set(range(16, 24)), range(32)
_HEVC_LEADING = {6, 7, 8, 9}  # RADL and RASL


@dataclass(frozen=True, slots=True)
class Packets:
    """How the packets of one stream are parsed.

    codec: its decoder's name. prefix: bytes of the length before each NAL unit (H.264 and HEVC in
    MP4 and Matroska), 0 where the units are not length-prefixed.
    """

    codec: str
    prefix: int = 0

    @classmethod
    def of(cls, context: Any) -> Self:
        """For the stream of this codec context."""
        extra = context.extradata or b""
        at = {"h264": 4, "hevc": 21}.get(context.name)
        if at is None or len(extra) <= at or extra[0] != 1:
            return cls(context.name)
        return cls(context.name, (extra[at] & 3) + 1)

    def whole(self, packet: Any) -> bool:
        """Whether the packet is intact: the lengths of its NAL units add up to its size."""
        if self.codec not in ("h264", "hevc"):
            return bool(packet.size)
        return self._kinds(packet) is not None

    def clean(self, packet: Any) -> bool:
        """Whether every picture from this one on, in order of presentation, decodes from here."""
        if self.codec in ("h264", "hevc"):
            kinds = self._kinds(packet) or []
            h264 = self.codec == "h264"
            pictures = [
                kind for kind in kinds if kind in (_H264_PICTURES if h264 else _HEVC_PICTURES)
            ]
            return bool(pictures) and set(pictures) <= (_H264_IDR if h264 else _HEVC_IRAP)
        head = memoryview(packet)[:1].tobytes()
        if self.codec == "vp9":
            return bool(head) and _vp9_key(head[0])
        return True  # AV1's sync points are complete by its container's rules

    def leading(self, packet: Any) -> bool:
        """Whether the picture is shown before the keyframe that it is decoded after."""
        return self.codec == "hevc" and not _HEVC_LEADING.isdisjoint(self._kinds(packet) or [])

    def _kinds(self, packet: Any) -> list[int] | None:
        """The types of the packet's NAL units, None where their lengths do not add up."""
        data = memoryview(packet)
        kinds: list[int] = []
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at : at + self.prefix], "big")
            at += self.prefix
            if not size or at + size > len(data):
                return None
            kinds.append(data[at] & 31 if self.codec == "h264" else data[at] >> 1 & 63)
            at += size
        return kinds


def _vp9_key(byte: int) -> bool:
    """Whether a VP9 frame header's first byte is that of a keyframe, which depends on nothing."""
    profile = byte >> 5 & 1 | byte >> 3 & 2
    shift = 3 if profile < 3 else 2
    shows_existing, is_inter = byte >> shift & 1, byte >> (shift - 1) & 1
    return not shows_existing and not is_inter
