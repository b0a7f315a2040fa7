"""A store on S3 behind a proxy: every kind of request that a run makes, broken by every fault.

The kinds are not listed here: they are those that a whole run is seen to make, so a new one is broken
too. After each fault the run has ended well or in one sentence, nothing of its own is taken for another
run's, and the next run makes the store that a run without faults makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import store
from pipeline.errors import ServiceUnavailable
from pipeline.features.catalog import discover
from store.lease import FOLDER
from tests.buckets import FaultyBucket, as_s3, faulty_bucket, kind_of, s3_faults
from tests.proxy import CUT_AFTER, FORBIDDEN_403, HALF, LOST_500, MOVED_301, Fault, Request, nth
from tests.store.stores import clips, create, features_of

ROWS, BATCH = 4, 4
ALWAYS = 1_000_000
LASTING = ("cut before", "500", "503", "403", "301")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One kind of request, broken once or always from its `which`-th time on."""

    kind: str
    fault: Fault
    which: int = 1
    times: int = 1

    def __str__(self) -> str:
        lasting = " always" if self.times > 1 else ""
        return f"{self.kind} (no. {self.which}) × {self.fault}{lasting}"


@pytest.fixture(scope="module")
def s3() -> Iterator[FaultyBucket]:
    with faulty_bucket() as found, pytest.MonkeyPatch.context() as environment:
        # Two tries in place of five, and a second in place of a minute: the same paths, sooner.
        environment.setenv("AWS_MAX_ATTEMPTS", "2")
        yield found


@pytest.fixture(scope="module")
def whole(s3: FaultyBucket) -> dict[str, Any]:
    """What a run without faults leaves: its arrays, and the kinds of request that it made, by number."""
    url = f"{s3.url}/whole.zarr"
    first = len(s3.proxy.seen)
    a_run(url)
    kinds: dict[str, int] = {}
    for request in s3.proxy.seen[first:]:
        kinds[kind_of(request)] = kinds.get(kind_of(request), 0) + 1
    assert store.verify(url).ok
    return {"kinds": kinds, "objects": s3.objects(url)}


def a_run(url: str) -> None:
    """All that a run, its workers and a reader ask of a store; made again, it goes on where it stood."""
    create(url, store.Layout(steps=3, shape=(5,), batch=BATCH))
    with store.Writer.acquire(url, owner="mine") as writer:
        writer.keep_previews()
        known = set(writer.column("video_id"))
        table = clips(ROWS)
        writer.append(table[~table["video_id"].isin(known)])
        bad = writer.check_batches(writer.suspects)
        writer.mark(bad, store.PENDING)
        for batch in range(-(-ROWS // BATCH)):
            rows = np.array(writer.rows_of(batch))
            if (writer.column("status")[rows] == store.READY).all():
                continue
            writer.mark(rows, store.PENDING)
            writer.flush()
            writer.in_flight([batch])
            store.read_batch(url, batch)
            pictures = {int(row): [bytes([255, row + 1])] for row in rows}
            store.write_previews(url, pictures, token=writer.token)
            digests = store.write_batch(url, batch, features_of(rows), token=writer.token)
            mask = np.array([True, True, False])
            writer.set(rows, digest=digests, frames_decoded=2, sha256="0" * 64)
            index, times = np.where(mask, [0, 7, 0], -1), np.where(mask, [0, 0.5, 0], np.nan)
            writer.put_steps(rows, mask, index, times)
            writer.mark(rows, store.READY)
            writer.flush()
            writer.in_flight([])
        writer.set_attributes(classes=["run", "walk"])
    loaded = store.open(url).load()
    np.testing.assert_array_equal(loaded.features, features_of(range(ROWS)))


def broken(s3: FaultyBucket, whole: dict[str, Any], cell: Cell, number: str) -> str:
    """What is wrong after a run with this fault; empty where all is as promised."""
    url = f"{s3.url}/{number}.zarr"
    wanted: Callable[[Request], bool] = lambda request: (  # noqa: E731
        kind_of(request) == cell.kind
        and f"{number}.zarr" in request.target + request.body.decode("latin-1")
    )
    s3.proxy.rule = nth(cell.which, cell.fault, wanted, times=cell.times)
    first, ended = len(s3.proxy.seen), ""
    try:
        a_run(url)
    except store.StoreError as error:
        ended = str(error)
        if isinstance(error, store.StoreBusy | store.LeaseLost) or "taken over" in ended:
            return f"called another's: {ended}"
        if "\n" in ended or ": " not in ended or "vanished" in ended:
            return f"no sentence with the cause: {ended}"
    except Exception as error:  # the table says what it was
        return f"raises {type(error).__name__}: {error}"
    finally:
        s3.proxy.rule = None
    if not any(request.fault is cell.fault for request in s3.proxy.seen[first:]):
        return "the fault was never met"
    if ended or any(
        FOLDER in name for name in s3.objects(url)
    ):  # a lease that could not be removed
        try:
            a_run(url)
        except Exception as error:
            return f"ends with {ended!r}, then the next run raises {type(error).__name__}: {error}"
    now = s3.objects(url)
    if other := [
        name
        for name in now.keys() | whole["objects"].keys()
        if now.get(name) != whole["objects"].get(name)
    ]:
        return f"{'the next run' if ended else 'the run'} leaves other objects: {sorted(other)}"
    return ""


def failures(s3: FaultyBucket, whole: dict[str, Any], cells: list[Cell]) -> list[str]:
    found = []
    for number, cell in enumerate(cells):
        wrong = broken(
            s3, whole, cell, f"{cell.fault.name.replace(' ', '-')}-{number}-{cell.times}"
        )
        if wrong:
            found.append(f"{cell}: {wrong}")
    return found


@pytest.mark.parametrize(
    "fault", [pytest.param(CUT_AFTER, marks=pytest.mark.long), LOST_500, HALF], ids=str
)
def test_a_run_is_not_locked_out_by_its_own_lease(
    s3: FaultyBucket, whole: dict[str, Any], fault: Fault
) -> None:
    kind = "PUT lease if there is none"
    assert whole["kinds"][kind] >= 2  # the lease, and the proof that a second one is refused
    url = f"{s3.url}/{fault.name.replace(' ', '-')}.zarr"
    create(url)
    s3.proxy.rule = nth(1, as_s3(fault), lambda request: kind_of(request) == kind)
    with store.Writer.acquire(url, owner="mine") as writer:
        assert not writer.took_over
    s3.proxy.rule = None
    assert not [name for name in s3.objects(url) if FOLDER in name]


def test_a_lease_whose_making_failed_holds_nobody_off(
    s3: FaultyBucket, whole: dict[str, Any]
) -> None:
    url = create(f"{s3.url}/failed.zarr")
    kind = "PUT lease if there is none"
    s3.proxy.rule = nth(1, as_s3(LOST_500), lambda request: kind_of(request) == kind, times=ALWAYS)
    with pytest.raises(store.StoreUnwritable, match="internal error"):
        store.Writer.acquire(url, owner="mine")
    s3.proxy.rule = None
    assert not [name for name in s3.objects(url) if FOLDER in name]
    with store.Writer.acquire(url, owner="mine") as writer:
        assert not writer.took_over


@pytest.mark.parametrize("fault", [CUT_AFTER, FORBIDDEN_403], ids=str)
def test_what_a_dead_run_had_in_flight_outlasts_a_fault_of_the_takeover(
    s3: FaultyBucket, fault: Fault
) -> None:
    url = create(f"{s3.url}/takeover-{fault.status}.zarr")
    with store.Writer.acquire(url, owner="dead") as writer:
        writer.in_flight([3])
    s3.proxy.rule = nth(
        1, as_s3(fault), lambda request: kind_of(request) == "DELETE lease", times=9
    )
    with store.Writer.acquire(url, owner="mine") as writer:
        assert writer.suspects == [3]
        s3.proxy.rule = None
    with store.Writer.acquire(url, owner="next") as writer:
        assert writer.suspects == [3]


def test_a_conflict_without_an_object_is_tried_again(s3: FaultyBucket) -> None:
    # S3: "If a conflicting operation occurs during the upload, S3 returns a 409
    # ConditionalRequestConflict response. On a 409 failure, retry the upload."
    url = create(f"{s3.url}/conflict.zarr")
    conflict = as_s3(
        Fault(name="409", forward=False, status=409), "ConditionalRequestConflict", "conflict"
    )
    kind = "PUT lease if there is none"
    s3.proxy.rule = nth(1, conflict, lambda request: kind_of(request) == kind)
    with store.Writer.acquire(url, owner="mine") as writer:
        assert not writer.took_over
    s3.proxy.rule = None


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (Fault(name="", forward=False, status=400), "ExpiredToken", "credentials have expired"),
        (Fault(name="", forward=False, status=501), "NotImplemented", "--no-lease"),
        (FORBIDDEN_403, "AccessDenied", "credentials may list, read, write and delete"),
        (FORBIDDEN_403, "InvalidAccessKeyId", "does not know the access key"),
        (FORBIDDEN_403, "RequestTimeTooSkewed", "set the clock"),
        (MOVED_301, "PermanentRedirect", "AWS_DEFAULT_REGION"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_the_service_refuses_is_said_by_its_cause(
    s3: FaultyBucket, fault: Fault, code: str, said: str
) -> None:
    url = create(f"{s3.url}/{code}.zarr")
    conditional = code == "NotImplemented"
    s3.proxy.rule = nth(
        1,
        as_s3(fault, code),
        lambda request: not conditional or "if-none-match" in request.headers,
        times=ALWAYS,
    )
    try:
        with pytest.raises(store.StoreUnwritable, match=said) as refused:
            store.Writer.acquire(url, owner="mine")
    finally:
        s3.proxy.rule = None
    assert "\n" not in str(refused.value)


def test_a_bucket_that_does_not_exist_is_named_as_the_cause(s3: FaultyBucket) -> None:
    with pytest.raises(store.StoreUnwritable, match="bucket that does not exist"):
        create("s3://there-is-no-such-bucket/a.zarr")


def test_clips_in_a_bucket_of_another_region_are_told_so(s3: FaultyBucket) -> None:
    s3.proxy.rule = nth(1, as_s3(MOVED_301), lambda request: True, times=ALWAYS)
    try:
        with pytest.raises(ServiceUnavailable, match="AWS_DEFAULT_REGION"):
            discover(f"{s3.url}/clips")
    finally:
        s3.proxy.rule = None


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", s3_faults(), ids=str)
def test_every_kind_of_request_broken_once(
    s3: FaultyBucket, whole: dict[str, Any], fault: Fault
) -> None:
    cells = [Cell(kind=kind, fault=fault) for kind in sorted(whole["kinds"])]
    writes = [(k, n) for k, n in whole["kinds"].items() if not k.startswith(("GET", "LIST"))]
    cells += [Cell(kind=kind, fault=fault, which=last) for kind, last in writes if last > 1]
    assert not failures(s3, whole, cells)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", [f for f in s3_faults() if f.name in LASTING], ids=str)
def test_every_kind_of_request_broken_for_good(
    s3: FaultyBucket, whole: dict[str, Any], fault: Fault
) -> None:
    cells = [Cell(kind=kind, fault=fault, times=ALWAYS) for kind in sorted(whole["kinds"])]
    assert not failures(s3, whole, cells)
