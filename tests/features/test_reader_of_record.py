"""One account of a clip: its stream, shape and times are FFmpeg's, and no header bounds the reading."""

from __future__ import annotations

import gc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flows.data.scan import look_at
from flows.extract.artifacts import markdown
from flows.extract.request import stage_of
from flows.extract.summary import Summary
from flows.settings.features import FeaturesSettings
from pipeline import spec as spec_module
from pipeline.errors import ConfigError, SpecMismatch, UnreadableClip
from pipeline.features.catalog import discover
from pipeline.features.decoding import FramePlan, read_clip, seeking
from pipeline.features.decoding.pictures import fit_picture
from pipeline.features.decoding.video import Video
from pipeline.features.sampling import sample_indices, sample_times
from pipeline.spec import Sampling, Spec

from .clips import number_in, numbered_picture, write_numbered_clip


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_interlaced_clips_give_their_own_frames(tmp_path: Path, codec: str) -> None:
    options = {"flags": "+ildct+ilme", "b": "4M"}
    if codec == "libx264":
        options = {"preset": "ultrafast", "x264-params": "tff=1"}
    ending = "mpg" if codec == "mpeg2video" else "mp4"
    clip = write_numbered_clip(tmp_path / f"a.{ending}", 24, codec=codec, options=options)
    with Video(str(clip)) as video:
        assert next(iter(video)).raw.interlaced_frame
    read = read_clip(str(clip), FramePlan(sampling=Sampling(steps=8), size=96))
    assert [number_in(picture) for picture in read.frames] == read.frame_index.tolist()


def test_frames_that_were_read_are_freed_without_a_garbage_collection(tmp_path: Path) -> None:
    # A frame that is part of a reference cycle keeps its buffer: 12 MB of a 4K picture.
    clip = write_numbered_clip(tmp_path / "a.mp4", 40)
    gc.collect()
    gc.disable()
    try:
        read_clip(str(clip), FramePlan(sampling=Sampling(steps=8), size=96))
        assert not any(isinstance(one, av.VideoFrame) for one in gc.get_objects())
    finally:
        gc.enable()


def test_a_rate_goes_by_the_frames_times(tmp_path: Path) -> None:
    # 25 frames in the first second, then one each second.
    times = [*range(25), *range(25, 25 + 20 * 25, 25)]
    clip = write_numbered_clip(tmp_path / "a.mp4", 45, times=times)
    plan = FramePlan(sampling=Sampling(rule="fps", fps=2.0, steps=12), size=96)
    read = read_clip(str(clip), plan)
    assert read.frame_index.tolist() == [6, 18, *range(25, 35)]
    assert [number_in(picture) for picture in read.frames] == read.frame_index.tolist()
    np.testing.assert_allclose(read.timestamp[:4], [0.24, 0.72, 1.0, 2.0], atol=1e-3)


@given(
    steps=st.integers(1, 60),
    offset=st.sampled_from([0.0, 0.3, 0.5]),
    frames=st.integers(1, 400),
    rate=st.sampled_from([5.0, 23.976, 24.0, 25.0, 29.97, 50.0]),
    wanted=st.sampled_from([0.7, 2.0, 5.0, 12.5, 25.0, 60.0]),
)
@example(steps=8, offset=0.0, frames=14, rate=25.0, wanted=12.5)  # 13 / 25 + 1 / 25 > 0.56
def test_at_a_constant_rate_time_and_count_agree(
    steps: int, offset: float, frames: int, rate: float, wanted: float
) -> None:
    sampling = Sampling(rule="fps", fps=wanted, steps=steps, offset=offset)
    gap = max(1.0, rate / wanted)
    start = offset * min(gap, frames)
    counted = np.floor(start + np.arange(steps) * gap + 1e-4)
    counted = counted[counted < frames].astype(int).tolist()
    found = sample_times(sampling, np.arange(frames) / rate, frame_s=1 / rate)
    assert found.tolist() == counted == sample_indices(sampling, frames, rate).tolist()


def test_a_moment_at_which_nothing_new_is_shown_adds_nothing() -> None:
    sampling = Sampling(rule="fps", fps=2.0, steps=10)
    found = sample_times(sampling, np.array([0.0, 0.1, 3.0, 3.05, 3.1]), frame_s=0.5)
    assert found.tolist() == [1, 4]


def test_a_cover_is_no_clip_and_the_largest_default_video_is(tmp_path: Path) -> None:
    clip = tmp_path / "a.mkv"
    with av.open(str(clip), "w") as container:
        streams = []
        for side, flag in ((96, "comment"), (64, "default"), (80, "default")):
            stream = container.add_stream("mpeg4", rate=25)
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            stream.disposition = getattr(av.stream.Disposition, flag)
            streams.append(stream)
        for number in range(5):
            for stream in streams:
                picture = numbered_picture(number, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    read = read_clip(str(clip), FramePlan(size=80))
    look = look_at(str(clip))
    assert (read.width, read.height) == (look.width, look.height) == (80, 80)
    assert [number_in(picture) for picture in read.frames] == list(range(5))


@pytest.mark.parametrize("name", ["list.mp4", "list.ffconcat"])
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'secret.mp4'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_a_text_that_names_other_files_opens_none_of_them(
    tmp_path: Path, name: str, text: str
) -> None:
    write_numbered_clip(tmp_path / "secret.mp4", 5)
    (tmp_path / name).write_text(text)
    with pytest.raises(UnreadableClip) as failure:
        read_clip(str(tmp_path / name), FramePlan(size=32))
    assert failure.value.reason == "unreadable"
    assert look_at(str(tmp_path / name)).reason == "unreadable"


def test_a_picture_is_no_clip(tmp_path: Path) -> None:
    still = tmp_path / "frame_%03d.mp4"
    with Video(str(write_numbered_clip(tmp_path / "a.mp4", 1))) as video:
        next(iter(video)).raw.save(str(tmp_path / "a.png"))
    (tmp_path / "a.png").rename(still)
    with pytest.raises(UnreadableClip, match="unreadable"):
        read_clip(str(still), FramePlan(size=32))


def clip_with_aspect(path: Path, aspect: Fraction) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for number in range(3):
            picture = np.zeros((96, 96, 3), np.uint8)
            picture[:, 32:64] = 200  # the middle third, shown twice as wide
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            assert number >= 0
        container.mux(stream.encode(None))
    return path


def test_pixels_are_shown_in_their_shape_unless_the_spec_says_as_stored(tmp_path: Path) -> None:
    clip = str(clip_with_aspect(tmp_path / "a.mp4", Fraction(2)))
    shown = read_clip(clip, FramePlan(size=96, aspect="display"))
    stored = read_clip(clip, FramePlan(size=96, aspect="stored"))
    assert shown.pixel_aspect == stored.pixel_aspect == 2.0
    assert (shown.width, shown.height) == (96, 96)

    def bright(picture: np.ndarray) -> int:
        return int((picture.mean(axis=(0, 2)) > 100).sum())

    assert abs(bright(stored.frames[0]) - 32) <= 1
    assert abs(bright(shown.frames[0]) - 64) <= 1  # of 192 columns the middle 96 are taken
    padded = read_clip(clip, FramePlan(size=96, fit="pad")).frames[0]
    assert not padded[:23].any()
    assert padded[26:70].mean(axis=(0, 2)).max() > 150


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.094, 2.0])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_every_fit_fills_its_square_whatever_the_aspect(fit: str, aspect: float) -> None:
    picture = np.full((97, 161, 3), 90, np.uint8)
    fitted = fit_picture(picture, FramePlan(size=64, fit=fit), aspect)  # type: ignore[arg-type]
    shown = fitted.any(axis=2)
    if fit == "pad":
        width, height = 161 * aspect, 97
        wanted = round(64 * min(width, height) / max(width, height)) * 64
        assert int(shown.sum()) == wanted
    else:
        assert shown.all()


def test_an_older_spec_means_pixels_as_stored_and_keeps_its_fingerprint() -> None:
    old = Spec()
    assert "aspect" not in old.to_dict()
    assert FramePlan.of(Spec.from_dict(old.to_dict())).aspect == "stored"
    new = Spec(aspect="display")
    assert Spec.from_dict(new.to_dict()) == new
    assert new.fingerprint != old.fingerprint
    assert old.differences(new) == {"aspect": ("stored", "display")}
    with pytest.raises(ConfigError, match="'wide' is not known"):
        Spec(aspect="wide")  # type: ignore[arg-type]


def test_the_fingerprints_of_existing_stores_stay_what_they_are() -> None:
    """A field that came since the first stores, in the spec or in its sampling, is in `_LATER`."""
    assert Spec().fingerprint == "ae92a4de1ab700da1faab6e22cada925edc97d2420e6b27bc3b408a57bccadb1"


def test_a_later_field_of_the_sampling_too_is_left_out_at_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(spec_module._LATER, "sampling.offset", 0.5)
    old, new = Spec(), Spec(sampling=Sampling(offset=0.25))
    assert "offset" not in old.to_dict()["sampling"]
    assert new.to_dict()["sampling"]["offset"] == 0.25
    for spec in (old, new):
        assert Spec.from_dict(spec.to_dict()) == spec
    assert old.differences(new) == {"sampling.offset": (0.5, 0.25)}
    assert new.differences(old) == {"sampling.offset": (0.25, 0.5)}


@pytest.mark.parametrize(("width", "height"), [(161, 97), (97, 161), (160, 97)])
def test_odd_sides_are_kept(tmp_path: Path, width: int, height: int) -> None:
    clip = write_numbered_clip(tmp_path / "a.mkv", 3, codec="ffv1", width=width, height=height)
    read = read_clip(str(clip), FramePlan(size=min(width, height)))
    assert (read.width, read.height) == (width, height)
    with Video(str(clip)) as video:
        for frame in video:
            whole = video.picture(frame)
            assert whole.shape == (height, width, 3)
            square = video.picture(frame, square_aspect=1.0)
            across, down = (width - square.shape[1]) // 2, (height - square.shape[0]) // 2
            inner = whole[down : height - down, across : width - across]
            np.testing.assert_array_equal(square, inner)


def test_files_of_other_endings_are_named_in_one_line(tmp_path: Path) -> None:
    write_numbered_clip(tmp_path / "a.mp4", 1)
    for name in ("b.mp5", "c.mp5", "readme", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"3 files under .*: 2 \.mp5, 1 without an ending") as seen:
        catalog = discover(str(tmp_path))
    assert catalog["video_id"].tolist() == ["a.mp4"]
    assert len(seen) == 1


def test_a_damaged_packet_in_a_long_clip_is_not_sought_over(tmp_path: Path) -> None:
    options = {"preset": "ultrafast", "g": "20"}
    clip = write_numbered_clip(tmp_path / "a.mp4", seeking.LONG_FRAMES + 100, options=options)
    with av.open(str(clip)) as container:
        start, size = next((p.pos, p.size) for p in container.demux(video=0) if p.pts == 333 * 512)
    data = bytearray(clip.read_bytes())
    data[start : start + size] = bytes(size)
    clip.write_bytes(bytes(data))
    plan = FramePlan(sampling=Sampling(steps=7), size=96)
    sought = read_clip(str(clip), plan)
    assert sought.frames_decoded == seeking.LONG_FRAMES + 99
    assert sought.reason == "fewer_frames"


def test_a_new_store_shows_pixels_in_their_shape_and_an_older_one_stays_as_it_is() -> None:
    settings = FeaturesSettings(backbone="frames", store="clips.zarr")
    new, _, _ = stage_of(settings, None)
    assert new.aspect == "display"
    old = Spec.from_dict({**new.to_dict(), "aspect": "stored"})
    existing = SimpleNamespace(spec=old.to_dict(), attributes={})
    resumed, stage, _ = stage_of(settings, existing)
    assert resumed.fingerprint == old.fingerprint
    assert "aspect" not in stage.spec
    with pytest.raises(SpecMismatch, match="aspect is stored there and display here"):
        stage_of(replace(settings, aspect="display"), existing)


def test_a_summary_counts_warnings_by_reason() -> None:
    summary = Summary(
        store="a.zarr", outcome="done", clips=5, planned=5, ready=5, warnings={"times_mended": 2}
    )
    assert "5 ready, 0 failed of 5 clips · with a warning: 2 times_mended" in summary.headline()
    assert "| ready, times_mended | 2 |" in markdown(summary)
