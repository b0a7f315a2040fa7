"""Frames that nobody wants and nothing is decoded from are left out, and all others stay as they are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.errors import UnreadableClip
from pipeline.features.decoding import (
    ClipFrames,
    FramePlan,
    disposable,
    h264,
    read_clip,
    seeking,
)
from pipeline.features.decoding.video import shows
from pipeline.spec import Sampling
from tests.features.clips import number_in, write_numbered_clip
from tests.frames.patching import edits

FRAMES, STEPS = 90, 8
B_FRAMES = {"g": "30", "bf": "3"}
# Name → how the clip is made, and how many of its frames can be left out.
KINDS: dict[str, tuple[dict[str, Any], range]] = {
    "b.mp4": ({"options": B_FRAMES}, range(30, 80)),
    "b.mkv": ({"options": B_FRAMES}, range(30, 80)),
    "flat.mp4": ({"options": {**B_FRAMES, "b-pyramid": "none"}}, range(40, 80)),
    "open.mp4": ({"options": {**B_FRAMES, "x264-params": "open-gop=1"}}, range(30, 80)),
    "slices.mp4": ({"options": {**B_FRAMES, "x264-params": "slices=4:aud=1"}}, range(30, 80)),
    "fields.mp4": ({"options": {**B_FRAMES, "x264-params": "tff=1"}}, range(5, 9)),  # with messages
    "variable.mp4": ({"options": B_FRAMES, "times": [3 * i + i % 3 for i in range(90)]}, range(30, 80)),
    "pauses.mp4": ({"options": B_FRAMES, "times": [i + 60 * (i // 40) for i in range(90)]}, range(80)),
    "ten.mp4": ({"options": B_FRAMES, "pix_fmt": "yuv420p10le"}, range(1)),
    "none.mp4": ({"options": {"bf": "0"}}, range(5, 9)),  # the last
    "b.ts": ({"options": B_FRAMES}, range(1)),
    "hevc.mp4": ({"codec": "libx265"}, range(1)),
    "b.avi": ({"codec": "mpeg4", "options": {"bf": "2"}}, range(1)),
}  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: write_numbered_clip(folder / name, FRAMES, **how) for name, (how, _) in KINDS.items()
    }


@pytest.fixture
def left_out(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of every clip that was read so the number of frames that were not decoded."""
    found: list[int] = []
    decoded = disposable._decoded

    def noting(video: Any, packets: Any, shown: Any) -> Iterator[Any]:
        found.append(len(shown) - sum(map(shows, packets)))
        return decoded(video, packets, shown)

    monkeypatch.setattr(disposable, "_decoded", noting)
    return found


def read_whole(path: Path, plan: FramePlan) -> ClipFrames:
    """The clip with every frame decoded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disposable, "_LARGEST_SHARE", -1.0)
        return read_clip(str(path), plan)


def told(clip: ClipFrames) -> dict[str, Any]:
    """All that a row is made of but the pixels and the time it took."""
    names = [name for name in clip.__dataclass_fields__ if name not in ("frames", "decode_s")]
    values = {name: getattr(clip, name) for name in names if name != "release"}
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


def same(path: Path, plan: FramePlan) -> bool:
    clip, whole = read_clip(str(path), plan), read_whole(path, plan)
    return told(clip) == told(whole) and np.array_equal(clip.frames, whole.frames)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "plan",
    [
        FramePlan(sampling=Sampling(steps=STEPS), size=96),
        FramePlan(sampling=Sampling(steps=STEPS, rule="stride", stride=7), size=96),
        FramePlan(sampling=Sampling(steps=STEPS), size=96, window=2, gap=2),
    ],
    ids=["uniform", "stride", "windows"],
)
def test_a_clip_is_what_it_is_with_every_frame_decoded(
    clips: dict[str, Path], left_out: list[int], name: str, plan: FramePlan
) -> None:
    assert same(clips[name], plan)
    if plan.sampling.rule == "uniform" and plan.window == 1:
        assert sum(left_out) in KINDS[name][1]


def test_the_frames_are_those_that_were_painted(clips: dict[str, Path]) -> None:
    plan = FramePlan(sampling=Sampling(steps=STEPS), size=160, fit="squash")
    clip = read_clip(str(clips["b.mp4"]), replace(plan, fit="pad"))
    numbers = [number_in(picture[32:128]) for picture in clip.frames]
    assert numbers == clip.frame_index.tolist()
    assert clip.frames_decoded == FRAMES


def test_a_clip_whose_frames_are_wanted_is_decoded_whole(
    clips: dict[str, Path], left_out: list[int]
) -> None:
    read_clip(str(clips["b.mp4"]), FramePlan(sampling=Sampling(steps=FRAMES), size=96))
    assert not left_out


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
def test_a_clip_that_is_too_large_to_be_held_is_decoded_whole(
    clips: dict[str, Path], left_out: list[int], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(disposable, "_MOST_BYTES", clips[name].stat().st_size // 2)
    assert same(clips[name], FramePlan(sampling=Sampling(steps=STEPS), size=96))
    assert not left_out


def rewritten(path: Path, out: Path, change: Any) -> Path:
    """The clip with the packets that `change` makes of its own, (number, packet) → None or bytes.

    Matroska has no times of decoding: they are early, so that stamps can be moved back.
    """
    into_mkv = out.suffix == ".mkv"
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                data = change(number, packet) or bytes(packet)
                copy = av.Packet(data)
                dts = number * 40 - 4000 if into_mkv else packet.dts
                copy.pts, copy.dts, copy.duration = packet.pts, dts, packet.duration
                copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
                copy.stream = stream
                target.mux(copy)
    return out


PLAN = FramePlan(sampling=Sampling(steps=STEPS), size=96)
EVERY = FramePlan(sampling=Sampling(steps=FRAMES), size=96)


def test_a_reference_that_is_marked_as_none_has_the_clip_decoded_whole(
    clips: dict[str, Path], tmp_path: Path, left_out: list[int]
) -> None:
    """The numbers of the frames after it say that one is missing."""

    def unmark(number: int, packet: Any) -> bytes:
        data = bytearray(packet)
        if data[4] & 31 == 1 and number % 3 == 0:
            data[4] &= 0b10011111
        return bytes(data)

    assert same(rewritten(clips["none.mp4"], tmp_path / "lies.mp4", unmark), PLAN)
    assert not left_out


def test_a_picture_that_is_hidden_in_anothers_unit_is_not_left_out(
    clips: dict[str, Path], tmp_path: Path, left_out: list[int]
) -> None:
    def hide(number: int, packet: Any) -> bytes:
        data = bytes(packet)
        if data[4] != 1:
            return data
        data = data[4:] + b"\0\0\1" + data[4:]
        return len(data).to_bytes(4, "big") + data

    assert same(rewritten(clips["b.mp4"], tmp_path / "hidden.mp4", hide), PLAN)
    assert not left_out


@pytest.mark.parametrize("number", [20, 21, 22, 23, 60])
@pytest.mark.parametrize("moved", [-15, -2, 1, 2, 50])
def test_a_wrong_stamp_cannot_shift_the_count(
    clips: dict[str, Path], tmp_path: Path, number: int, moved: int
) -> None:
    def move(at: int, packet: Any) -> None:
        # Milliseconds, by a bit more than whole frames: no other packet has the same.
        packet.pts += (moved * 40 + moved) * (at == number)

    path = rewritten(clips["b.mkv"], tmp_path / "moved.mkv", move)
    assert same(path, PLAN)
    assert read_clip(str(path), PLAN).reason == "times_mended"


def test_stamps_in_the_order_of_decoding_are_not_believed(tmp_path: Path) -> None:
    """Regular, and each wrong: a box is lost that says how much later a frame is shown."""
    options = {"g": "30", "bf": "1", "x264-params": "b-adapt=0"}
    for frames in (80, seeking.LONG_FRAMES + 100):
        path = write_numbered_clip(tmp_path / "b.mp4", frames, options=options)
        path.write_bytes(path.read_bytes().replace(b"ctts", b"free"))
        plan = FramePlan(sampling=Sampling(steps=STEPS), size=160, fit="pad")
        clip = read_clip(str(path), plan)
        with av.open(str(path)) as container:
            right = [number_in(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
        numbers = [number_in(picture[32:128]) for picture in clip.frames]
        assert numbers == [right[index] for index in clip.frame_index]
        assert clip.reason == "times_mended"


@pytest.mark.parametrize("pair", [(20, 21), (21, 22), (22, 24), (40, 43)])
def test_stamps_that_changed_places_are_noticed(
    clips: dict[str, Path], tmp_path: Path, left_out: list[int], pair: tuple[int, int]
) -> None:
    with av.open(str(clips["b.mkv"])) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    swapped = dict(zip(pair, reversed(pair), strict=True))

    def swap(number: int, packet: Any) -> None:
        packet.pts = stamps[swapped.get(number, number)]

    assert same(rewritten(clips["b.mkv"], tmp_path / "swapped.mkv", swap), PLAN)
    assert not left_out


def test_frames_that_an_edit_begins_with_and_does_not_show_are_decoded(tmp_path: Path) -> None:
    """In a long clip, where they have the stamps of others that are shown."""
    options = {"g": "15", "bf": "2", "x264-params": "b-adapt=0"}
    path = write_numbered_clip(tmp_path / "b.mp4", 1500, options=options)
    path.write_bytes(edits(path.read_bytes(), 1.28, 26.76, 20.76, 26.56))
    with av.open(str(path)) as container:
        right = [number_in(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    for offset in np.linspace(0, 1, 40, endpoint=False):
        plan = FramePlan(sampling=Sampling(steps=4, offset=float(offset)), size=160, fit="pad")
        clip = read_clip(str(path), plan)
        numbers = [number_in(picture[32:128]) for picture in clip.frames]
        assert numbers == [right[index] for index in clip.frame_index]


def test_a_decoder_that_was_not_told_how_many_to_hold_back_decodes_all(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, left_out: list[int]
) -> None:
    """It may drop frames, and would drop others."""
    known = h264.parameter_sets

    def silent(extradata: bytes) -> Any:
        sets = known(extradata)
        assert sets is not None
        assert sets.held_back is not None
        return replace(sets, held_back=None)

    monkeypatch.setattr(h264, "parameter_sets", silent)
    read_clip(str(clips["b.mp4"]), PLAN)
    assert not left_out
    read_clip(str(clips["none.mp4"]), PLAN)
    assert left_out


@pytest.mark.parametrize(
    "options",
    [
        {"bf": "0"},
        {"bf": "5", "refs": "6", "x264-params": "b-adapt=0"},
        {"bf": "3", "profile": "main"},
        {"bf": "0", "profile": "baseline"},
        {"bf": "2", "g": "400", "x264-params": "b-adapt=0:keyint=400"},
        {"bf": "2", "x264-params": "nal-hrd=vbr:vbv-maxrate=900:vbv-bufsize=900"},
        {"bf": "3", "x264-params": "tff=1"},
        {"bf": "3", "x264-params": "cqm=jvt:colorprim=bt709:transfer=bt709:colormatrix=bt709"},
        {"bf": "2", "x264-params": "overscan=show:sar=4/3:chromaloc=1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_the_streams_order_is_that_in_which_ffmpeg_gives_frames_out(
    tmp_path: Path, options: dict[str, str], pix_fmt: str
) -> None:
    """Of more pictures than the bits of an order tell apart."""
    if pix_fmt == "yuv444p":
        options = {name: value for name, value in options.items() if name != "profile"}
    path = write_numbered_clip(tmp_path / "a.mp4", 380, options=options, pix_fmt=pix_fmt)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        order = h264.PictureOrder.of(stream.codec_context)
        assert order is not None
        stamps, given = [], []
        for packet in container.demux(stream):
            order.meet(packet, shown=shows(packet))
            stamps += [packet.pts] if packet.size else []
            given += [frame.pts for frame in stream.decode(packet)]
    assert given == sorted(given)
    assert order.is_that_of(np.array(stamps))
    two = [*stamps[:100], stamps[101], stamps[100], *stamps[102:]]
    assert not order.is_that_of(np.array(two))


def test_parameters_that_say_what_no_stream_has_are_not_believed(clips: dict[str, Path]) -> None:
    with av.open(str(clips["b.mp4"])) as container:
        data = container.streams.video[0].codec_context.extradata or b""
    assert h264.parameter_sets(data) is not None
    size = int.from_bytes(data[6:8], "big")
    at = 8 + size  # the count of pictures' sets
    twice = (
        data[:at] + b"\2" + 2 * data[at + 1 : at + 3 + int.from_bytes(data[at + 1 : at + 3], "big")]
    )
    assert h264.parameter_sets(twice) is None
    # In Exp-Golomb, 2^40 - 2 bits of an order.
    ones = "".join(f"{byte:08b}" for byte in data[9:12]) + "1" * 2 + "1" + "0" * 40 + "1" * 60
    unit = b"\x67" + int(ones.ljust(160, "1"), 2).to_bytes(20, "big")
    huge = data[:6] + len(unit).to_bytes(2, "big") + unit + data[at:]
    assert h264.parameter_sets(huge) is None


@pytest.mark.parametrize("seed", range(200))
def test_false_parameters_are_refused(clips: dict[str, Path], seed: int) -> None:
    with av.open(str(clips["slices.mp4"])) as container:
        data = bytearray(container.streams.video[0].codec_context.extradata or b"")
    chance = random.Random(seed)
    for _ in range(1 + seed % 3):
        data[chance.randrange(len(data))] = chance.randrange(256)
    h264.parameter_sets(bytes(data[: chance.randrange(len(data) + 1)] if seed % 2 else data))


@pytest.mark.parametrize("seed", range(60))
def test_damage_costs_no_frame_that_decoding_all_gives(
    clips: dict[str, Path], tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    whole = clips[chance.choice(["b.mp4", "b.mkv", "slices.mp4"])]
    data = bytearray(whole.read_bytes())
    if seed % 4 == 0:
        del data[chance.randrange(len(data) // 2, len(data)) :]
    for _ in range(seed % 4 * 2):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path = tmp_path / f"damaged{whole.suffix}"
    path.write_bytes(data)
    try:
        every = read_whole(path, PLAN)
    except UnreadableClip as error:
        with pytest.raises(UnreadableClip, match=error.reason):
            read_clip(str(path), PLAN)
        return
    clip = read_clip(str(path), PLAN)
    assert told(clip) == told(every)
    # A frame that is not needed and is damaged harms others where it is decoded.
    right = dict(zip(range(FRAMES), read_clip(str(whole), EVERY).frames, strict=True))
    for index, ours, theirs in zip(clip.frame_index, clip.frames, every.frames, strict=True):
        if np.array_equal(theirs, right[int(index)]):
            assert np.array_equal(ours, theirs)
