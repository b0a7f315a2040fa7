"""Reading clips: the right frames, upright, in RGB, at their times, by whichever decoder."""

from __future__ import annotations

import csv
import os
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import ConfigError, UnreadableClip
from pipeline.features.decoding import FramePlan, read_clip, seeking
from pipeline.features.decoding.parts import PartReader
from pipeline.features.decoding.pictures import fit_picture
from pipeline.features.decoding.values import DecoderFacts
from pipeline.features.decoding.video import Video
from pipeline.features.sampling import sample_indices
from pipeline.spans import Span
from pipeline.spec import Sampling, Spec

from .clips import number_in, write_numbered_clip

CLIPS = Path(os.environ.get("PIXELS_ONCE_SHARED", Path(__file__).parents[3] / "shared")) / "clips"
needs_odd = pytest.mark.skipif(
    not (CLIPS / "odd").is_dir(), reason="the shared clips are not here (PIXELS_ONCE_SHARED)"
)
H264_B = {"preset": "ultrafast", "x264-params": "bframes=2:b-adapt=0:keyint=50:scenecut=0"}


def whole(steps: int = 40, **settings: object) -> FramePlan:
    """A plan whose fit keeps the numbers readable: the picture's own height, cropped."""
    return FramePlan(sampling=Sampling(steps=steps, **settings), size=96)  # type: ignore[arg-type]


def numbers(path: Path, plan: FramePlan) -> list[int]:
    return [number_in(picture) for picture in read_clip(str(path), plan).frames]


@pytest.fixture
def seeks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each clip that seeking was tried on was sought through."""
    tried: list[bool] = []
    plain = seeking.read_by_seeking

    def noting(*arguments: object) -> object:
        result = plain(*arguments)  # type: ignore[arg-type]
        tried.append(result is not None)
        return result

    monkeypatch.setattr(seeking, "read_by_seeking", noting)
    return tried


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
    assert read.reason == "cut_off"


@pytest.mark.parametrize("claim", [90, 200, 30, 0])
@pytest.mark.parametrize(
    "rule", [{}, {"rule": "fps", "fps": 5.0}, {"rule": "stride", "stride": 7}, {"rule": "first"}]
)
def test_a_headers_count_bounds_nothing_and_costs_at_most_a_second_pass(
    tmp_path: Path, claim: int, rule: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_numbered_clip(tmp_path / "a.mkv", 90)
    plan = whole(8, **rule)
    opened: list[Video] = []
    plain = Video.__init__

    def claiming(video: Video, *arguments: object) -> None:
        plain(video, *arguments)  # type: ignore[arg-type]
        video.declared = claim
        opened.append(video)

    monkeypatch.setattr(Video, "__init__", claiming)
    read = read_clip(str(clip), plan)
    expected = sample_indices(plan.sampling, 90, 25.0).tolist()
    assert [number_in(picture) for picture in read.frames] == expected
    assert read.frame_index.tolist() == expected
    assert len(opened) == (2 if not rule and claim in (200, 30) else 1)


def test_a_damaged_packet_costs_its_own_frames_and_what_follows_is_read(tmp_path: Path) -> None:
    clip = write_numbered_clip(tmp_path / "a.mp4", 90, options={"g": "1", "preset": "ultrafast"})
    with av.open(str(clip)) as container:
        sizes = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(clip.read_bytes())
    start, size = sizes[40]
    data[start : start + size] = bytes(size)
    clip.write_bytes(bytes(data))
    read = read_clip(str(clip), whole(90))
    assert (read.frames_decoded, read.reason) == (89, "fewer_frames")
    assert [number_in(picture) for picture in read.frames] == [*range(40), *range(41, 90)]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9"])
def test_seeking_gives_the_same_frames_pixel_for_pixel(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch, seeks: list[bool]
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
    assert seeks == [True]
    monkeypatch.setattr(seeking, "LONG_FRAMES", 10**9)
    through = read_clip(str(clip), plan)
    assert seeks == [True]
    assert [number_in(picture) for picture in sought.frames] == sought.frame_index.tolist()
    np.testing.assert_array_equal(sought.frames, through.frames)
    np.testing.assert_array_equal(sought.frame_index, through.frame_index)
    np.testing.assert_allclose(sought.timestamp, through.timestamp, atol=1e-3)
    assert (sought.frames_decoded, sought.fps) == (through.frames_decoded, through.fps)


def test_seeking_decodes_no_more_than_from_each_keyframe_on(
    tmp_path: Path, seeks: list[bool]
) -> None:
    clip = write_numbered_clip(tmp_path / "a.mp4", 900, options=H264_B)
    steps: list[int] = []
    read_clip(str(clip), whole(4), on_progress=lambda: steps.append(1))
    assert seeks == [True]
    assert len(steps) - 900 <= 4 * 50  # every packet is listed once, then a segment for each


def test_seeking_keeps_to_uneven_times(tmp_path: Path, seeks: list[bool]) -> None:
    times = [k + k // 3 for k in range(900)]
    clip = write_numbered_clip(tmp_path / "a.mp4", 900, options=H264_B, times=times)
    read = read_clip(str(clip), whole(9))
    assert seeks == [True]
    assert [number_in(picture) for picture in read.frames] == read.frame_index.tolist()
    expected = [times[index] / 25.0 for index in read.frame_index.tolist()]
    np.testing.assert_allclose(read.timestamp, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt", "options"),
    [
        ("avi", "mpeg4", "yuv420p", {"bf": "2"}),  # times that run backwards
        ("mp4", "libx264", "yuv420p10le", {"preset": "ultrafast"}),  # ten bit
        ("mp4", "libx264", "yuv420p", {"preset": "ultrafast", "g": "2000"}),  # one keyframe
        # Its recovery points carry the keyframe flag and need what came before.
        (
            "mp4",
            "libx264",
            "yuv420p",
            {"preset": "ultrafast", "x264-params": "intra-refresh=1:keyint=50"},
        ),
    ],
)
def test_clips_that_cannot_be_sought_exactly_or_cheaply_are_read_through(
    tmp_path: Path,
    ending: str,
    codec: str,
    pix_fmt: str,
    options: dict[str, str],
    seeks: list[bool],
) -> None:
    clip = write_numbered_clip(
        tmp_path / f"a.{ending}", 700, codec=codec, pix_fmt=pix_fmt, options=options
    )
    read = read_clip(str(clip), whole(9))
    assert seeks == [False]
    assert [number_in(picture) for picture in read.frames] == read.frame_index.tolist()


def test_a_long_clip_that_is_cut_short_is_read_through_and_warned(tmp_path: Path) -> None:
    clip = write_numbered_clip(tmp_path / "a.mkv", 900, options=H264_B)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    read = read_clip(str(cut), whole(9))
    assert 100 < read.frames_decoded < 800
    assert [number_in(picture) for picture in read.frames] == read.frame_index.tolist()


MATRICES = {
    # what the matrix does: (a, b, c, d), and the same by NumPy
    "90": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "180": ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    "270": ((0, -1, 1, 0), np.rot90),
    "left and right": ((-1, 0, 0, 1), np.fliplr),
    "upside down": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.swapaxes(0, 1)),
    "turned and mirrored": ((0, -1, -1, 0), lambda picture: np.rot90(picture, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("turn", MATRICES)
def test_frames_are_upright_whatever_the_display_matrix(tmp_path: Path, turn: str) -> None:
    plain = write_numbered_clip(tmp_path / "plain.mp4", 3, width=160, height=96)
    matrix, by_numpy = MATRICES[turn]
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(with_matrix(plain.read_bytes(), matrix))
    with Video(str(plain)) as straight:
        wanted = by_numpy(straight.picture(next(iter(straight))))
    with Video(str(turned)) as video:
        np.testing.assert_array_equal(video.picture(next(iter(video))), wanted)
        assert (video.width, video.height) == wanted.shape[1::-1]


def with_matrix(data: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """An mp4 with the display matrix of its only track set."""
    a, b, c, d = (value << 16 for value in matrix)
    place = data.index(b"tkhd") + 4 + 4 + 20 + 16
    words = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], dtype=">i4").tobytes()
    return data[:place] + words + data[place + 36 :]


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
    assert FramePlan.from_dict(asdict(FramePlan())) == FramePlan()
    with pytest.raises(ConfigError, match="'lanczos' is not known"):
        FramePlan.of(Spec(interpolation="lanczos"))


def _expectations() -> list[tuple[str, dict[str, str]]]:
    rows: list[tuple[str, dict[str, str]]] = []
    for name in ("odd", "cases"):
        if (CLIPS / name).is_dir():
            with (CLIPS / name / "expected.csv").open(encoding="utf-8") as file:
                rows += [(name, row) for row in csv.DictReader(file)]
    return rows


@needs_odd
@pytest.mark.parametrize(
    ("folder", "row"),
    _expectations(),
    ids=lambda value: value if isinstance(value, str) else value["file"],
)
def test_odd_files_end_as_expected(folder: str, row: dict[str, str]) -> None:
    try:
        read = read_clip(str(CLIPS / folder / row["file"]), FramePlan())
    except UnreadableClip as failure:
        found = ("failed", failure.reason, "")
    else:
        found = ("ready", read.reason, str(read.frames_decoded))
        assert len(read.frames) == min(40, read.frames_decoded)
        assert (np.diff(read.frame_index) > 0).all()
        assert np.isfinite(read.timestamp).all()
        assert (np.diff(read.timestamp) > 0).all()
    assert found[0] == row["status"]
    if folder == "odd":
        assert found[1] in row["reason"].split("|")
    assert found[2] == row.get("frames_decoded", row.get("frames"))


@pytest.mark.parametrize("part", [False, True])
def test_every_fact_of_the_decoder_is_filled_in(tmp_path: Path, part: bool) -> None:
    """A fact that is left out would be written as that of a clip that cannot be read."""
    path, plan = str(write_numbered_clip(tmp_path / "a.mp4", 20)), FramePlan(size=96)
    if part:
        with PartReader(path, plan, [Span(start_s=0.2)]) as reader:
            read = reader.read(0)
    else:
        read = read_clip(path, plan)
    unread = DecoderFacts().facts
    left_out = [name for name, fact in read.facts.items() if repr(fact) == repr(unread[name])]
    # The container claims nothing of a part.
    assert left_out == ["frames_declared"] * part
