"""A clip that breaks its decoder costs only itself, and no decoder outlives its parent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UnreadableClip
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding import FramePlan, read_clip
from pipeline.features.decoding.child import VARIABLE
from pipeline.features.decoding.process import Limits
from pipeline.features.previews import preview_pictures
from pipeline.spec import Sampling

from .clips import write_numbered_clip

PLAN = FramePlan(sampling=Sampling(steps=8), size=32)
FAULTS = {
    "crash*": "segfault",
    "hang*": "hang",
    "spin*": "spin_gil",
    "eat*": "eat_memory",
}
LIMITS = Limits(stall_s=1.0, memory_bytes=256 << 20)


def pids(pool: DecoderPool) -> list[int]:
    """Process ids of the children that run now."""
    return [child._process.pid for child in list(pool._children.values())]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbered_clip(tmp_path_factory.mktemp("clips") / "good.mp4", frames=20)


def named(clip: Path, name: str) -> str:
    copy = clip.with_name(name)
    shutil.copyfile(clip, copy)
    return str(copy)


def test_children_can_be_started_before_there_is_a_clip(clip: Path) -> None:
    with DecoderPool(PLAN, processes=2, ahead=True) as pool:
        wait_until(lambda: len(pids(pool)) == 2)
        before = pids(pool)
        frames = pool.submit(str(clip)).result(60)
        frames.release()
        assert pids(pool) == before, "the child that was there read the clip"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash.mp4", "decoder_crashed"),
        ("hang.mp4", "timed_out"),
        ("spin.mp4", "timed_out"),
        ("eat.mp4", "out_of_memory"),
    ],
)
def test_a_fault_is_the_reason_of_its_clip_and_the_next_clip_is_read(
    clip: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps(FAULTS))
    with DecoderPool(PLAN, processes=1, limits=LIMITS) as pool:
        bad, good = pool.submit(named(clip, name), 1), pool.submit(str(clip), 1)
        with pytest.raises(UnreadableClip) as failure:
            bad.result()
        assert failure.value.reason == reason
        assert len(good.result()) == 8
        good.result().release()
        assert len(pool._slots._free) >= pool.slots - 1  # the next clip's may be reserved already


def test_frames_from_a_child_equal_frames_read_here(clip: Path) -> None:
    here = read_clip(str(clip), PLAN)
    with DecoderPool(PLAN, processes=2) as pool:
        there = pool.submit(str(clip), clip.stat().st_size).result()
        np.testing.assert_array_equal(there.frames, here.frames)
        np.testing.assert_array_equal(there.frame_index, here.frame_index)
        np.testing.assert_array_equal(there.timestamp, here.timestamp)
        assert (there.fps, there.width, there.height) == (here.fps, here.width, here.height)
        assert (there.frames_declared, there.frames_decoded) == (20, 20)
        assert there.decoder == here.decoder
        assert there.decode_s > 0


def test_a_child_hashes_what_it_reads_and_makes_the_previews(clip: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no clip at all" * 100)
    with DecoderPool(PLAN, processes=1, previews=True) as pool:
        read = pool.submit(str(clip)).result(60)
        assert read.sha256 == hashlib.sha256(clip.read_bytes()).hexdigest()
        assert read.previews == preview_pictures(read.frames)
        read.release()
        with pytest.raises(UnreadableClip) as caught:
            pool.submit(str(bad)).result(60)
        # A failed row tells its bytes too: the next run knows them again.
        assert caught.value.sha256 == hashlib.sha256(bad.read_bytes()).hexdigest()
    with DecoderPool(PLAN, processes=1) as pool:
        assert pool.submit(str(clip)).result(60).previews == ()


def test_reasons_of_bad_files_cross_the_process_border(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.webm", tmp_path / "text.mp4"
    empty.touch()
    text.write_text("no video")
    with DecoderPool(PLAN, processes=1) as pool:
        found = [pool.submit(str(p), 0) for p in (empty, text, tmp_path / "gone.mp4")]
        reasons = []
        for future in found:
            with pytest.raises(UnreadableClip) as failure:
                future.result()
            reasons.append(failure.value.reason)
        assert reasons == ["unreadable", "unreadable", "missing"]
        assert len(pids(pool)) == 1  # none of these costs a process


def test_decoding_waits_for_slots_and_goes_on_when_they_are_given_back(clip: Path) -> None:
    with DecoderPool(PLAN, processes=1, ahead_bytes=0) as pool:
        assert pool.slots == 2
        futures = [pool.submit(str(clip), 1) for _ in range(6)]
        for future in futures:
            frames = future.result()
            assert frames.frames.any()
            frames.release()
            frames.release()  # twice does not lend the slot to two
        assert len(pool._slots._free) >= 1


def test_several_threads_may_submit_at_once(clip: Path) -> None:
    counts: list[int] = []
    with DecoderPool(PLAN, processes=2, ahead_bytes=0) as pool:

        def work() -> None:
            for _ in range(5):
                frames = pool.submit(str(clip), 1).result()
                counts.append(len(frames))
                frames.release()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == [8] * 20


def test_closing_cancels_what_is_not_done_and_leaves_no_child(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps(FAULTS))
    pool = DecoderPool(PLAN, processes=1)
    first = pool.submit(str(clip), 1).result()
    (child,) = pids(pool)
    stuck, waiting = pool.submit(named(clip, "hang.mp4"), 1), pool.submit(str(clip), 1)
    pool.close()
    assert first.frames.any()  # what was handed out is still there
    for future in (stuck, waiting):
        with pytest.raises(CancelledError):
            future.result()
    assert not alive(child)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(str(clip), 1)


@pytest.mark.parametrize("state", ["idle", "hang", "spin"])
def test_children_die_with_a_parent_that_was_killed(clip: Path, state: str) -> None:
    path = str(clip) if state == "idle" else named(clip, f"{state}.mp4")
    script = f"""
        import sys, time
        from pipeline.features.decoders import DecoderPool
        from pipeline.features.decoding import FramePlan
        pool = DecoderPool(FramePlan(size=32), processes=1)
        pool.submit({str(clip)!r}, 1).result().release()
        future = pool.submit({path!r}, 1)
        print(*(child._process.pid for child in pool._children.values()), flush=True)
        time.sleep(600)
    """
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, VARIABLE: json.dumps(FAULTS), "PYTHONPATH": str(root)},
    )
    assert parent.stdout is not None
    (child,) = map(int, parent.stdout.readline().split())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not alive(child))


def test_a_clip_whose_child_is_killed_is_read_once_more(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({"*": "hang"}))
    with DecoderPool(PLAN, processes=1) as pool:
        first, second = (pool.submit(str(clip), 1) for _ in range(2))
        wait_until(lambda: pids(pool) and first.running())
        time.sleep(0.2)  # it hangs by then
        monkeypatch.delenv(VARIABLE)
        os.kill(pids(pool)[0], signal.SIGKILL)
        for future in (first, second):
            assert len(future.result(30)) == PLAN.sampling.steps
            future.result().release()


def test_a_clip_whose_child_is_killed_twice_says_so(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({"*": "hang"}))
    with DecoderPool(PLAN, processes=1) as pool:
        future = pool.submit(str(clip), 1)
        killed: set[int] = set()
        while not future.done():
            for pid in set(pids(pool)) - killed:
                time.sleep(0.2)
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        with pytest.raises(UnreadableClip, match="SIGKILL") as failure:
            future.result()
        assert failure.value.reason == "out_of_memory"
        assert len(killed) == 2


def test_a_child_killed_from_outside_is_replaced(clip: Path) -> None:
    with DecoderPool(PLAN, processes=1) as pool:
        pool.submit(str(clip), 1).result().release()
        (before,) = pids(pool)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: not alive(before))
        pool.submit(str(clip), 1).result().release()
        assert pids(pool) != [before]


def test_decoders_chatter_stays_off_the_terminal_and_in_the_detail(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "cut.mp4"
    text.write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(200))
    with DecoderPool(PLAN, processes=1) as pool:
        with pytest.raises(UnreadableClip) as failure:
            pool.submit(str(text), 1).result()
        assert "moov atom not found" in failure.value.detail
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_nothing_is_left_in_shared_memory(clip: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    with DecoderPool(PLAN, processes=1) as pool:
        pool.submit(str(clip), 1).result()
        assert set(os.listdir("/dev/shm")) == before


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(condition: object, limit_s: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_process_that_only_hands_out_clips_loads_no_decoder() -> None:
    code = "import sys, pipeline.features.decoders; print({'cv2', 'av'} & set(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert ran.stdout.strip() == "set()"
