"""Reading clips: the right frames, upright, in RGB, at their times, by whichever decoder."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline.errors import ConfigError, UnreadableClip
from pipeline.features.decoding import FramePlan, read_clip, seeking
from pipeline.features.decoding.fit import fit_picture
from pipeline.features.decoding.opencv import OpenCVSource
from pipeline.features.decoding.pyav import PyAVSource
from pipeline.features.decoding.through import read_through
from pipeline.features.sampling import sample_indices
from pipeline.spec import Sampling, Spec

from .clips import number_in, write_numbered_clip

ODD = Path(__file__).parents[3] / "shared" / "clips" / "odd"
needs_odd = pytest.mark.skipif(not ODD.is_dir(), reason="the odd clips are not here")
H264_B = {"preset": "ultrafast", "x264-params": "bframes=2:b-adapt=0:keyint=50:scenecut=0"}


def whole(steps: int = 40, **settings: object) -> FramePlan:
    """A plan whose fit keeps the numbers readable: the picture's own height, cropped."""
    return FramePlan(sampling=Sampling(steps=steps, **settings), size=96)  # type: ignore[arg-type]


def numbers(path: Path, plan: FramePlan) -> list[int]:
    return [number_in(picture) for picture in read_clip(str(path), plan).frames]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libx265", "libvpx-vp9"])
def test_the_frames_read_are_the_frames_asked_for(tmp_path: Path, codec: str) -> None:
    ending = "webm" if "vp9" in codec else "mp4"
    options = H264_B if codec == "libx264" else {"cpu-used": "8"} if "vp9" in codec else {}
    clip = write_numbered_clip(tmp_path / f"a.{ending}", 93, codec=codec, options=options)
    read = read_clip(str(clip), whole())
    expected = sample_indices(Sampling(), 93, 25.0)
    assert [number_in(picture) for picture in read.frames] == expected.tolist()
    assert read.frame_index.tolist() == expected.tolist()
    np.testing.assert_allclose(read.timestamp, expected / 25.0, atol=1e-3)
    assert (read.frames_decoded, read.reason) == (93, "")


@pytest.mark.parametrize("rule", [{"rule": "first"}, {"rule": "stride", "stride": 3}])
def test_rules_that_need_no_length_stop_at_their_last_frame(
    tmp_path: Path, rule: dict[str, object]
) -> None:
    clip = write_numbered_clip(tmp_path / "a.mp4", 120)
    read = read_clip(str(clip), whole(10, **rule))
    assert read.frames_decoded == read.frame_index[-1] + 1 < 120
    assert [number_in(picture) for picture in read.frames] == read.frame_index.tolist()
    assert read.reason == ""


def test_a_true_header_costs_one_pass_and_a_false_one_a_second(tmp_path: Path) -> None:
    clip = write_numbered_clip(tmp_path / "a.mp4", 90)
    plan = whole(8)
    for claim, passes in ((90, 1), (200, 2), (30, 2), (0, 2)):
        opened: list[OpenCVSource] = []

        def opener(claim: int = claim, opened: list[OpenCVSource] = opened) -> OpenCVSource:
            opened.append(OpenCVSource(str(clip), 10**9))
            opened[-1].declared = claim
            return opened[-1]

        _, kept, indices = read_through(opener, plan, lambda: None)
        assert len(opened) == passes
        assert indices.tolist() == sample_indices(plan.sampling, 90, 25.0).tolist()
        assert kept.frames == 90


def test_a_wanted_frame_without_a_picture_drops_out_and_later_ones_move_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_numbered_clip(tmp_path / "a.mp4", 16)
    retrieve = OpenCVSource.retrieve
    calls: list[int] = []

    def failing(source: OpenCVSource) -> np.ndarray | None:
        calls.append(1)
        return None if len(calls) == 2 else retrieve(source)

    monkeypatch.setattr(OpenCVSource, "retrieve", failing)
    read = read_clip(str(clip), whole(4))
    assert read.frame_index.tolist() == [2, 10, 14]
    assert [number_in(picture) for picture in read.frames] == [2, 10, 14]
    assert (read.frames_decoded, read.reason) == (15, "fewer_frames")


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9"])
def test_seeking_gives_the_same_frames_pixel_for_pixel(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "libx264": H264_B,
        "libx265": {"preset": "ultrafast", "x265-params": "keyint=40:bframes=3:log-level=none"},
        "libvpx-vp9": {"cpu-used": "8", "g": "40"},
    }[codec]
    ending = "mkv" if codec == "libvpx-vp9" else "mp4"
    clip = write_numbered_clip(tmp_path / f"a.{ending}", 900, codec=codec, options=options)
    plan = whole(9)
    sought = read_clip(str(clip), plan)
    assert sought.decoder == "pyav"
    monkeypatch.setattr(seeking, "LONG_FRAMES", 10**9)
    through = read_clip(str(clip), plan)
    assert through.decoder == "opencv"
    assert [number_in(picture) for picture in sought.frames] == sought.frame_index.tolist()
    np.testing.assert_array_equal(sought.frames, through.frames)
    np.testing.assert_array_equal(sought.frame_index, through.frame_index)
    np.testing.assert_allclose(sought.timestamp, through.timestamp, atol=1e-3)
    assert (sought.frames_decoded, sought.fps) == (through.frames_decoded, through.fps)


def test_seeking_decodes_no_more_than_from_each_keyframe_on(tmp_path: Path) -> None:
    clip = write_numbered_clip(tmp_path / "a.mp4", 900, options=H264_B)
    steps: list[int] = []
    read = read_clip(str(clip), whole(4), on_progress=lambda: steps.append(1))
    assert read.decoder == "pyav"
    assert len(steps) - 900 <= 4 * 50  # every packet is listed once, then a segment for each


def test_seeking_keeps_to_uneven_times(tmp_path: Path) -> None:
    times = [k + k // 3 for k in range(900)]
    clip = write_numbered_clip(tmp_path / "a.mp4", 900, options=H264_B, times=times)
    read = read_clip(str(clip), whole(9))
    assert read.decoder == "pyav"
    assert [number_in(picture) for picture in read.frames] == read.frame_index.tolist()
    expected = [times[index] / 25.0 for index in read.frame_index.tolist()]
    np.testing.assert_allclose(read.timestamp, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt", "options"),
    [
        ("avi", "mpeg4", "yuv420p", {"bf": "2"}),  # times that run backwards
        ("mp4", "libx264", "yuv420p10le", {"preset": "ultrafast"}),  # ten bit
        ("mp4", "libx264", "yuv420p", {"preset": "ultrafast", "g": "2000"}),  # one keyframe
    ],
)
def test_clips_that_cannot_be_sought_exactly_or_cheaply_are_read_through(
    tmp_path: Path, ending: str, codec: str, pix_fmt: str, options: dict[str, str]
) -> None:
    clip = write_numbered_clip(
        tmp_path / f"a.{ending}", 700, codec=codec, pix_fmt=pix_fmt, options=options
    )
    read = read_clip(str(clip), whole(9))
    assert read.decoder == "opencv"
    assert [number_in(picture) for picture in read.frames] == read.frame_index.tolist()


def test_a_long_clip_that_is_cut_short_is_read_through_and_warned(tmp_path: Path) -> None:
    clip = write_numbered_clip(tmp_path / "a.mkv", 900, options=H264_B)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    read = read_clip(str(cut), whole(9))
    assert 100 < read.frames_decoded < 800
    assert [number_in(picture) for picture in read.frames] == read.frame_index.tolist()


@needs_odd
@pytest.mark.parametrize(
    "name",
    ["short_36_frames.mp4", "vfr.mp4", "rotated_90.mov", "tiny_176x144.mp4", "unordered.mov"],
)
def test_both_decoders_give_the_same_upright_frames(name: str) -> None:
    plan = FramePlan(size=128)
    path = str(ODD / name)
    ours = {}
    for source in (OpenCVSource, PyAVSource):
        described, kept, indices = read_through(
            lambda source=source: source(path, 10**9),
            plan,
            lambda: None,
        )
        pictures = np.stack([kept.pictures[i] for i in indices.tolist()])
        times = [kept.times[i] - kept.first_time for i in indices.tolist()]
        ours[described.decoder] = (pictures, times, (described.width, described.height))
    np.testing.assert_array_equal(ours["opencv"][0], ours["pyav"][0])
    np.testing.assert_allclose(ours["opencv"][1], ours["pyav"][1], atol=1e-3)
    assert ours["opencv"][2] == ours["pyav"][2]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_frames_are_upright_by_both_decoders(tmp_path: Path, turn: int) -> None:
    plain = write_numbered_clip(tmp_path / "plain.mp4", 12, width=160, height=96)
    turned = tmp_path / "turned.mp4"
    with av.open(str(plain)) as source, av.open(str(turned), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    _rotate_in_place(turned, turn)
    expected = {
        90: cv2.ROTATE_90_CLOCKWISE,
        180: cv2.ROTATE_180,
        270: cv2.ROTATE_90_COUNTERCLOCKWISE,
    }
    straight = OpenCVSource(str(plain), 10**9)
    assert straight.grab()
    wanted = cv2.rotate(straight.retrieve(), expected[turn])
    for kind in (OpenCVSource, PyAVSource):
        source = kind(str(turned), 10**9)
        assert source.grab()
        np.testing.assert_array_equal(source.retrieve(), wanted)
        assert (source.width, source.height) == wanted.shape[1::-1]


def _rotate_in_place(path: Path, clockwise: int) -> None:
    """Set the display matrix of an mp4's only track."""
    one = 1 << 16
    a, b = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[clockwise]
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 20 + 16
    words = np.array([a, b, 0, -b, a, 0, 0, 0, 1 << 30], dtype=">i4")
    data[place : place + 36] = words.tobytes()
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv420p10le", "yuv444p"])
def test_grey_and_deep_clips_become_eight_bit_rgb(tmp_path: Path, pix_fmt: str) -> None:
    clip = write_numbered_clip(tmp_path / "a.mp4", 10, pix_fmt=pix_fmt)
    read = read_clip(str(clip), whole())
    assert read.frames.shape == (10, 96, 96, 3)
    assert read.frames.dtype == np.uint8
    assert [number_in(picture) for picture in read.frames] == list(range(10))


def test_colours_come_as_rgb(tmp_path: Path) -> None:
    clip = tmp_path / "red.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        red = np.zeros((64, 64, 3), dtype=np.uint8)
        red[:, :, 0] = 255
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        container.mux(stream.encode(None))
    mean = read_clip(str(clip), FramePlan(size=32)).frames.mean(axis=(0, 1, 2))
    assert mean[0] > 230
    assert mean[1] < 30
    assert mean[2] < 30


def test_crop_takes_the_centre_square_and_pad_and_squash_keep_all() -> None:
    picture = np.zeros((40, 80, 3), dtype=np.uint8)
    picture[:, 20:60] = 200
    crop = fit_picture(picture, FramePlan(fit="crop", size=20))
    assert (crop == 200).all()
    squash = fit_picture(picture, FramePlan(fit="squash", size=20))
    assert (squash[:, 5:15] == 200).all()
    assert not squash[:, :5].any()
    pad = fit_picture(picture, FramePlan(fit="pad", size=20))
    assert (pad[5:15, 5:15] == 200).all()
    assert not pad[:5].any()
    assert not pad[15:].any()


def test_shrinking_by_area_averages_and_growing_is_smooth() -> None:
    board = np.indices((40, 40)).sum(axis=0) % 2 * 255
    picture = np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)
    small = fit_picture(picture, FramePlan(size=10))
    assert (np.abs(small.astype(int) - 128) <= 1).all()
    edge = np.zeros((2, 2, 3), dtype=np.uint8)
    edge[:, 1] = 255
    assert len(np.unique(fit_picture(edge, FramePlan(size=16)))) > 4


def test_mirror_turns_left_and_right_around(tmp_path: Path) -> None:
    clip = write_numbered_clip(tmp_path / "a.mp4", 3)
    plain = read_clip(str(clip), FramePlan(size=64))
    mirror = read_clip(str(clip), FramePlan(size=64, view="mirror"))
    np.testing.assert_array_equal(mirror.frames, plain.frames[:, :, ::-1])


def test_a_picture_beyond_the_limit_is_too_large(tmp_path: Path) -> None:
    clip = write_numbered_clip(tmp_path / "a.mp4", 3)
    with pytest.raises(UnreadableClip) as failure:
        read_clip(str(clip), FramePlan(max_pixels=1000))
    assert failure.value.reason == "too_large"


def test_a_plan_of_a_spec_refuses_what_it_does_not_know() -> None:
    assert FramePlan.of(Spec(fit="pad")).fit == "pad"
    assert FramePlan.from_dict(FramePlan().to_dict()) == FramePlan()
    with pytest.raises(ConfigError, match="'lanczos' is not known"):
        FramePlan.of(Spec(interpolation="lanczos"))


def _expectations() -> list[dict[str, str]]:
    if not ODD.is_dir():
        return []
    with (ODD / "expected.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@needs_odd
@pytest.mark.parametrize("row", _expectations(), ids=lambda row: row["file"])
def test_odd_files_end_as_expected(row: dict[str, str]) -> None:
    try:
        read = read_clip(str(ODD / row["file"]), FramePlan())
    except UnreadableClip as failure:
        found = ("failed", failure.reason, "")
    else:
        found = ("ready", read.reason, str(read.frames_decoded))
        assert len(read.frames) == min(40, read.frames_decoded)
        assert (np.diff(read.frame_index) > 0).all()
        assert np.isfinite(read.timestamp).all()
    assert found[0] == row["status"]
    assert found[1] in row["reason"].split("|")
    assert found[2] == row["frames_decoded"]
