"""The pictures of a file's frames, fitted as one plan asks: in the room, and kept for other parts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding.pictures import Picture
from pipeline.features.decoding.values import FramePlan
from pipeline.features.decoding.video import Frame, Video


class Fitted:
    """Pictures by frame index. `begin` gives the room, in which the frames of a part are to lie."""

    def __init__(self, plan: FramePlan) -> None:
        self.plan = plan
        self._pictures: dict[int, Picture] = {}
        # Memory of pictures that were dropped: fresh memory costs page faults.
        self._spare: list[Picture] = []
        self._shape: tuple[int, ...] = () if plan.fit == "whole" else (plan.size, plan.size, 3)
        self._room: NDArray[np.uint8] = np.empty(0, np.uint8)

    def begin(self, room: NDArray[np.uint8] | None) -> None:
        """Write into this room from now on: `plan.frames_shape` uint8, fresh if not given."""
        self._room = np.empty(self.plan.frames_shape, np.uint8) if room is None else room

    def __contains__(self, index: int) -> bool:
        return index in self._pictures

    @property
    def indices(self) -> list[int]:
        """Of the frames that are kept."""
        return list(self._pictures)

    @property
    def kept_bytes(self) -> int:
        """What the pictures take."""
        return len(self._pictures) * math.prod(self._shape)

    def keep(self, frame: Frame, video: Video, place: int | None) -> None:
        """Fit a frame's picture and keep it. place: of it in the room, where that is known."""
        out = None
        if place is not None and self._shape:
            out = self._frames_in(place + 1)[-1]
        elif self._spare and not video.is_shared:  # which holds on to its last pictures
            out = self._spare.pop()
        self._pictures[frame.index] = video.fitted(frame, self.plan, out)
        self._shape = self._pictures[frame.index].shape

    def put(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """The pictures one after the other in the room's memory, where most of them are already."""
        frames = self._frames_in(len(indices))
        for place, index in zip(frames, indices, strict=True):
            picture = self._pictures[index]
            if picture.ctypes.data != place.ctypes.data:
                place[:] = picture
        return frames

    def drop(self, indices: Iterable[int]) -> None:
        """Forget these frames' pictures, where they are kept."""
        for index in indices:
            picture = self._pictures.pop(index, None)
            if picture is not None and picture.base is None:  # not a place in the room
                self._spare.append(picture)

    @property
    def in_room(self) -> list[int]:
        """Of the frames whose pictures lie in the room."""
        return [index for index, picture in self._pictures.items() if picture.base is not None]

    def leave_room(self) -> None:
        """Copy the pictures that lie in the room, which is the caller's from now on."""
        for index in self.in_room:
            picture = self._pictures[index]
            self._pictures[index] = self._spare.pop() if self._spare else np.empty_like(picture)
            self._pictures[index][:] = picture

    def clear(self) -> None:
        """Forget all pictures."""
        self._pictures.clear()

    def _frames_in(self, count: int) -> NDArray[np.uint8]:
        """The first of the room's memory as so many pictures."""
        size = math.prod(self._shape)
        return self._room.reshape(-1)[: count * size].reshape(count, *self._shape)


def keep_in_each(each: Sequence[Fitted], frame: Frame, video: Video, place: int | None) -> None:
    """Fit and keep a frame's picture as every plan has it; where one cannot, none keeps it."""
    try:
        for fitted in each:
            fitted.keep(frame, video, place)
    except BaseException:  # whatever it was, the next part finds the frame in all or in none
        drop_from_each(each, [frame.index])
        raise


def drop_from_each(each: Sequence[Fitted], indices: Collection[int]) -> None:
    """Forget these frames' pictures as every plan has them."""
    for fitted in each:
        fitted.drop(indices)
