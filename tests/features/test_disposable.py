"""Frames that nobody wants and nothing is decoded from are left out, and all others stay as they are."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.errors import UnreadableClip
from pipeline.features.decoding import ClipFrames, FramePlan, disposable, read_clip
from pipeline.features.decoding.packets import Packets
from pipeline.spec import Sampling
from tests.features.clips import number_in, write_numbered_clip

FRAMES, STEPS = 90, 8
B_FRAMES = {"g": "30", "bf": "3"}
# Name → how the clip is made, and how many of its frames can be left out.
KINDS: dict[str, tuple[dict[str, Any], range]] = {
    "b.mp4": ({"options": B_FRAMES}, range(30, 80)),
    "b.mkv": ({"options": B_FRAMES}, range(30, 80)),
    "flat.mp4": ({"options": {**B_FRAMES, "b-pyramid": "none"}}, range(40, 80)),
    "open.mp4": ({"options": {**B_FRAMES, "x264-params": "open-gop=1"}}, range(30, 80)),
    "slices.mp4": ({"options": {**B_FRAMES, "x264-params": "slices=4:aud=1"}}, range(30, 80)),
    "fields.mp4": ({"options": {**B_FRAMES, "x264-params": "tff=1"}}, range(1)),  # they hold more
    "variable.mp4": ({"options": B_FRAMES, "times": [3 * i + i % 3 for i in range(90)]}, range(1)),
    "pauses.mp4": ({"options": B_FRAMES, "times": [i + 60 * (i // 40) for i in range(90)]}, range(80)),
    "ten.mp4": ({"options": B_FRAMES, "pix_fmt": "yuv420p10le"}, range(1)),
    "none.mp4": ({"options": {"bf": "0"}}, range(1)),
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
    """The stamps of the packets that were said to be disposable when their frame was not wanted."""
    found: list[int] = []
    asked = Packets.disposable

    def noting(self: Packets, packet: Any) -> bool:
        answer = asked(self, packet)
        found.extend([packet.pts] * answer)
        return answer

    monkeypatch.setattr(Packets, "disposable", noting)
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
        assert len(left_out) in KINDS[name][1]


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


def test_a_reference_that_is_marked_as_none_changes_nothing_else(
    clips: dict[str, Path], tmp_path: Path, left_out: list[int]
) -> None:
    def unmark(number: int, packet: Any) -> bytes:
        data = bytearray(packet)
        if data[4] & 31 == 1 and number % 3 == 0:
            data[4] &= 0b10011111
        return bytes(data)

    path = rewritten(clips["none.mp4"], tmp_path / "lies.mp4", unmark)
    assert same(path, PLAN)
    assert left_out


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
