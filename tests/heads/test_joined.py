"""Streams of the same clips are joined by id and by time, or left out and counted, never mixed up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, SpecMismatch
from pipeline.heads.alignment import APART, IN_ORDER, NEAREST, SAME, StepTimes, align
from pipeline.heads.clips import load_clips
from pipeline.heads.joined_source import JoinedSource, StreamSource
from pipeline.heads.joining import NOT_JOINED
from tests.heads.sources import rising_or_falling
from tests.heads.streams import FPS, TimedSource, clip_name, stream
from tests.sharing import examples

CLIPS = 6
NAMES = ("a", "bb", "ccc")


@st.composite
def catalogs(draw: st.DrawFn) -> list[TimedSource]:
    """Two or three streams of some of six clips, in any order, state and version, at any frames."""
    streams = []
    for name in NAMES[: draw(st.integers(2, 3))]:
        clips = draw(st.lists(st.integers(0, CLIPS - 1), unique=True, min_size=1))
        steps = draw(st.integers(1, 5))
        frames = [
            sorted(draw(st.sets(st.integers(0, 30), min_size=0, max_size=steps))) for _ in clips
        ]
        state = st.sampled_from([1, 1, 1, 1, 0, 2, 3])
        streams.append(
            stream(
                name,
                clips,
                frames,
                steps=steps,
                status=[draw(state) for _ in clips],
                version=[draw(st.sampled_from([0, 0, 0, 1])) for _ in clips],
            )
        )
    return streams


def row_of(source: TimedSource, clip: int) -> int | None:
    """The row of a clip that is ready, by a search of its own."""
    for row, (name, status) in enumerate(
        zip(source.frame["video_id"], source.frame["status"], strict=True)
    ):
        if name == clip_name(clip) and status == 1:
            return row
    return None


def expected(streams: list[TimedSource]) -> dict[int, np.ndarray]:
    """Clip → the numbers of its joined steps, (real steps, streams · 3), one after another."""
    joined = {}
    for clip in range(CLIPS):
        rows = [row_of(source, clip) for source in streams]
        if None in rows:
            continue
        hashes = {source.frame["sha256"][row] for source, row in zip(streams, rows, strict=True)}
        seen = [
            [int(frame) for frame in source.frames[row] if frame >= 0]
            for source, row in zip(streams, rows, strict=True)
        ]
        if len(hashes) > 1 or not all(seen):
            continue
        lines = []
        for frame in seen[0]:
            line: list[int] = []
            for name, there in zip(NAMES, seen, strict=False):
                nearest = min(there, key=lambda other: (abs(other - frame), other))
                line += [clip, len(name), nearest]
            lines.append(line)
        joined[clip] = np.array(lines)
    return joined


@settings(max_examples=examples(120), deadline=None)
@given(catalogs())
def test_every_joined_step_is_of_one_clip_and_the_nearest_time(streams: list[TimedSource]) -> None:
    wanted = expected(streams)
    if not wanted:
        with pytest.raises(ConfigError, match=r"^[^\n]+$"):
            JoinedSource(streams)
        return
    source = JoinedSource(streams)
    table = source.table()
    ready = table[table["status"] == 1]
    assert set(ready["video_id"]) == {clip_name(clip) for clip in wanted}
    read = source.load()
    assert read.rows.tolist() == ready.index.tolist()
    for features, mask, row in zip(read.features, read.mask, read.rows, strict=True):
        clip = int(table.loc[row, "video_id"].removeprefix("clip-").removesuffix(".mp4"))
        np.testing.assert_array_equal(features[mask], wanted[clip])
        assert not features[~mask].any()
    # Every clip that is ready somewhere is joined, counted, or in another state in the first stream.
    first = set(streams[0].frame["video_id"])
    somewhere = {
        name
        for source_ in streams
        for name, status in zip(source_.frame["video_id"], source_.frame["status"], strict=True)
        if status == 1
    }
    other_state = {
        name
        for name, status in zip(
            streams[0].frame["video_id"], streams[0].frame["status"], strict=True
        )
        if status != 1
    }
    counted = len((somewhere & first) - other_state) + len(somewhere - first)
    assert counted == len(wanted) + sum(source.left_out.values())
    assert sum(table["status"] == NOT_JOINED) <= sum(source.left_out.values())


@settings(max_examples=40, deadline=None)
@given(catalogs(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_of_any_stream_changes_nothing(streams, random) -> None:
    try:
        before = JoinedSource(streams)
    except ConfigError:
        return
    shuffled = []
    for source in streams:
        order = list(range(len(source.frame)))
        random.shuffle(order)
        shuffled.append(
            dataclasses.replace(
                source,
                features=source.features[order],
                mask=source.mask[order],
                frames=source.frames[order],
                frame=source.frame.iloc[order].reset_index(drop=True),
            )
        )
    after = JoinedSource(shuffled)
    assert before.fingerprint == after.fingerprint
    assert before.left_out == after.left_out
    one, other = (dict(zip(ids(s), s.load().features, strict=True)) for s in (before, after))
    assert one.keys() == other.keys()
    for name, features in one.items():
        np.testing.assert_array_equal(features, other[name])


def ids(source: JoinedSource) -> list[str]:
    table = source.table()
    return table.loc[table["status"] == 1, "video_id"].tolist()


def pair(**changes) -> list[TimedSource]:
    """Two streams of the clips 0 to 3, the second with changes and in the other order."""
    frames = [[0, 5, 10]] * 4
    return [stream("a", [0, 1, 2, 3], frames), stream("bb", [3, 2, 1, 0], frames, **changes)]


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (
            "label",
            "LABEL 1",
            "another label than a.zarr .clip-3.mp4 for one: 'LABEL 1', not 'label 1'",
        ),
        ("group", "g9", "another group"),
        ("split", "test", "another split"),
    ],
)
def test_streams_that_disagree_on_a_clip_are_refused(column: str, value: str, says: str) -> None:
    one, other = pair()
    one.frame["split"] = "train"
    other.frame["split"] = "Train "  # a split's name is known in any case, with blanks or without
    JoinedSource([one, other])
    other.frame.loc[0, column] = value
    with pytest.raises(SpecMismatch, match=f"1 of 4 clips {says}"):
        JoinedSource([one, other])


def test_what_one_stream_does_not_know_another_says() -> None:
    one, other = pair()
    one.frame["group"], other.frame["label"] = "", ""
    source = JoinedSource([one, other])
    assert source.table()["group"].tolist() == ["g0", "g0", "g1", "g1"]
    assert source.table()["label"].tolist() == one.frame["label"].tolist()


def test_clips_of_other_bytes_or_missing_rows_are_left_out_and_counted() -> None:
    one, other = pair(version=[0, 1, 0, 0], status=[1, 1, 2, 1])
    source = JoinedSource([one, other])
    assert ids(source) == ["clip-0.mp4", "clip-3.mp4"]
    assert source.left_out == {"not_in_every_stream": 1, "other_bytes": 1}
    assert any("1 clips were made from other bytes" in note for note in source.notes)
    clips = load_clips(source)
    assert clips.left_out == source.left_out
    # Without a hash in one of them the size decides.
    one.frame["sha256"] = ""
    other.frame.loc[0, "size_bytes"] = 7
    assert ids(JoinedSource([one, other])) == ["clip-0.mp4", "clip-2.mp4"]


def test_streams_without_a_common_clip_are_refused_with_an_example_of_each() -> None:
    one, other = pair()
    other.frame["video_id"] = [f"b/{name}" for name in other.frame["video_id"]]
    with pytest.raises(
        ConfigError, match=r"a\.zarr has 4 such as clip-0\.mp4, bb\.zarr has 4 such as b/"
    ):
        JoinedSource([one, other])
    one, other = pair(version=[1, 1, 1, 1])
    with pytest.raises(ConfigError, match="made from other bytes of all 4 clips"):
        JoinedSource([one, other])


def test_one_store_twice_frames_and_one_store_alone_are_refused() -> None:
    one, other = pair()
    with pytest.raises(SpecMismatch, match=r"a\.zarr holds the same features as a\.zarr"):
        JoinedSource([one, dataclasses.replace(one)])
    with pytest.raises(SpecMismatch, match="cannot be joined"):
        JoinedSource([one])
    pixels = dataclasses.replace(other, features=np.zeros((4, 4, 8, 8, 3), np.uint8))
    with pytest.raises(SpecMismatch, match="holds frames of shape"):
        JoinedSource([one, pixels])


def test_a_row_that_a_stream_no_longer_has_is_left_out_of_what_is_read() -> None:
    one, other = pair()
    source = JoinedSource([one, other])
    whole = other.load

    def without_row_1(rows):
        return whole([row for row in rows if row != 1])  # clip 2

    other.load = without_row_1  # type: ignore[method-assign]
    read = source.load([0, 2, 3])
    assert read.rows.tolist() == [0, 3]
    assert read.features[:, 0, 0].tolist() == [0, 3]
    clips = load_clips(JoinedSource([one, other]))
    assert clips.left_out == {"damaged": 1}


def test_other_samplings_are_said_and_the_same_is_not() -> None:
    assert JoinedSource(pair()).notes == []
    one, _ = pair()
    denser = stream("bb", [0, 1, 2, 3], [[0, 4, 8, 12]] * 4)
    (note,) = JoinedSource([one, denser]).notes
    assert "4 of 4 clips of bb show other frames" in note
    assert "at most 0.20 s apart" in note


def times(frames: list[int], steps: int, *, known: bool = True) -> StepTimes:
    index = np.full((1, steps), -1, np.int32)
    index[0, : len(frames)] = frames
    seconds = np.where(index < 0, np.nan, index / FPS if known else np.nan)
    return StepTimes(frame=index, seconds=seconds.astype(np.float32))


@pytest.mark.parametrize(
    ("first", "other", "how"),
    [
        (times([0, 3], 2), times([0, 3], 4), SAME),
        (times([0, 3], 2), times([0, 4], 2), NEAREST),
        (times([0, 3], 2), times([0, 1, 2], 4, known=False), APART),
        (times([0, 3], 2), times([0, 1], 4, known=False), IN_ORDER),
        (times([0, 3], 2), times([], 4), APART),
    ],
)
def test_how_steps_are_aligned(first: StepTimes, other: StepTimes, how: int) -> None:
    assert align(first, other).how.tolist() == [how]


def test_of_two_steps_as_near_the_earlier_is_taken_however_times_are_rounded() -> None:
    frames = np.array([[4, 18]], np.int32)
    for middle in range(11, 100_000, 7_919):
        first = np.array([[middle]], np.int32)
        pairs = [
            StepTimes(frame=frame, seconds=(frame / 25).astype(np.float32))
            for frame in (first, frames + (middle - 11))
        ]
        assert align(*pairs).places.tolist() == [[0]], middle


def test_an_import_without_times_is_not_aligned_by_the_numbers_in_their_place() -> None:
    one, other = pair()
    other.spec = {"backbone": "imported", "source": "i3d", "sampling": {"steps": 4}}
    other.frames = np.array([[0, 10, 20, -1]] * 4, np.int32)  # seconds 0, 1, 2: one apart
    source = JoinedSource([one, other])
    assert "no known times: they are joined one by one" in source.notes[0]
    assert source.streams[1].name == "i3d"
    other.frames[1] = [0, 10, -1, -1]
    source = JoinedSource([one, other])
    assert source.left_out == {"without_times": 1}


def test_a_join_is_read_as_one_store_streamed_or_in_memory_and_by_stream() -> None:
    sources = [*pair(), stream("ccc", [1, 0, 3, 2], [[0, 4, 10]] * 4, channels=5)]
    source = JoinedSource(sources)
    assert source.shape == (11,)
    assert [each.channels for each in source.streams] == [slice(0, 3), slice(3, 6), slice(6, 11)]
    loaded, streamed = load_clips(source), load_clips(source, stream=True)
    for (mine, mask, at), (theirs, same, there) in zip(
        loaded.batches(np.arange(4), 3), streamed.batches(np.arange(4), 3), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(mask, same)
        np.testing.assert_array_equal(at, there)
    alone = StreamSource(source, 2)
    np.testing.assert_array_equal(
        alone.load(source.load().rows).features, source.load().features[..., 6:]
    )
    sources[2].features[1, 0, 4] = 9  # clip 0
    assert (source.digests(np.arange(4)) != loaded.digests).tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="are not joined"):
        source.load([7])


def test_test_sets_of_all_streams_are_kept_out_and_must_agree() -> None:
    one, other = pair()
    kept = {"video_ids": ["clip-0.mp4"], "groups": ["g0"], "contents": [], "whole_groups": True}
    other.test_sets = {"2026": kept}
    clips = load_clips(JoinedSource([one, other]))
    assert [holdout.name for holdout in clips.holdouts] == ["2026"]
    one.test_sets = {"2026": kept | {"video_ids": ["clip-1.mp4"]}}
    with pytest.raises(SpecMismatch, match="other clips in its test set 2026"):
        JoinedSource([one, other])


def test_a_source_without_a_join_has_no_streams() -> None:
    table = load_clips(rising_or_falling()).table
    assert not [name for name in table.columns if name.startswith("stream_")]
    assert isinstance(table, pd.DataFrame)
