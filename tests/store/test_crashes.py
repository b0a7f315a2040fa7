"""What a killed run, a full disk and a forbidden folder leave: a store that opens and goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

import store
from tests.store.stores import (
    arrays,
    child,
    clips,
    create,
    features_of,
    filled,
    put_batch,
    same,
)

RUN = """
import os, signal, sys
import zarr
import store, store.writer
from tests.store.test_crashes import run

url, where, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
left = [count]

def dies_at(function):
    def wrapped(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return wrapped

if where == "resize":
    zarr.Array.resize = dies_at(zarr.Array.resize)
elif where == "write":
    zarr.Array.__setitem__ = dies_at(zarr.Array.__setitem__)
elif where == "status":
    columns, commit = store.columns, store.columns.commit_columns
    columns.commit_columns = lambda *a: (dies_at(commit) if a[-1] == ("status",) else commit)(*a)

run(url)
"""


def run(url: str) -> None:
    """What the flow does: bring the store to ten ready rows, whatever it has now."""
    with store.Writer.acquire(url, owner="run") as writer:
        writer.mark(writer.check_batches(writer.suspects), store.PENDING)
        if len(writer) < 10:
            writer.append(clips(10 - len(writer), start=len(writer)))
        for batch in range(3):
            if (writer.column("status")[list(writer.rows_of(batch))] != store.READY).any():
                put_batch(writer, batch)
        writer.set_attributes(classes=["run", "walk"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict:
    """The arrays of a store that was made without interruption."""
    return arrays(filled(str(tmp_path_factory.mktemp("whole") / "clips.zarr")))


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("resize", 19),  # before status grows
        ("write", 15),
        ("status", 0),
        *(pytest.param("resize", n, marks=pytest.mark.long) for n in (0, 9)),
        *(pytest.param("write", n, marks=pytest.mark.long) for n in (0, 7, 17, 24)),
        pytest.param("status", 1, marks=pytest.mark.long),
    ],
)
def test_a_run_killed_anywhere_is_finished_by_the_next(local, whole, where, count):
    create(local)
    killed = child(RUN, local, where, str(count))
    _, errors = killed.communicate()
    assert killed.returncode == -9, errors
    before = store.open(local).load()  # what was ready stays so
    np.testing.assert_array_equal(before.features, features_of(before.rows))
    run(local)
    assert same(arrays(local), whole)
    assert store.verify(local).ok
    xarray.open_zarr(local, consolidated=False).load()
    assert not list(Path(local).rglob("*.partial"))
    assert not list(Path(local).rglob(".lease/*"))


def test_arrays_are_levelled_to_status_and_nothing_stale_comes_back(url):
    filled(url)
    group = zarr.open_group(url, mode="r+")
    for name, stale in (("label", "stale"), ("frame_index", 99), ("width", 7)):
        group[name].resize((14, *group[name].shape[1:]))
        group[name][10:14] = stale
    assert len(store.open(url)) == 10  # a reader goes by status
    assert len(store.open(url).table()) == 10
    assert any("label has 14 rows" in problem for problem in store.verify(url).problems)
    with store.Writer.acquire(url, owner="me") as writer:
        assert {array.shape[0] for array in writer._arrays.values()} == {10}
        writer.append(clips(4, start=10).drop(columns="label"))
    snapshot = store.open(url)
    assert snapshot.table()["label"].tolist()[10:] == [""] * 4
    assert snapshot.table()["width"].tolist()[10:] == [-1] * 4
    assert (snapshot.steps_of([10, 13])[0] == -1).all()


def test_a_row_without_an_id_does_not_exist(url):
    filled(url)
    for name, array in zarr.open_group(url, mode="r+").arrays():
        if name != "features":
            array.resize((12, *array.shape[1:]))
    assert len(store.open(url)) == 10
    assert store.open(url).table().index.tolist() == list(range(10))
    with store.Writer.acquire(url, owner="me") as writer:
        assert len(writer) == 10
        assert writer.append(clips(1, start=10)).tolist() == [10]


def test_leftover_temporary_files_are_swept(local):
    filled(local)
    left = [Path(local) / name for name in ("x.partial", "features/c.0.0.abc.partial")]
    for path in left:
        path.write_bytes(b"half")
    with store.Writer.acquire(local, owner="me"):
        assert not any(path.exists() for path in left)


def test_what_a_killed_worker_left_goes_with_the_run_unless_others_may_be_writing(local):
    filled(local)
    left = Path(local) / "features" / "c.0.0.abc.partial"
    for in_flight, stays in (([1], True), ([], False)):
        with store.Writer.acquire(local, owner="me") as writer:
            writer.in_flight(in_flight)
            left.write_bytes(b"half")
        assert left.exists() == stays


def test_a_run_that_has_lost_its_lease_removes_nothing(local):
    filled(local)
    writer = store.Writer.acquire(local, owner="me")
    shutil.rmtree(Path(local) / "status" / ".lease")
    with store.Writer.acquire(local, owner="other"):
        writer._heart._lost = store.LeaseLost("another holds it")
        left = Path(local) / "features" / "c.0.0.abc.partial"
        left.write_bytes(b"half")
        writer.release()
        assert left.exists()


def test_a_column_of_a_later_format_is_added_to_an_older_store(local):
    filled(local)
    shutil.rmtree(Path(local) / "decoder")
    assert store.open(local).table()["decoder"].eq("").all()
    with store.Writer.acquire(local, owner="me") as writer:
        writer.set([2], decoder="pyav")
        writer.flush()
    assert store.open(local).table()["decoder"].tolist() == ["", "", "pyav"] + [""] * 7


def test_a_killed_creation_leaves_no_store_and_the_next_succeeds(local):
    code = """
import os, signal, sys
import zarr
from tests.store.stores import create
made = zarr.create_array
def create_array(*a, **k):
    if k["name"] == "reason":
        os.kill(os.getpid(), signal.SIGKILL)
    return made(*a, **k)
zarr.create_array = create_array
create(sys.argv[1])
"""
    killed = child(code, local)
    killed.communicate()
    assert killed.returncode == -9
    assert not store.exists(local)
    assert not Path(local).exists()
    filled(local)
    assert len(store.open(local)) == 10


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "holiday.avi").write_bytes(b"x")
    with pytest.raises(store.StoreMismatch, match="new folder"):
        create(str(tmp_path))
    assert os.listdir(tmp_path) == ["holiday.avi"]


@pytest.mark.parametrize("lease", [True, False])
def test_a_vanished_store_is_not_made_again_by_writing(local, lease):
    filled(local)
    with store.Writer.acquire(local, owner="me", lease=lease) as writer:
        shutil.rmtree(local)
        writer.set([0], label="x")
        for call in (
            writer.flush,
            lambda: store.write_batch(local, 0, features_of(range(4)), token=writer.token),
        ):
            with pytest.raises(store.StoreUnwritable, match="vanished"):
                call()
    assert not Path(local).exists()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = Path(tempfile.mkdtemp())
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_afterwards(small_disk):
    url = filled(str(small_disk / "clips.zarr"))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(store.StoreUnwritable, match="free some space"):
        store.Writer.acquire(url, owner="me")
    with pytest.raises(store.StoreUnwritable, match="full"):
        store.write_batch(url, 0, features_of(range(4), 1), token=None)
    assert len(store.open(url).load()) == 10
    ballast.unlink()
    with store.Writer.acquire(url, owner="me") as writer:
        ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free & ~4095))
        writer.set(np.arange(10), sha256="1" * 64)
        with pytest.raises(store.StoreUnwritable, match="full"):
            writer.flush()
        with pytest.raises(store.StoreUnwritable, match="full"):
            writer.append(clips(3, start=10))
        ballast.unlink()
        writer.append(clips(3, start=10))  # flushes what was kept in memory, too
        put_batch(writer, 2)
        put_batch(writer, 3)
    snapshot = store.open(url)
    assert snapshot.table()["sha256"].tolist() == ["1" * 64] * 8 + ["0" * 64] * 5
    assert len(snapshot.load()) == 13
    assert not list(small_disk.rglob("*.partial"))


def test_a_read_only_disk_can_be_read_and_says_so_when_written(small_disk):
    url = filled(str(small_disk / "clips.zarr"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(store.StoreUnwritable, match="read-only"):
        store.Writer.acquire(url, owner="me")
    with pytest.raises(store.StoreUnwritable, match="read-only"):
        create(str(small_disk / "new.zarr"))
    assert len(store.open(url).load()) == 10
    assert store.verify(url).ok


NOBODY = """
import os, sys
import store
from tests.store.stores import clips, features_of, put_batch, create
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
url = sys.argv[1]
if sys.argv[2] == "write":
    calls = [
        lambda: store.Writer.acquire(url, owner="nobody"),
        lambda: store.write_batch(url, 0, features_of(range(4)), token=None),
        lambda: create(os.path.dirname(url) + "/new.zarr"),
    ]
    assert len(store.open(url).load()) == 10
else:
    calls = [lambda: store.open(url), lambda: store.exists(url)]
for call in calls:
    try:
        call()
    except store.StoreUnwritable as error:
        print(error)
    else:
        sys.exit("was allowed")
"""


@pytest.mark.parametrize(("what", "mode", "sentences"), [("write", 0o555, 3), ("read", 0o000, 2)])
def test_missing_rights_are_one_sentence(what, mode, sentences):
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    try:
        folder.chmod(0o755)
        url = filled(str(folder / "clips.zarr"))
        # From the leaves up: whoever owns a folder may not look into it either.
        for path in sorted(folder.rglob("*"), reverse=True):
            path.chmod(mode if path.is_dir() else mode & 0o444)
        folder.chmod(0o555)
        process = child(NOBODY, url, what)
        out, errors = process.communicate()
        assert process.returncode == 0, errors
        assert out.count("may not be written or read: check its permissions") == sentences
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", folder], check=True)
        shutil.rmtree(folder)


def test_an_address_that_does_not_answer_is_one_sentence(s3):
    options = {
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 1}},
    }
    with pytest.raises(store.StoreUnwritable, match="the store s3://"):
        store.exists(f"{s3}/clips.zarr", storage_options=options)
