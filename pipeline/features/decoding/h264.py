"""What an H.264 stream says of its pictures: in which order they are shown, and which none refers to.

Time stamps are the container's, and may be wrong; the order is the stream's own, by which decoders give
the pictures out. See ITU-T H.264: 7.3.2.1.1 and E.1.1 (parameter sets), 7.3.3 (slices), 8.2.1 (order).
"""

from __future__ import annotations

import functools
from bisect import bisect_right, insort
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_SLICE, _IDR, _SPS, _PPS = 1, 5, 7, 8
_NO_PICTURE = {9, 12}  # a delimiter, filler
_MESSAGE = 6
_SLICE_BYTES = 32  # in which the part of a slice's header that is read here lies
_WITH_CHROMA = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}
_MOST_BITS = 16  # of a number in a slice's header
_RESETS = 1 << 40  # more than any order within one group


@dataclass(frozen=True, slots=True)
class ParameterSets:
    """The one sequence parameter set of a stream, and which pictures' sets go with it.

    order_bits: of the order in a slice; 0: pictures are shown as they are decoded. held_back: how many
    pictures a decoder holds back, None if it is not said. units: the sets' bytes.
    """

    prefix: int
    frame_bits: int
    order_bits: int
    has_planes: bool
    has_fields: bool
    held_back: int | None
    pictures: frozenset[int]
    units: frozenset[bytes]


@functools.lru_cache(maxsize=64)
def parameter_sets(extradata: bytes) -> ParameterSets | None:
    """Of an `avcC` box (ISO/IEC 14496-15, 5.3.3.1); None if it is none, or has not just one sequence."""
    with suppress(IndexError, ValueError):
        return _parameter_sets(extradata)
    return None


def _parameter_sets(extradata: bytes) -> ParameterSets | None:
    if len(extradata) < 7 or extradata[0] != 1 or extradata[5] & 31 != 1:
        return None
    units, at = [], 6
    for count in (1, -1):  # −1: the next byte says it
        if count < 0:
            count, at = extradata[at], at + 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            units.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    sequence, *pictures = units
    numbers = frozenset(_Bits(unit[1:]).ue() for unit in pictures)
    if not 0 < len(numbers) == len(pictures):
        return None
    return _sequence((extradata[4] & 3) + 1, sequence[1:], numbers, frozenset(units))


def _sequence(
    prefix: int, data: bytes, pictures: frozenset[int], units: frozenset[bytes]
) -> ParameterSets | None:
    bits = _Bits(data)
    profile = bits.u(8)
    bits.u(16)
    bits.ue()
    has_planes = False
    if profile in _WITH_CHROMA:
        chroma = bits.ue()
        has_planes = chroma == 3 and bool(bits.u(1))
        bits.ue(), bits.ue(), bits.u(1)
        if bits.u(1):
            for number in range(12 if chroma == 3 else 8):
                if bits.u(1):
                    _pass_scaling_list(bits, 16 if number < 6 else 64)
    frame_bits, order_bits = bits.ue() + 4, 0
    if (kind := bits.ue()) == 0:
        order_bits = bits.ue() + 4
    if kind not in (0, 2) or max(frame_bits, order_bits) > _MOST_BITS:
        return None
    bits.ue(), bits.u(1), bits.ue(), bits.ue()
    has_fields = not bits.u(1)
    bits.u(1 + has_fields)
    if bits.u(1):
        bits.ue(), bits.ue(), bits.ue(), bits.ue()
    held_back = _held_back(bits) if bits.u(1) else None
    return ParameterSets(
        prefix, frame_bits, order_bits, has_planes, has_fields, held_back, pictures, units
    )


def _pass_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _held_back(bits: _Bits) -> int | None:
    """`max_num_reorder_frames` of the usability information."""
    if bits.u(1) and bits.u(8) == 255:
        bits.u(32)
    if bits.u(1):
        bits.u(1)
    if bits.u(1):
        bits.u(4)
        if bits.u(1):
            bits.u(24)
    if bits.u(1):
        bits.ue(), bits.ue()
    if bits.u(1):
        bits.u(65)
    has_timing = [_pass_timing(bits) for _ in range(2)]
    bits.u(1 + any(has_timing))
    if not bits.u(1):
        return None
    bits.u(1)
    bits.ue(), bits.ue(), bits.ue(), bits.ue()
    return bits.ue()


def _pass_timing(bits: _Bits) -> bool:
    if has_it := bool(bits.u(1)):
        count = bits.ue() + 1
        bits.u(8)
        for _ in range(count):
            bits.ue(), bits.ue(), bits.u(1)
        bits.u(20)
    return has_it


class PictureOrder:
    """The order in which a stream's pictures are shown, of packets that are met as they are decoded.

    is_known: whether all that was met was understood. disposable: for every packet that is shown whether
    no other picture is decoded from it.
    """

    def __init__(self, sets: ParameterSets) -> None:
        self._sets = sets
        self._orders: list[int] = []
        self._group = -1  # pictures from one IDR on
        self._reference = 0  # the order of the last picture that others refer to
        self._frame = -1  # and its number
        self.is_known = True
        self.disposable: list[bool] = []

    @classmethod
    def of(cls, context: Any) -> Self | None:
        """For the stream of this codec context; None where it does not say."""
        if context.name != "h264" or not context.extradata:
            return None
        sets = parameter_sets(bytes(context.extradata))
        return cls(sets) if sets else None

    def meet(self, packet: Any, *, shown: bool) -> None:
        """Take in the next packet."""
        if not self.is_known or not packet.size:
            return
        try:
            self._meet(memoryview(packet), shown=shown)
        except (IndexError, ValueError):
            self.is_known = False
        self.is_known &= not packet.is_corrupt and not packet.has_sidedata("new_extradata")

    def _meet(self, data: memoryview, *, shown: bool) -> None:
        units, heads, order, alone = self._units(data), 0, None, True
        for unit in units:
            kind = unit[0] & 31
            if kind in (_SLICE, _IDR):
                if order is None:
                    order = self._order(bytes(unit[:_SLICE_BYTES]))
                elif unit[1] & 0x80:  # it begins with the first macroblock
                    raise ValueError("two pictures")
                heads |= unit[0] & 0x60
            elif kind in (_SPS, _PPS, _MESSAGE):
                if kind != _MESSAGE and bytes(unit) not in self._sets.units:
                    raise ValueError("its parameters change")
                alone = False
            elif kind not in _NO_PICTURE:
                raise ValueError("a unit of an extension, or of data partitions")
        if order is None or self._group < 0:
            raise ValueError("no picture, or none to begin with")
        alone &= not heads
        # To FFmpeg a start code ends a unit, whatever its length is said to be.
        if alone and any(b"\0\0\1" in bytes(unit) for unit in units):
            raise ValueError("a unit inside of another")
        if shown:
            self._orders.append(order)
            self.disposable.append(alone)

    def _units(self, data: memoryview) -> list[memoryview]:
        """The units of a packet, which are not copied: most are large, and their heads say enough."""
        units, at, prefix = [], 0, self._sets.prefix
        while at < len(data):
            size = int.from_bytes(data[at : at + prefix], "big")
            at += prefix
            if not 0 < size <= len(data) - at:
                raise ValueError("its units do not add up")
            units.append(data[at : at + size])
            at += size
        return units

    def _order(self, unit: bytes) -> int:
        """8.2.1, of a frame: the later it is shown the greater."""
        sets, is_idr = self._sets, unit[0] & 31 == _IDR
        bits = _Bits(unit[1:])
        bits.ue(), bits.ue()
        if bits.ue() not in sets.pictures:
            raise ValueError("it is of other parameters")
        if sets.has_planes:
            bits.u(2)
        # FFmpeg takes a number that is not due for frames that are missing, by what it has decoded.
        if bits.u(sets.frame_bits) != (0 if is_idr else (self._frame + 1) % (1 << sets.frame_bits)):
            raise ValueError("frames are missing")
        if sets.has_fields and bits.u(1):
            raise ValueError("a field")
        if is_idr:
            bits.ue()
            self._group, self._reference, self._frame = self._group + 1, 0, -1
        if unit[0] & 0x60:
            self._frame += 1
        if not sets.order_bits:
            self._reference += 1
            return self._group * _RESETS + self._reference
        whole = 1 << sets.order_bits
        # The nearest to the last reference that ends like this.
        order = self._reference - self._reference % whole + bits.u(sets.order_bits)
        if order - self._reference > whole // 2:
            order -= whole
        elif self._reference - order >= whole // 2:
            order += whole
        if unit[0] & 0x60:
            self._reference = order
        return self._group * _RESETS + order

    def is_that_of(self, times: NDArray[np.int64]) -> bool:
        """Whether pictures with these times, in the order of decoding, are shown in the stream's order.

        And whether a decoder has been told to hold back as many as that needs: else it may drop some.
        """
        if not self.is_known or len(self._orders) != len(times):
            return False
        by_time = np.argsort(times, kind="stable")
        orders = np.array(self._orders, dtype=np.int64)
        if (np.diff(orders[by_time]) <= 0).any() or (np.diff(times[by_time]) <= 0).any():
            return False
        places = np.empty(len(times), np.int64)
        places[by_time] = np.arange(len(times))
        return _most_held_back(places.tolist()) <= (self._sets.held_back or 0)


def _most_held_back(places: list[int]) -> int:
    """How many pictures are decoded before one that is shown before them, at most."""
    most, met = 0, list[int]()
    for place in places:
        most = max(most, len(met) - bisect_right(met, place))
        insort(met, place)
    return most


class _Bits:
    """The bits of a unit behind its first byte, without the bytes that only prevent start codes."""

    def __init__(self, data: bytes) -> None:
        if b"\0\0\3" in data:
            data = data.replace(b"\0\0\3", b"\0\0")
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def u(self, count: int) -> int:
        """An unsigned number of so many bits. Raises `ValueError` at the end of the data."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the data end")
        return self._value >> self._left & (1 << count) - 1

    def ue(self) -> int:
        """An unsigned number by Exp-Golomb."""
        rest = self._value & (1 << self._left) - 1
        zeros = self._left - rest.bit_length()
        self._left -= zeros
        return self.u(zeros + 1) - 1

    def se(self) -> int:
        """A number by Exp-Golomb that may be negative."""
        number = self.ue()
        return (number + 1) // 2 if number % 2 else -number // 2
