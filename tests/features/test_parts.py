"""Parts of a file: exactly their frames, of the numbering of the whole file, from one pass over it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.errors import UnreadableClip
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding import ClipFrames, FramePlan, packets, parts, read_clip, video
from pipeline.features.decoding.parts import PartReader
from pipeline.features.decoding.values import ClipSource, FileParts, Part, parts_of
from pipeline.features.sampling import sample_span, sample_times
from pipeline.spans import WHOLE, Span
from pipeline.spec import Sampling
from tests.features.clips import number_in, write_numbered_clip
from tests.opens import watched

RATE, FRAMES = 25, 150
STEPS = 6
B_FRAMES = {"g": "12", "bf": "3"}
JUMPS = [0, 1, 2, 5, 9, 10, 30, 31, 32, 33, 70]
"""Ticks of 1/25 s at which the frames of a clip of variable rate are shown, again and again."""


def variable_times(frames: int) -> list[int]:
    return [JUMPS[i % len(JUMPS)] + i // len(JUMPS) * 75 for i in range(frames)]


CLIPS: dict[str, dict[str, object]] = {
    "b-frames.mp4": {"options": B_FRAMES},
    "b-frames.mkv": {"options": B_FRAMES},
    "variable.mp4": {"options": B_FRAMES, "times": variable_times(FRAMES)},
    "variable.mkv": {"options": {"g": "9"}, "times": variable_times(FRAMES)},
    "late.mp4": {"options": B_FRAMES, "times": range(40, 40 + FRAMES)},
    "plain.avi": {"codec": "mpeg4"},
    "plain.ts": {"options": B_FRAMES},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: write_numbered_clip(folder / name, FRAMES, rate=RATE, **settings)  # type: ignore[arg-type]
        for name, settings in CLIPS.items()
    }


def plan(**sampling: object) -> FramePlan:
    values: dict[str, object] = {"steps": STEPS, **sampling}
    return FramePlan(sampling=Sampling(**values), fit="whole", size=160)  # type: ignore[arg-type]


def decoded(path: Path) -> tuple[list[Fraction], list[int]]:
    """Time and painted number of every frame, by plain PyAV and nothing of ours."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stamp = "dts" if path.suffix == ".avi" else "pts"
        frames = [
            (getattr(f, stamp) * stream.time_base, number_in(f.to_ndarray(format="rgb24")))
            for f in container.decode(stream)
        ]
    return [time - frames[0][0] for time, _ in frames], [number for _, number in frames]


def some_spans(times: list[Fraction], seed: int) -> list[Span]:
    """Spans of all kinds: on frames and between them, overlapping, one frame long, open, past the end."""
    rng = random.Random(seed)
    exact = [float(t) for t in times]
    end = exact[-1]
    spans = [WHOLE, Span(end), Span(0.0, exact[1]), Span(end / 2, end + 9), Span(start_frame=140)]
    spans += [Span(start_frame=3, end_frame=4), Span(start_frame=100, end_frame=999)]
    while len(spans) < 30:
        start, stop = sorted(rng.sample(exact, 2))
        if rng.random() < 0.5:
            start, stop = start + rng.uniform(0, 0.3), stop + rng.uniform(0, 0.3)
        span = Span(start, stop) if rng.random() < 0.7 else None
        first = rng.randrange(0, FRAMES - 1)
        spans.append(span or Span(start_frame=first, end_frame=rng.randrange(first + 1, FRAMES)))
    return spans


def inside(span: Span, times: list[Fraction], tick: Fraction) -> list[int]:
    """The frames in a span, by exact arithmetic; a bound is on a frame if the file's ticks can say so."""
    if span.start_frame is not None:
        return list(range(len(times)))[span.start_frame : span.end_frame]
    low = Fraction(span.start_s or 0)
    high = Fraction(10**9) if span.end_s is None else Fraction(span.end_s)
    slack = (tick / 2 if tick <= Fraction(2, 1000) else 0) + Fraction(1, 10**6)
    return [i for i, t in enumerate(times) if low - slack <= t < high - slack]


def picked(frames: list[int]) -> list[int]:
    """What `uniform` takes of them, as the docs say it."""
    if len(frames) <= STEPS:
        return frames
    return [frames[(2 * k + 1) * len(frames) // (2 * STEPS)] for k in range(STEPS)]


@pytest.fixture(params=["through", "sought"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sought":
        monkeypatch.setattr(parts, "LONG_FRAMES", 1)
    return str(request.param)


def numbers(read: ClipFrames) -> list[int]:
    return [number_in(picture) for picture in read.frames]


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_of_every_span_is_the_right_one(
    clips: dict[str, Path], name: str, way: str
) -> None:
    path = clips[name]
    times, painted = decoded(path)
    assert painted == list(range(FRAMES))
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
    assert tick is not None
    spans = some_spans(times, seed=len(name))
    whole = read_clip(str(path), plan())
    with PartReader(str(path), plan(), spans) as reader:
        order = sorted(range(len(spans)), key=lambda i: spans[i].order)
        for i in order if way == "sought" else reversed(order):
            frames = inside(spans[i], times, tick)
            if not frames:
                with pytest.raises(UnreadableClip, match="empty_segment"):
                    reader.read(i)
                continue
            room = np.zeros(plan().frames_shape, np.uint8)
            read = reader.read(i, room)
            assert np.shares_memory(read.frames, room)
            assert numbers(read) == picked(frames), spans[i]
            assert read.frame_index.tolist() == picked(frames)
            np.testing.assert_allclose(
                read.timestamp, [float(times[f]) for f in picked(frames)], atol=1e-3
            )
            assert read.frames_decoded == len(frames)
            past = spans[i].end_s is not None and spans[i].end_s > float(times[-1]) + 0.2  # type: ignore[operator]
            past |= (spans[i].end_frame or 0) > FRAMES
            assert (read.reason == "fewer_frames") == past, spans[i]
            if spans[i].whole:
                np.testing.assert_array_equal(read.frames, whole.frames)
                assert read.facts == whole.facts
            room[:] = 255  # others write there as soon as a part was read
        assert reader.left == 0


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a file was opened, and how many frames were decoded."""
    counted: Counter[str] = Counter()
    init, frames = video.Video.__init__, video.Video.decoded

    def opened(self: video.Video, *arguments: object) -> None:
        counted["opened"] += 1
        init(self, *arguments)  # type: ignore[arg-type]

    def counting(self: video.Video, packets: Iterable[object]) -> Iterator[object]:
        for raw in frames(self, packets):
            counted["decoded"] += 1
            yield raw

    from pipeline.features.decoding import seeking

    sought = seeking._decoded_from

    def seeking_on(*arguments: object) -> Iterator[object]:
        for raw in sought(*arguments):  # type: ignore[arg-type]
            counted["decoded"] += 1
            yield raw

    monkeypatch.setattr(video.Video, "__init__", opened)
    monkeypatch.setattr(video.Video, "decoded", counting)
    monkeypatch.setattr(seeking, "_decoded_from", seeking_on)
    return counted


@pytest.mark.parametrize("name", ["b-frames.mp4", "variable.mkv", "plain.avi"])
def test_many_spans_are_one_pass(
    clips: dict[str, Path], name: str, way: str, passes: Counter[str]
) -> None:
    spans = [Span(start_frame=i, end_frame=i + 30) for i in range(0, 120, 4)]
    with PartReader(str(clips[name]), plan(), spans) as reader:
        for i in range(len(spans)):
            assert numbers(reader.read(i)) == picked(list(range(4 * i, 4 * i + 30)))
    assert passes["opened"] == 1
    assert passes["decoded"] <= FRAMES


@pytest.mark.parametrize("name", ["variable.mp4", "variable.mkv"])
def test_many_spans_of_a_variable_rate_are_two_passes(
    clips: dict[str, Path], name: str, passes: Counter[str]
) -> None:
    """The rate tells wrong frames, the first part shows it, and the packets tell the right ones."""
    times, _ = decoded(clips[name])
    spans = [Span(t / 2, t / 2 + 3) for t in range(1, 2 * int(times[-1]) - 6)]
    with PartReader(str(clips[name]), plan(), spans) as reader:
        for i, span in enumerate(spans):
            right = picked(inside(span, times, Fraction(1, 1000)))
            assert numbers(reader.read(i)) == right
    assert len(spans) > 20
    assert passes["opened"] <= 3
    assert passes["decoded"] <= 1.2 * FRAMES


def test_a_late_span_of_a_long_file_is_sought(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, passes: Counter[str]
) -> None:
    monkeypatch.setattr(parts, "LONG_FRAMES", 1)
    with PartReader(str(clips["b-frames.mp4"]), plan(), [Span(5.0, 5.2)]) as reader:
        assert numbers(reader.read(0)) == [125, 126, 127, 128, 129]
    assert passes["decoded"] <= 20


def test_packets_are_listed_once_while_the_file_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "LONG_FRAMES", 1)
    listed: list[str] = []
    real = packets.list_packets

    def counted(video: Any, on_progress: Any) -> Any:
        listed.append(video.container.name)
        return real(video, on_progress)

    monkeypatch.setattr(packets, "list_packets", counted)
    path = tmp_path / "a.mp4"

    def read(frames: int) -> list[int]:
        with PartReader(str(path), plan(), [Span(start_frame=2, end_frame=frames)]) as reader:
            return numbers(reader.read(0))

    write_numbered_clip(path, 20, rate=RATE, options=B_FRAMES)
    assert read(5) == read(5) == [2, 3, 4]
    assert len(listed) == 1
    other = write_numbered_clip(tmp_path / "other.mp4", 12, rate=RATE, options={"g": "1"})
    other.replace(path)
    assert read(5) == [2, 3, 4]
    assert len(listed) == 2


@pytest.mark.parametrize("name", ["b-frames.mp4", "variable.mkv"])
def test_plans_that_take_the_same_frames_share_one_pass(
    clips: dict[str, Path], name: str, way: str, passes: Counter[str]
) -> None:
    spans = [Span(start_frame=i, end_frame=i + 40) for i in (90, 20, 60, 0)]
    further = [replace(plan(), size=48, fit="crop"), replace(plan(), size=32, view="mirror")]
    assert len({each.taking for each in (plan(), *further)}) == 1
    order = sorted(range(len(spans)), key=lambda i: spans[i].order)
    with PartReader(str(clips[name]), plan(), spans, further=further) as reader:
        rooms = [np.empty(each.frames_shape, np.uint8) for each in (plan(), *further)]
        read: dict[int, list[ClipFrames]] = {}
        for i in order:
            clips_read = reader.read_each(i, rooms)
            read[i] = [replace(clip, frames=clip.frames.copy()) for clip in clips_read]
            for room in rooms:
                room[:] = 255  # others write there as soon as a part was read
    if name == "b-frames.mp4":
        assert passes["opened"] == 1
        assert passes["decoded"] <= FRAMES
    for number, its in enumerate((plan(), *further)):
        with PartReader(str(clips[name]), its, spans) as alone:
            for i in order:
                wanted, got = alone.read(i), read[i][number]
                np.testing.assert_array_equal(got.frames, wanted.frames)
                np.testing.assert_array_equal(got.frame_index, wanted.frame_index)
                assert got.facts == pytest.approx(wanted.facts, nan_ok=True)
                assert got.reason == wanted.reason


def test_what_does_not_fit_into_memory_is_decoded_again(
    clips: dict[str, Path], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MOST_KEPT_BYTES", 1)
    spans = [WHOLE, *(Span(start_frame=i, end_frame=i + 40) for i in (90, 20, 60, 0))]
    with PartReader(str(clips["b-frames.mkv"]), plan(), spans) as reader:
        for i, span in enumerate(spans):
            right = picked(list(range(FRAMES))[span.start_frame or 0 : span.end_frame])
            assert numbers(reader.read(i)) == right
            assert len(reader._fitted[0].indices) <= STEPS


@pytest.mark.parametrize(
    ("rule", "right"),
    [
        ({"rule": "first"}, [50, 51, 52, 53, 54, 55]),
        ({"rule": "stride", "stride": 10, "offset": 0.0}, [50, 60, 70, 80, 90]),
        ({"rule": "fps", "fps": 2.5, "offset": 0.5}, [55, 65, 75, 85, 95]),
        ({"rule": "fps", "fps": 5.0, "offset": 0.0}, [50, 55, 60, 65, 70, 75]),
    ],
)
def test_every_rule_sees_the_segment_alone(
    clips: dict[str, Path], way: str, rule: dict[str, object], right: list[int]
) -> None:
    with PartReader(str(clips["b-frames.mp4"]), plan(**rule), [Span(2.0, 4.0)]) as reader:
        read = reader.read(0)
    assert numbers(read) == right
    assert read.frame_index.tolist() == right


def test_windows_stay_within_the_segment(clips: dict[str, Path], way: str) -> None:
    asked = FramePlan(sampling=Sampling(steps=3), fit="whole", size=160, window=4, gap_s=3 / RATE)
    with PartReader(str(clips["b-frames.mp4"]), asked, [Span(2.0, 2.8)]) as reader:
        read = reader.read(0)
    assert read.windows is not None
    shown = [[number_in(read.frames[place]) for place in row] for row in read.windows]
    assert shown == [[50, 53, 56, 59], [57, 60, 63, 66], [60, 63, 66, 69]]
    assert read.gaps_s == pytest.approx(np.full(3, 3 / RATE))


@pytest.mark.parametrize("seconds", [(2.0, 2.8), (2.0, 2.2), (1.0, 6.0)])
def test_windows_of_a_part_are_those_of_a_file_that_is_the_part(
    clips: dict[str, Path], tmp_path: Path, way: str, seconds: tuple[float, float]
) -> None:
    """Also where the gap is given in frames, and where the part is shorter than a window."""
    first, last = (round(bound * RATE) for bound in seconds)
    alone = write_numbered_clip(tmp_path / "alone.mp4", last - first, rate=RATE)
    for spaced in ({"gap": 2}, {"gap": 5}, {"gap_s": 2 / RATE}, {"gap_s": 5 / RATE}):
        asked = replace(plan(), window=4, **spaced)  # type: ignore[arg-type]
        with PartReader(str(clips["b-frames.mp4"]), asked, [Span(*seconds)]) as reader:
            part = reader.read(0)
        file = read_clip(str(alone), asked)
        assert part.windows is not None
        assert file.windows is not None
        assert part.windows.tolist() == file.windows.tolist(), spaced
        assert numbers(part) == [number + first for number in numbers(file)], spaced
        assert part.reason == file.reason
        assert part.gaps_s == pytest.approx(file.gaps_s)


def test_rows_that_follow_each_other_are_sampled_as_one() -> None:
    """At `fps`, consecutive spans take what the rule takes of the whole."""
    times = np.arange(1000) / 30
    whole = Sampling(rule="fps", fps=2.0, steps=10_000)
    right = sample_times(whole, times, frame_s=1 / 30).tolist()
    rows = Sampling(rule="fps", fps=2.0, steps=10)
    taken: list[int] = []
    for start in range(0, 35, 5):
        span = Span(float(start), float(start + 5))
        taken += sample_span(rows, times, span, frame_s=1 / 30)[2].tolist()
    assert taken == right


def test_one_process_reads_all_parts_of_a_file_and_others_go_on(clips: dict[str, Path]) -> None:
    path, other = str(clips["b-frames.mp4"]), str(clips["plain.avi"])
    sources = [ClipSource(other), *(ClipSource(path, -1, Span(t, t + 1.0)) for t in range(5))]
    sources += [ClipSource(path, -1, Span(0.0, 6.0), "known")]
    order, asked = parts_of(sources)
    assert order == [0, 1, 2, 3, 4, 5, 6]
    assert 0 not in asked
    with DecoderPool(plan(), processes=2) as pool:
        futures = [
            pool.submit(s.path, s.size_bytes, *([asked[i]] if i in asked else []))
            for i, s in enumerate(sources)
        ]
        read = [future.result(60) for future in futures]
        assert [numbers(r) for r in read[1:6]] == [
            picked(list(range(t * RATE, (t + 1) * RATE))) for t in range(5)
        ]
        assert len({r.sha256 for r in read[1:]}) == 1
        assert len(read[1].sha256) == len(read[0].sha256) == 64
        for r in read:
            r.release()
        known = Part(FileParts((WHOLE,), "known"), 0)
        again = pool.submit(path, -1, known).result(60)
        assert again.sha256 == "known"
        assert numbers(again) == picked(list(range(FRAMES)))
        gone = Part(FileParts((Span(77.0), Span(1.0, 2.0))), 0)
        with pytest.raises(UnreadableClip, match="empty_segment: no frame lies in t=77"):
            pool.submit(path, -1, gone).result(60)


def test_a_file_is_opened_and_hashed_once_for_all_of_its_parts(clips: dict[str, Path]) -> None:
    """Counted outside of our code: as many openings for twelve parts as for one."""
    path = clips["b-frames.mp4"]
    counts = []
    with DecoderPool(plan(), processes=2) as pool, watched(path) as opens:
        for number in (1, 12):
            sources = [ClipSource(str(path), -1, Span(t / 4, t / 4 + 2)) for t in range(number)]
            order, asked = parts_of(sources)
            futures = [pool.submit(str(path), -1, asked[i]) for i in order]
            for future in futures:
                future.result(60).release()
            counts.append(opens.count())
    assert counts[0] == counts[1]
    assert 0 < counts[0] <= 4


def test_a_crash_in_one_part_costs_that_part_alone(
    clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that had the file open is gone: the next part opens it again."""
    path = clips["b-frames.mp4"]
    with DecoderPool(plan(), processes=1) as pool:
        of = FileParts((Span(0.0, 1.0), Span(1.0, 2.0), Span(2.0, 3.0)))
        assert numbers(pool.submit(str(path), -1, Part(of, 0)).result(60))[0] == 2
        next(iter(pool._children.values())).kill()
        second = pool.submit(str(path), -1, Part(of, 1))
        error = second.exception(60)
        third = pool.submit(str(path), -1, Part(of, 2)).result(60)
        assert error is None or isinstance(error, UnreadableClip)
        assert numbers(third)[0] == 52


@pytest.mark.parametrize("packet", [30, 75, 140])
def test_a_damaged_packet_costs_its_frame_in_whichever_part(
    clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packet: int
) -> None:
    """Seeking meets the damage, and the file is read through from there on."""
    data = bytearray(clips["b-frames.mp4"].read_bytes())
    with av.open(str(clips["b-frames.mp4"])) as container:
        found = [p for p in container.demux(video=0) if p.size]
    at, size = found[packet].pos, found[packet].size
    assert at is not None
    data[at + 8 : at + size] = bytes(size - 8)  # the lengths of its units stay
    path = tmp_path / "damaged.mp4"
    path.write_bytes(bytes(data))
    spans = [Span(i / 2, i / 2 + 1.0) for i in range(10)]

    def read() -> list[tuple[list[int], list[int], str]]:
        with PartReader(str(path), plan(), spans) as reader:
            each = [reader.read(i) for i in range(len(spans))]
        return [(r.frame_index.tolist(), numbers(r), r.reason) for r in each]

    through = read()
    monkeypatch.setattr(parts, "LONG_FRAMES", 1)
    assert read() == through
    with video.Video(str(path)) as reference:
        count = sum(1 for _ in reference)
    assert through[-1][0][-1] < count
