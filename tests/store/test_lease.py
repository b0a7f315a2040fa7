"""One run at a time: who holds, who takes over, who is told to stop."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import store
from store.creation import _upload
from store.lease import FOLDER, Heartbeat, Lease, current
from store.liveness import Holder, Watch
from store.place import Place
from tests.store.conftest import EVERYWHERE, SHARED_BY_THREADS
from tests.store.stores import LAYOUT, child, clips, create, features_of, filled, put_batch

HOLD = """
import sys, store
writer = store.Writer.acquire(sys.argv[1], owner="child")
writer.in_flight([0, 2])
print(writer.token, flush=True)
sys.stdin.read()
"""


def holder_file(url: str, **changes) -> Path:
    """The lease of another machine's run, as it would lie in the store."""
    me = Holder.me("elsewhere")
    values = {name: getattr(me, name) for name in Holder.__slots__}
    path = Path(url) / FOLDER / "000007.json"
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({**values, "host": "far", "machine": "far", **changes}))
    return part.replace(path)


def test_a_killed_process_is_taken_over_at_once_with_its_batches(local):
    filled(local)
    process = child(HOLD, local)
    token = process.stdout.readline().strip()
    with pytest.raises(store.StoreBusy, match=f"child .process {process.pid} on"):
        store.Writer.acquire(local, owner="me")
    assert store.holder(local).token == token
    process.kill()  # not waited for: a zombie is dead too
    while store.holder(local) is not None:
        pass
    with store.Writer.acquire(local, owner="me") as writer:
        assert writer.took_over
        assert writer.suspects == [0, 2]
        assert writer.token != token
    process.communicate()


def test_a_reused_process_number_does_not_keep_a_lease(local):
    create(local)
    me = Holder.me()
    holder_file(local, machine=me.machine, ticks=me.ticks - 1)
    with store.Writer.acquire(local, owner="me") as writer:
        assert writer.took_over


def test_a_clock_that_is_set_kills_no_living_lease(local):
    create(local)
    me = Holder.me()
    hours = 3 * 3600.0
    for step in (-hours, -5.0, 5.0, hours):
        times = {name: getattr(me, name) + step for name in ("started", "since", "beat")}
        holder_file(local, machine=me.machine, **times)
        with pytest.raises(store.StoreBusy, match="elsewhere"):
            store.Writer.acquire(local, owner="me")


@pytest.mark.parametrize("clock_s", [-3600, 0, 3600])
def test_another_machine_is_dead_when_its_beat_has_stood_still(local, monkeypatch, clock_s):
    create(local)
    monkeypatch.setattr("store.liveness.DEAD_AFTER_S", 0.4)
    holder_file(local, beat=time.time() + clock_s)
    began = time.monotonic()
    with store.Writer.acquire(local, owner="me") as writer:
        assert writer.took_over
    assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("clock_s", [-3600, 0, 3600])
def test_another_machine_is_alive_while_its_beat_moves(local, monkeypatch, clock_s):
    create(local)
    monkeypatch.setattr("store.liveness.DEAD_AFTER_S", 5.0)
    ended = threading.Event()

    def beat() -> None:
        tick = time.time() + clock_s
        while not ended.wait(0.05):
            tick += 0.05
            holder_file(local, beat=tick, token="same")

    holder_file(local, beat=time.time() + clock_s, token="same")
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(store.StoreBusy, match="on far"):
            store.Writer.acquire(local, owner="me")
    finally:
        ended.set()
        thread.join()


def test_a_holder_that_comes_while_one_watches_another_lives():
    watch = Watch()
    one, other = (replace(Holder.me(), machine="far", token=name) for name in ("one", "other"))
    watch.look([one])
    assert watch.alive(one) is None
    watch.look([other])
    assert watch.alive(other) is True


def test_a_lease_of_an_older_version_is_watched_where_its_process_number_lives(local, monkeypatch):
    create(local)
    monkeypatch.setattr("store.liveness.DEAD_AFTER_S", 0.2)
    me = Holder.me("older")
    path = holder_file(local, machine=me.machine)
    old = {name: value for name, value in json.loads(path.read_text()).items() if name != "ticks"}
    path.write_text(json.dumps(old))
    assert current(Place(local)).owner == "elsewhere"
    with store.Writer.acquire(local, owner="me") as writer:
        assert writer.took_over
    gone = child("pass")
    gone.communicate()
    path.write_text(json.dumps({**old, "pid": gone.pid}))
    assert store.holder(local) is None  # at once


def test_a_lease_that_could_not_be_given_back_holds_nobody_off_in_the_same_process(local):
    create(local)
    writer = store.Writer.acquire(local, owner="first")
    path = Path(local) / FOLDER / "000001.json"
    mine = path.read_bytes()
    writer.release()
    path.write_bytes(mine)  # as if its removal had not reached the store
    with store.Writer.acquire(local, owner="second") as second:
        assert second.took_over


def test_batches_in_flight_stay_recorded_until_they_are_checked(url):
    filled(url)
    with store.Writer.acquire(url, owner="one") as writer:
        writer.in_flight([1, 2])
    assert store.holder(url) is None
    with store.Writer.acquire(url, owner="two") as writer:
        assert writer.took_over
        assert writer.suspects == [1, 2]
        writer.in_flight([0])
        assert current(Place(url)).batches == (0, 1, 2)
        store.write_batch(url, 2, features_of([8, 9], 5), token=writer.token)
        assert writer.check_batches([2]).tolist() == [8, 9]
        assert writer.suspects == [1]
    with store.Writer.acquire(url, owner="three") as writer:
        assert writer.suspects == [0, 1]
        assert writer.check_batches([0, 1, 99]).tolist() == []
        writer.in_flight([])
    with store.Writer.acquire(url, owner="four") as writer:
        assert not writer.took_over


@pytest.mark.parametrize("url", EVERYWHERE, indirect=True)
def test_a_writer_that_was_replaced_stops_and_writes_nothing(url):
    filled(url)
    with store.Writer.acquire(url, owner="slow") as slow:
        slow.set([0], label="never")
        lease = slow._heart._lease
        place = Place(url)
        place.put_new(
            f"{FOLDER}/{lease._number + 1:06d}.json",
            json.dumps({n: getattr(Holder.me("quick"), n) for n in Holder.__slots__}).encode(),
        )
        for call in (
            slow.flush,
            lambda: slow.append(clips(1, start=50)),
            lambda: slow.in_flight([0]),
            lambda: slow.set_attributes(classes=["x"]),
            lease.beat,
        ):
            with pytest.raises(store.LeaseLost, match="quick"):
                call()
    assert store.open(url).table()["label"][0] == "run"
    assert store.holder(url).owner == "quick"  # the slow one's release left it alone


def test_the_heartbeat_finds_out_by_itself(local, monkeypatch):
    create(local)
    monkeypatch.setattr("store.lease.BEAT_S", 0.01)
    lease = Lease.acquire(Place(local), "slow")
    heart = Heartbeat(Place(local), lease)
    path = Path(local) / FOLDER / "000001.json"
    first = json.loads(path.read_text())["beat"]
    while json.loads(path.read_text())["beat"] == first:
        pass
    taken = holder_file(local)
    for thread in threading.enumerate():
        if thread.name == "store-lease":
            thread.join()
    taken.unlink()
    with pytest.raises(store.LeaseLost, match="elsewhere"):  # remembered, though it is gone again
        heart.check()


@pytest.mark.parametrize("url", SHARED_BY_THREADS, indirect=True)
@pytest.mark.parametrize("left_behind", [False, True])
def test_of_many_at_once_one_gets_it(url, left_behind):
    create(url)
    if left_behind:
        with store.Writer.acquire(url, owner="dead") as writer:
            writer.in_flight([0])
    start = threading.Barrier(6)
    inside, most = [], []
    guard = threading.Lock()

    def race(number: int) -> bool:
        start.wait()
        for _ in range(2):
            try:
                lease = Lease.acquire(Place(url), str(number))
            except store.StoreBusy:
                continue
            with guard:
                inside.append(number)
                most.append(len(inside))
            lease.check()
            with guard:
                inside.remove(number)
            lease.release()
        return True

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(race, range(6)))
    assert most
    assert max(most) == 1


def test_waiting_ends_when_the_other_is_done(local):
    create(local)
    first = store.Writer.acquire(local, owner="first")
    threading.Timer(0.2, first.release).start()
    with store.Writer.acquire(local, owner="second", wait_s=60) as writer:
        assert not writer.took_over


def test_a_released_writer_writes_no_more(url):
    create(url)
    writer = store.Writer.acquire(url, owner="me")
    writer.release()
    writer.release()
    with pytest.raises(store.LeaseLost, match="released"):
        writer.append(clips(1))


def test_of_two_that_make_a_store_at_once_the_second_leaves_the_first_alone(s3, monkeypatch):
    url = f"{s3}/clips.zarr"
    place = Place(url)
    other = Lease.acquire(place, "other")

    def meanwhile(seconds: float) -> None:
        """While ours waits, the other one is done with its making, and another spec is there."""
        attributes = {
            "format": store.FORMAT,
            "format_version": 1,
            "spec": {},
            "fingerprint": "f" * 64,
        }
        _upload(place, LAYOUT, {**attributes, "batch": LAYOUT.batch})
        other.release()

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=meanwhile)
    monkeypatch.setattr("store.creation.time", clock)
    with pytest.raises(store.StoreMismatch, match="ffffffffffff"):
        create(url)
    assert store.open(url).fingerprint == "f" * 64


class Careless(MemoryFileSystem):
    """An object store that takes a conditional PUT and ignores the condition."""

    protocol = "careless"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        return super().pipe_file(path, value, mode="overwrite", **kwargs)


def test_a_place_without_exclusive_creation_is_refused_unless_told():
    fsspec.register_implementation("careless", Careless, clobber=True)
    with pytest.raises(store.StoreUnwritable, match="--no-lease"):
        create("careless://clips.zarr")
    url = "careless://clips.zarr"
    create(url, lease=False)
    with pytest.raises(store.StoreUnwritable, match="--no-lease"):
        store.Writer.acquire(url, owner="me")
    with store.Writer.acquire(url, owner="me", lease=False) as writer:
        assert writer.token is None
        writer.append(clips(4))
        put_batch(writer, 0)
    np.testing.assert_array_equal(store.open(url).load().features, features_of(range(4)))


def test_who_holds_it_survives_pickling():
    import pickle

    error = store.StoreBusy("busy", Holder.me("me"))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == "busy"
    assert again.holder == error.holder


def test_a_beat_that_fails_is_told_and_the_next_one_is_tried(tmp_path, monkeypatch, caplog):
    url, beats, again = filled(str(tmp_path / "clips.zarr")), [], threading.Event()
    real = Lease.beat

    def beat(self, batches=None):
        beats.append(batches)
        if len(beats) == 1:
            raise OSError("the network is away")
        real(self, batches)
        again.set()

    monkeypatch.setattr("store.lease.BEAT_S", 0.01)
    monkeypatch.setattr(Lease, "beat", beat)
    with store.Writer.acquire(url, owner="test"):
        assert again.wait(60)
    assert "could not be refreshed: the network is away" in caplog.text


def test_a_lease_that_cannot_be_removed_ends_no_run(tmp_path, monkeypatch, caplog):
    url = filled(str(tmp_path / "clips.zarr"))

    def refused(self, suspects=()):
        raise OSError("not now")

    with monkeypatch.context() as patched:
        patched.setattr(Lease, "release", refused)
        with store.Writer.acquire(url, owner="test"):
            pass
    assert "could not be removed: not now" in caplog.text
    holder = store.holder(url)
    assert holder is not None
    assert holder.owner == "test"
