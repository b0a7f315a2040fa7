"""The demo clips: the same every time, and alike in each pair but for the order of time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.features import demo
from pipeline.features.catalog import discover
from pipeline.features.decoding import FramePlan, read_clip


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        demo.write_demo_clips(tmp_path / name, clips_per_class=2)
    first = sorted((tmp_path / "a").rglob("*.mp4"))
    assert len(first) == 12
    for path in first:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_clips_are_listed_with_class_and_group_and_read_whole(tmp_path: Path) -> None:
    demo.write_demo_clips(tmp_path / "clips", clips_per_class=2)
    catalog = discover(str(tmp_path / "clips"))
    assert set(catalog["label"]) == set(demo.ACTIONS)
    assert set(catalog["group"]) == {"g01", "g02"}
    for path in catalog["path"]:
        read = read_clip(path, FramePlan(size=64))
        assert demo.SHORTEST <= read.frames_decoded <= demo.LONGEST
        assert (read.frames_declared, read.reason) == (read.frames_decoded, "")


def test_a_folder_in_use_is_left_alone_and_nothing_half_made_is_left(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        demo.write_demo_clips(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_backward_action_is_its_partners_drawing_reversed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(demo.ACTIONS, "Opening", ("aperture", True))
    backwards = demo.render_clip("Opening", group=1, clip=1)
    monkeypatch.setitem(demo.ACTIONS, "Opening", ("aperture", False))
    np.testing.assert_array_equal(backwards[::-1], demo.render_clip("Opening", group=1, clip=1))


@pytest.mark.parametrize(
    ("grows", "shrinks"), [("Opening", "Closing"), ("Approaching", "Receding"), ("Dawn", "Dusk")]
)
def test_a_pair_differs_in_the_order_of_time_alone(grows: str, shrinks: str) -> None:
    """First against last frame tells the two apart; the mean over time does not."""
    change, means = {}, {}
    for action in (grows, shrinks):
        clips = [demo.render_clip(action, group=g, clip=c) for g in range(1, 11) for c in (1, 2)]
        light = [clip.mean(axis=(1, 2, 3)) for clip in clips]
        change[action] = np.array([np.abs(frames[-1] - frames[0]) for frames in light])
        signed = np.array([frames[-1] - frames[0] for frames in light])
        means[action] = (signed, np.array([frames.mean() for frames in light]))
    forward, backward = means[grows][0], means[shrinks][0]
    assert abs(np.sign(forward).sum()) == len(forward)
    assert (np.sign(backward) == -np.sign(forward)).all()
    average = {action: means[action][1] for action in (grows, shrinks)}
    spread = np.concatenate(list(average.values())).std() / np.sqrt(10)
    assert abs(average[grows].mean() - average[shrinks].mean()) < 3 * spread


def test_groups_share_a_look_across_classes() -> None:
    assert demo.look_of(3) == demo.look_of(3)
    assert demo.look_of(3) != demo.look_of(4)
