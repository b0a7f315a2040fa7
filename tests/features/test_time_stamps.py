"""When frames are shown: wrong stamps, pauses, recordings joined on, a clock's wrap, edit lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.features.decoding import FramePlan, read_clip, seeking
from pipeline.features.decoding.clock import Clock
from pipeline.features.decoding.video import Video
from pipeline.features.sampling import sample_indices
from pipeline.spec import Sampling

from .clips import number_in, write_numbered_clip

FAST = {"preset": "ultrafast", "g": "20", "bf": "0"}
B_FRAMES = {"g": "20", "bf": "3", "x264-params": "b-adapt=0"}


def restamp(
    clip: Path, ending: str, moved_s: Callable[[int], float], *, decoded: bool = False
) -> Path:
    """A copy whose packets, numbered as they are decoded, are shown later by `moved_s`.

    decoded: they are decoded later by as much.
    """
    copy = clip.with_name(f"restamped.{ending}")
    with av.open(str(clip)) as source, av.open(str(copy), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.pts is not None:
                ticks = round(moved_s(number) / packet.time_base)
                packet.pts += ticks
                packet.dts += ticks * decoded
                packet.stream = stream
                target.mux(packet)
    return copy


def test_times_rise_over_a_new_beginning_a_wrong_stamp_and_none() -> None:
    clock = Clock(0.04)
    stamps = [1.4, 1.44, None, 1.52, 1.50, 1.56, 1.4, 1.44]
    times = [clock.tick(stamp) for stamp in stamps]
    np.testing.assert_allclose(times, [0, 0.04, 0.08, 0.12, 0.14, 0.16, 0.18, 0.20])
    assert clock.mended == 3
    clock = Clock(0.04)
    joined = [clock.tick(stamp) for stamp in [*np.arange(50) * 0.04, *np.arange(50) * 0.04]]
    np.testing.assert_allclose(joined, np.arange(100) * 0.04)
    assert clock.mended == 1


def _times(
    stamps: Sequence[float], *, frame_s: float = 0.04, wrap_s: float = 0.0
) -> tuple[list[float], int]:
    """The times that a clock gives these stamps, and how many it mended."""
    clock = Clock(frame_s, wrap_s)
    following = [*stamps[1:], None]
    return [clock.tick(*pair) for pair in zip(stamps, following, strict=True)], clock.mended


@pytest.mark.parametrize("wrong_s", [1000.0, 1.6, -1.5, -1000.0])
@pytest.mark.parametrize("place", [1, 49, 98])
def test_one_wrong_stamp_moves_its_own_frame_alone(place: int, wrong_s: float) -> None:
    stamps = (np.arange(100) * 0.04).tolist()
    stamps[place] += wrong_s
    times, mended = _times(stamps)
    np.testing.assert_allclose(np.delete(times, place), np.delete(np.arange(100) * 0.04, place))
    assert (np.diff(times) > 0).all()
    assert mended == 1


def test_a_pause_and_a_recording_joined_on_are_no_wrong_stamps() -> None:
    pause = [0.0, 0.04, 5.0, 5.04]
    assert _times(pause) == (pause, 0)
    slow = [0.0, 3.0, 6.0, 9.0]
    assert _times(slow) == (slow, 0)
    joined, mended = _times([5.0, 5.04, 5.08, 0.0, 0.04, 0.08])
    np.testing.assert_allclose(joined, np.arange(6) * 0.04)
    assert mended == 1


@pytest.mark.parametrize("frames", [90, seeking.LONG_FRAMES + 100])
def test_a_stamp_that_is_far_too_high_moves_no_other_frame(tmp_path: Path, frames: int) -> None:
    """A long clip is read through too: sorted by its stamps, its frames would be counted wrongly."""
    clip = write_numbered_clip(tmp_path / "a.mkv", frames, options=FAST)
    clip = restamp(clip, "mkv", lambda number: 1000.0 * (number == 40))
    plan = FramePlan(sampling=Sampling(steps=9), size=96)
    read = read_clip(str(clip), plan)
    wanted = sample_indices(plan.sampling, frames)
    assert [number_in(picture) for picture in read.frames] == wanted.tolist()
    np.testing.assert_allclose(read.timestamp, wanted / 25, atol=0.002)
    assert (read.frames_decoded, read.reason) == (frames, "times_mended")


@pytest.mark.parametrize("options", [FAST, B_FRAMES], ids=["plain", "b-frames"])
@pytest.mark.parametrize(("place", "wrong_s"), [(291, 0.9), (675, 1000.0)])
def test_a_wrong_stamp_in_a_long_clip_makes_no_sought_frame_another(
    tmp_path: Path, options: dict[str, str], place: int, wrong_s: float
) -> None:
    """Past a keyframe, by few places: hardly more than a codec with B-frames may move a picture."""
    frames = seeking.LONG_FRAMES + 100
    clip = write_numbered_clip(tmp_path / "a.mp4", frames, options=options)
    clip = restamp(clip, "mp4", lambda number: (wrong_s + 0.001) * (number == place))
    plan = FramePlan(sampling=Sampling(steps=31), size=96)
    read = read_clip(str(clip), plan)
    wanted = sample_indices(plan.sampling, frames)
    assert read.frame_index.tolist() == wanted.tolist()
    assert [number_in(picture) for picture in read.frames] == wanted.tolist()
    assert (read.frames_decoded, read.reason) == (frames, "times_mended")


def test_a_sought_frame_whose_turn_it_is_not_has_the_clip_read_through(tmp_path: Path) -> None:
    """Moved among the frames of its own group of pictures: no keyframe shows it."""
    frames = seeking.LONG_FRAMES + 100
    clip = write_numbered_clip(tmp_path / "a.mp4", frames, options=B_FRAMES)
    with av.open(str(clip)) as container:
        shown = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    number = shown.index(sorted(shown)[641])
    clip = restamp(clip, "mp4", lambda packet: 0.101 * (packet == number))
    sampling = Sampling(rule="stride", stride=643, steps=2, offset=0.0)
    read = read_clip(str(clip), FramePlan(sampling=sampling, size=96))
    assert [number_in(picture) for picture in read.frames] == [0, 643]
    assert read.reason == "times_mended"


def test_a_joined_recording_lasts_as_long_as_both_and_says_so(tmp_path: Path) -> None:
    half = write_numbered_clip(tmp_path / "half.ts", 50)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(half.read_bytes() * 2)
    read = read_clip(str(joined), FramePlan(sampling=Sampling(steps=100), size=96))
    assert (read.frames_decoded, read.reason) == (100, "times_mended")
    np.testing.assert_allclose(np.diff(read.timestamp), 0.04, atol=0.021)
    assert read.timestamp[-1] == pytest.approx(3.96, abs=0.05)


def test_a_joined_recording_may_begin_with_a_pause() -> None:
    first = np.arange(50) * 0.04
    paused = [0.0, 5.04, 5.08]
    times, mended = _times([*first, *paused])
    np.testing.assert_allclose(times, [*first, 2.0, 7.04, 7.08])
    assert mended == 1
    slow, mended = _times([0.0, 10.0, -500.0, 30.0], frame_s=10.0)
    assert (slow, mended) == ([0.0, 10.0, 20.0, 30.0], 1)


def test_a_clock_that_wraps_goes_on_and_a_joined_one_begins_anew(tmp_path: Path) -> None:
    wrap_s = 2**33 / 90_000
    stamps = (wrap_s - 1.0 + np.arange(100) * 0.04) % wrap_s
    assert _times(stamps.tolist(), wrap_s=wrap_s)[1] == 0
    np.testing.assert_allclose(_times(stamps.tolist(), wrap_s=wrap_s)[0], np.arange(100) * 0.04)
    half = write_numbered_clip(tmp_path / "half.ts", 50)
    late = restamp(half, "ts", lambda _: 200.0, decoded=True)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(late.read_bytes() + half.read_bytes())
    read = read_clip(str(joined), FramePlan(sampling=Sampling(steps=100), size=96))
    assert (read.frames_decoded, read.reason) == (100, "times_mended")
    assert read.timestamp[-1] == pytest.approx(3.96, abs=0.05)


@pytest.mark.parametrize("began_s", [95_442.0, 95_300.0])
def test_a_wrap_in_a_file_leaves_times_and_duration_as_they_are(
    tmp_path: Path, began_s: float
) -> None:
    """Within a minute of the wrap, where FFmpeg subtracts it, and further from it, where it adds it."""
    long = write_numbered_clip(tmp_path / "a.ts", 160, rate=1, options=FAST)
    clip = restamp(long, "ts", lambda _: began_s, decoded=True)
    with Video(str(clip)) as video:
        assert video.duration_s == pytest.approx(160, abs=1)
    read = read_clip(str(clip), FramePlan(sampling=Sampling(steps=160), size=96))
    np.testing.assert_allclose(read.timestamp, np.arange(160), atol=0.01)
    assert (read.frames_decoded, read.reason) == (160, "")


@pytest.mark.parametrize(("earlier_s", "left"), [(3.0, 25), (2.8, 30), (2.0, 50)])
def test_frames_that_an_edit_list_cuts_away_are_no_loss(
    tmp_path: Path, earlier_s: float, left: int
) -> None:
    """Cut between keyframes and at one; in the index stands then only what is left."""
    clip = write_numbered_clip(tmp_path / "a.mp4", 100, options=FAST | {"g": "10"})
    cut = restamp(clip, "mp4", lambda _: -earlier_s, decoded=True)
    with Video(str(cut)) as video:
        assert (video.declared, video.expected()) == (100, left)
    read = read_clip(str(cut), FramePlan(sampling=Sampling(steps=8), size=96))
    assert (read.frames_decoded, read.reason) == (left, "")
    assert number_in(read.frames[0]) == 100 - left + read.frame_index[0]


def test_only_a_containers_count_makes_fewer_frames(tmp_path: Path) -> None:
    times = [*range(25), *range(25, 25 + 20 * 25, 25)]
    for ending in ("mkv", "mp4", "ts"):
        clip = write_numbered_clip(tmp_path / f"a.{ending}", 45, times=times)
        read = read_clip(str(clip), FramePlan(size=32))
        assert (read.frames_decoded, read.reason) == (45, ""), ending
        assert read.frames_declared == (45 if ending == "mp4" else 0)
