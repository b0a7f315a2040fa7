"""A part that fails takes nothing from the others: each is as it would be alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.errors import UnreadableClip
from pipeline.features.decoding import FramePlan, parts, pictures
from pipeline.features.decoding.child import Opened
from pipeline.features.decoding.parts import PartReader
from pipeline.features.decoding.reading import read_clip
from pipeline.features.decoding.video import Video
from pipeline.spans import Span
from pipeline.spec import Sampling
from tests.features.clips import write_numbered_clip

LARGE = 30
"""The frame that is larger than the others, and than the plan allows."""


def picture_of(number: int, width: int, height: int) -> bytes:
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"  # type: ignore[attr-defined]
    encoder.time_base = Fraction(1, 25)
    grey = np.full((height, width, 3), number * 4, np.uint8)
    frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuvj420p")
    frame.pts, frame.time_base = number, Fraction(1, 25)
    packets = [*encoder.encode(frame), *encoder.encode(None)]  # type: ignore[attr-defined]
    return bytes(packets[0])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """60 pictures of 64×48, but for one of 320×240."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(60):
            size = (320, 240) if number == LARGE else (64, 48)
            packet = av.Packet(picture_of(number, *size))
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 25), stream
            packet.is_keyframe = True
            file.mux(packet)
    return str(path)


def outcome(reader: PartReader, number: int) -> tuple[Any, ...]:
    try:
        clip = reader.read(number)
    except UnreadableClip as error:
        return ("failed", error.reason)
    return ("ready", clip.frame_index.tolist(), clip.frames.tobytes(), clip.reason)


@pytest.mark.parametrize("seed", range(12))
def test_a_picture_that_is_too_large_fails_the_parts_that_want_it_alone(mixed, seed) -> None:
    rng = np.random.default_rng(seed)
    plan = FramePlan(sampling=Sampling(steps=3), size=32, max_pixels=64 * 48 * 2)
    begins = [24, *rng.integers(0, 50, 4).tolist()]
    spans = [Span(start_frame=b, end_frame=b + int(rng.integers(4, 26))) for b in begins]
    spans.append(Span(start_frame=29, end_frame=32))  # which wants it whatever the seed
    order = sorted(range(len(spans)), key=lambda number: spans[number].order)
    with PartReader(mixed, plan, spans) as reader:
        together = {number: outcome(reader, number) for number in order}
    for number, span in enumerate(spans):
        with PartReader(mixed, plan, [span]) as reader:
            assert together[number] == outcome(reader, 0), span
    assert together[len(spans) - 1] == ("failed", "too_large")


@pytest.mark.parametrize("fits", [("whole", "crop"), ("crop", "whole")])
def test_after_a_fault_of_fitting_the_next_part_is_right(tmp_path, monkeypatch, fits) -> None:
    path = str(write_numbered_clip(tmp_path / "a.mp4", 40))
    plan = FramePlan(sampling=Sampling(steps=6), size=32, fit=fits[0])
    further = [replace(plan, fit=fits[1])]
    spans = [Span(start_frame=0, end_frame=6), Span(start_frame=0, end_frame=8)]
    monkeypatch.setattr(parts, "LONG_FRAMES", 1)
    real = pictures.fit_picture
    for fails_at in range(1, 13):
        calls = iter(range(1, 1000))

        def fit(
            *values: Any, calls: Iterator[int] = calls, at: int = fails_at, **named: Any
        ) -> Any:
            if next(calls) == at:
                raise RuntimeError("a fault")
            return real(*values, **named)

        with PartReader(path, plan, spans, further=further) as reader:
            expected = [clip.frames.copy() for clip in reader.read_each(1, [None, None])]
        with PartReader(path, plan, spans, further=further) as reader:
            monkeypatch.setattr(pictures, "fit_picture", fit)
            with pytest.raises(RuntimeError, match="a fault"):
                reader.read_each(0, [None, None])
            got = reader.read_each(1, [None, None])
            monkeypatch.setattr(pictures, "fit_picture", real)
        for clip, frames in zip(got, expected, strict=True):
            np.testing.assert_array_equal(clip.frames, frames)


class Late:
    """A container whose demuxer ends as PyAV's may where a stream begins in mid-file.

    PyAV reads memory there that it never set, so no file makes it fail each time.
    """

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def demux(self, *streams: Any) -> Iterator[Any]:
        for packet in self._container.demux(*streams):
            if packet.size:
                yield packet
        raise IndexError("list index out of range")


def test_a_stream_that_begins_in_mid_file_ends_it_and_fails_nothing(tmp_path, monkeypatch) -> None:
    path = str(write_numbered_clip(tmp_path / "a.mp4", 40))
    plan = FramePlan(sampling=Sampling(steps=4), size=64)
    spans = [Span(start_frame=9, end_frame=40), Span(0.8, 9.0)]
    whole = read_clip(path, plan)
    expected = [outcome(PartReader(path, plan, [span]), 0) for span in spans]
    begin = Video.__init__

    def late(self: Video, *values: Any) -> None:
        begin(self, *values)
        self.container = Late(self.container)

    monkeypatch.setattr(Video, "__init__", late)
    clip = read_clip(path, plan)
    np.testing.assert_array_equal(clip.frame_index, whole.frame_index)
    np.testing.assert_array_equal(clip.frames, whole.frames)
    with PartReader(path, plan, spans) as reader:
        assert [outcome(reader, number) for number in (0, 1)] == expected


def test_a_reader_that_broke_is_not_read_on_from(tmp_path: Path, monkeypatch) -> None:
    path = str(write_numbered_clip(tmp_path / "a.mp4", 40))
    plan = FramePlan(sampling=Sampling(steps=4), size=64)
    opened = Opened([plan], lambda: None)
    request = {"path": path, "file": 1, "spans": [(0.0, 1.0, None, None), (0.5, 1.2, None, None)]}
    request |= {"plans": [0], "rows": [], "sha256": "", "number": 0}
    opened.digest(request)
    room = np.empty(plan.frames_shape, np.uint8)
    monkeypatch.setattr(PartReader, "read_each", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        opened.read(request, [room])
    monkeypatch.undo()
    assert not opened._readers
    (clip,) = opened.read({**request, "number": 1}, [room])
    with PartReader(path, plan, [Span(0.5, 1.2)]) as reader:
        np.testing.assert_array_equal(clip.frames, reader.read(0).frames)
