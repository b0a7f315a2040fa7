"""Files that are longer than a sequence: how long they are, and what a sequence leaves out of them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import UnreadableClip
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding import FramePlan, read_clip, reading, seeking
from pipeline.features.decoding.lengths import packet_times, rows_of_file
from pipeline.features.decoding.parts import PartReader
from pipeline.features.decoding.video import Video
from pipeline.spans import Span
from pipeline.spec import Sampling
from tests.features.clips import write_numbered_clip

RATE, FRAMES = 25, 120
KINDS: dict[str, dict[str, object]] = {
    "b.mp4": {"options": {"g": "12", "bf": "3"}},
    "b.mkv": {"options": {"g": "12", "bf": "3"}},
    "b.ts": {"options": {"g": "12", "bf": "2"}},
    "plain.avi": {"codec": "mpeg4"},
    "raw.h264": {"options": {"g": "12", "bf": "0"}},
    "variable.mp4": {"times": [i * 2 + (i // 7) * 9 for i in range(FRAMES)]},
    "slides.mp4": {"options": {"g": "12", "bf": "3"}, "times": range(0, 75 * FRAMES, 75)},
    "slides.mkv": {"options": {"g": "12", "bf": "3"}, "times": range(0, 75 * FRAMES, 75)},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: write_numbered_clip(folder / name, FRAMES, rate=RATE, **settings)  # type: ignore[arg-type]
        for name, settings in KINDS.items()
    }


def decoded_times(path: Path) -> np.ndarray:
    """By plain PyAV, which decodes; frames without stamps follow each other at 25 a second."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        frames = list(container.decode(stream))
        stamps = [f.dts if path.suffix == ".avi" else f.pts for f in frames]
        if path.suffix == ".h264":
            return np.arange(len(frames)) / RATE
        return np.array([float((s - stamps[0]) * stream.time_base) for s in stamps])


@pytest.mark.parametrize("name", KINDS)
def test_packets_say_when_frames_are_shown(clips: dict[str, Path], name: str) -> None:
    with Video(str(clips[name])) as video:
        times = packet_times(video, lambda: None)
    right = decoded_times(clips[name])
    assert len(times) == len(right) == FRAMES
    np.testing.assert_allclose(times, right, atol=2e-3 if name != "raw.h264" else 0.03)


def test_rows_are_those_that_arithmetic_says(clips: dict[str, Path], tmp_path: Path) -> None:
    def rows(path: Path, fps: float, steps: int) -> list[int]:
        return rows_of_file(str(path), steps / fps, 0.5 / fps)

    # 4.8 s at 2 steps a second are moments at 0.25, …, 4.75: ten steps.
    for steps, count in ((10, 1), (9, 2), (5, 2), (4, 3), (1, 10)):
        assert rows(clips["b.mp4"], 2.0, steps) == list(range(count))
    exact = write_numbered_clip(tmp_path / "exact.mp4", 100)
    assert rows(exact, 2.0, 4) == [0, 1]
    # Four frames behind the second row, and no moment among them: nothing is lost that is sampled.
    assert rows(write_numbered_clip(tmp_path / "a.mp4", 104), 2.0, 4) == [0, 1]
    assert rows(write_numbered_clip(tmp_path / "b.mp4", 107), 2.0, 4) == [0, 1, 2]
    assert rows(write_numbered_clip(tmp_path / "one.mp4", 1), 2.0, 4) == [0]
    # Slides: no frame begins in the rows between.
    slides = write_numbered_clip(tmp_path / "slides.mp4", 3, times=[0, 10, 250])
    assert rows(slides, 2.0, 4) == [0, 5]


def test_lengths_are_asked_in_a_process_of_their_own(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    with DecoderPool(FramePlan(size=8), processes=1) as pool:
        asked = [
            pool.rows(str(p), -1, row_s=2.0, first_s=0.25)
            for p in (clips["b.mkv"], bad, tmp_path / "gone.mp4", clips["b.ts"])
        ]
        assert asked[0].result(60) == asked[3].result(60) == [0, 1, 2]
        for future, reason in ((asked[1], "unreadable"), (asked[2], "missing")):
            with pytest.raises(UnreadableClip, match=reason):
                future.result(60)
        frames = pool.submit(str(clips["b.mp4"])).result(60)
        assert len(frames) == 40
        frames.release()


@pytest.fixture(params=["through", "sought"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sought":
        monkeypatch.setattr(seeking, "LONG_FRAMES", 1)
        monkeypatch.setattr(seeking, "LARGEST_SHARE", 1e9)
        monkeypatch.setattr(reading, "read_through", None)
    return str(request.param)


@pytest.mark.parametrize(
    ("rule", "next_step"),
    [
        ({"rule": "first"}, 10),
        ({"rule": "stride", "stride": 11, "offset": 0.0}, 110),
        ({"rule": "stride", "stride": 12, "offset": 0.0}, None),
        ({"rule": "fps", "fps": 5.0}, 52),
        ({"rule": "fps", "fps": 2.0}, None),
        ({"rule": "fps", "fps": 2.1, "offset": 0.0}, 119),
        ({"rule": "uniform"}, None),
    ],
)
@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
def test_a_clip_that_is_cut_short_says_by_how_much(
    clips: dict[str, Path], name: str, way: str, rule: dict[str, object], next_step: int | None
) -> None:
    plan = FramePlan(sampling=Sampling(steps=10, **rule), size=16)  # type: ignore[arg-type]
    read = read_clip(str(clips[name]), plan)
    left_s = 0.0 if next_step is None else (FRAMES - next_step) / RATE
    assert read.cut_off_s == pytest.approx(left_s, abs=2e-3)
    assert read.reason == ("" if next_step is None else "cut_off")


@pytest.mark.parametrize("name", ["b.ts", "plain.avi", "raw.h264"])
def test_whatever_the_container(clips: dict[str, Path], name: str) -> None:
    plan = FramePlan(sampling=Sampling(rule="first", steps=10), size=16)
    read = read_clip(str(clips[name]), plan)
    assert read.cut_off_s == pytest.approx((FRAMES - 10) / RATE, abs=0.05)
    almost = FramePlan(sampling=Sampling(rule="first", steps=FRAMES - 1), size=16)
    assert read_clip(str(clips[name]), almost).reason == "cut_off"
    whole = FramePlan(sampling=Sampling(rule="first", steps=FRAMES), size=16)
    assert read_clip(str(clips[name]), whole).reason == ""


def test_a_part_is_cut_short_at_its_own_end(clips: dict[str, Path]) -> None:
    plan = FramePlan(sampling=Sampling(rule="fps", fps=5.0, steps=4), size=16)
    with PartReader(str(clips["b.mp4"]), plan, [Span(1.0, 1.8), Span(1.0, 2.0)]) as reader:
        exact, longer = reader.read(0), reader.read(1)
    assert (exact.reason, exact.cut_off_s) == ("", 0.0)
    assert longer.reason == "cut_off"
    assert longer.cut_off_s == pytest.approx(2.0 - 47 / RATE)
