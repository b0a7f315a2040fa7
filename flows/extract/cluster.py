"""The Dask cluster of a run: a local one sized to the machine, a running one, or one by class path."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

import dask
import distributed
from distributed.gc import disable_gc_diagnosis

from flows.extract.named_cluster import named_cluster, started
from flows.extract.worker_checks import workers_of
from flows.settings.features import FeaturesSettings
from flows.stopping import on_signals
from pipeline import engine
from pipeline.errors import ConfigError, ServiceUnavailable

# Two batches at a time in each worker process: while one ends, the other's frames keep the CNN busy.
# A GPU finishes a batch in less time than Prefect needs to begin and end one: four there.
BATCHES_PER_WORKER = 2
BATCHES_PER_GPU = 4
LOOPBACK = "127.0.0.1"
_CONNECT_S = 20


@contextlib.contextmanager
def dask_cluster(settings: FeaturesSettings) -> Iterator[dict[str, Any]]:
    """Arguments for a `DaskTaskRunner`. A cluster that this starts ends with the block."""
    if settings.scheduler:
        require_scheduler(settings.scheduler)
        yield {"address": settings.scheduler}
        return
    with dask.config.set(cluster_options(_size(settings)[0])), signals_held():
        cluster = (
            named_cluster(settings)
            if settings.cluster
            else _taken_over(settings) or _started(settings)
        )
    with started(cluster, settings.cluster) if settings.cluster else cluster:
        if settings.adapt:
            cluster.adapt(**settings.adapt)
        yield {"cluster": cluster}


def _started(settings: FeaturesSettings) -> distributed.SpecCluster:
    try:
        return workers_of_a_run(settings)
    except (RuntimeError, OSError, TimeoutError) as error:
        raise ServiceUnavailable(
            f"the worker processes end while they start ({error.__cause__ or error}): look whether the "
            "machine has memory left, and what the system's log says of processes that it killed"
        ) from error


def workers_of_a_run(settings: FeaturesSettings, api_url: str = "") -> distributed.SpecCluster:
    """The local cluster of a run, to be made with `cluster_options`.

    api_url: of the Prefect server, where it is not in this process's environment yet.
    """
    processes, gpus, threads = _size(settings)
    return local_cluster(
        processes,
        gpus,
        threads=threads,
        preload=["flows.extract.preload"],
        variables={"PREFECT_API_URL": api_url} if api_url else {},
    )


def _size(settings: FeaturesSettings) -> tuple[int, list[str], int]:
    """(worker processes, ids of their GPUs, batches that each has at a time) of a local cluster."""
    gpus = visible_gpus() if settings.gpu != "never" else []
    threads = BATCHES_PER_GPU if gpus else BATCHES_PER_WORKER
    return settings.workers or max(1, len(gpus)), gpus, threads


@contextlib.contextmanager
def workers_ahead(
    settings: FeaturesSettings,
    api_url: str,
    then: Callable[[distributed.SpecCluster], object],
) -> Iterator[None]:
    """Start a run's local cluster in a thread; `dask_cluster` takes it over, else it ends with the block.

    then: called with it in that thread.
    """

    def make() -> distributed.SpecCluster:
        with dask.config.set(cluster_options(_size(settings)[0])):
            cluster = workers_of_a_run(settings, api_url)
        with contextlib.suppress(Exception):  # it only saves time
            then(cluster)
        return cluster

    ahead = _Ahead(settings=settings, api_url=api_url, cluster=Future())
    thread = threading.Thread(target=_run_into, args=(ahead.cluster, make), daemon=True)
    with signals_held():  # the thread keeps the mask
        thread.start()
    _ahead.append(ahead)
    try:
        yield
    finally:
        if ahead in _ahead:
            _ahead.remove(ahead)
            ahead.close()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ahead:
    """A cluster that was started for a run with these settings and this Prefect server."""

    settings: FeaturesSettings
    api_url: str
    cluster: Future[distributed.SpecCluster]

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.cluster.result().close()


_ahead: list[_Ahead] = []


def _taken_over(settings: FeaturesSettings) -> distributed.SpecCluster | None:
    """The cluster that was started for this run; None where there is none, or it failed."""
    found = None
    while _ahead:
        ahead = _ahead.pop()
        right = ahead.api_url == os.environ.get("PREFECT_API_URL")
        if found is None and right and _size(ahead.settings) == _size(settings):
            with contextlib.suppress(Exception):
                found = ahead.cluster.result()
        else:
            ahead.close()
    return found


def _run_into(future: Future[Any], make: Callable[[], Any]) -> None:
    try:
        future.set_result(make())
    except BaseException as error:  # whoever takes the result sees it
        future.set_exception(error)


def require_scheduler(address: str) -> None:
    """Raise `ServiceUnavailable` if no scheduler answers, `ConfigError` if it is no address."""
    try:
        with distributed.Client(address, timeout=_CONNECT_S, set_as_default=False):
            return
    except OSError as error:
        raise ServiceUnavailable(
            f"no Dask scheduler answers at {address!r} ({error}): start one with `dask scheduler`, "
            "and give its address, e.g. SCHEDULER=tcp://10.0.0.5:8786"
        ) from None
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"the address {address!r} of a Dask scheduler cannot be used ({error}): give one such as "
            "tcp://10.0.0.5:8786; tls:// needs the certificates of distributed.comm.tls in Dask's "
            "settings"
        ) from None


def visible_gpus() -> list[str]:
    """Ids of the NVIDIA GPUs that this process may use, without loading any framework."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    return engine.nvidia_smi("index")


def gpu_share(client: distributed.Client, wanted: str) -> dict[str, float]:
    """Dask resources that a batch asks for: a share of a GPU where workers declare one, else nothing.

    Raises `ConfigError` where a GPU is required and no worker declares one: Dask would wait for ever.
    """
    workers = workers_of(client).values()
    declared = any(worker.get("resources", {}).get("GPU", 0) > 0 for worker in workers)
    if wanted == "require" and not declared:
        raise ConfigError(
            f"no worker of {len(workers)} declares a GPU resource: start the workers with "
            "`--resources GPU=1`, or leave --gpu at auto"
        )
    if declared and wanted != "never":
        return {"GPU": 1 / BATCHES_PER_GPU}
    return {}


def cluster_options(processes: int, *variables: str) -> dict[str, Any]:
    """Dask's settings for local processes. variables: more that get the threads of a process."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", *variables)
    return {
        # A batch whose worker died is returned to the flow, which alone resubmits.
        "distributed.scheduler.allowed-failures": 0,
        # Dask would allow one thread to libraries that multiply matrices.
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads)
        | {"MALLOC_TRIM_THRESHOLD_": 65536},
        "distributed.comm.timeouts.connect": "60s",
        "distributed.admin.log-length": 100,
        # The last messages, which Dask keeps to be looked at: a task of many clips is one, of 50 kB.
        "distributed.admin.low-level-log-length": 10,
        # Dask's sampling of every thread's stack, 100 times a second, for a page that is not served.
        "distributed.worker.profile.enabled": False,
    }


def local_cluster(
    processes: int,
    gpus: list[str],
    *,
    threads: int,
    preload: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> distributed.SpecCluster:
    """A cluster of processes on this machine that each run `threads` tasks at a time, on a GPU each.

    preload: modules that a worker imports before it takes part. variables: of its environment, too.
    """
    cores = os.cpu_count() or 1
    # Without a host a nanny and its worker listen on every interface, and run what they are sent.
    address = {"host": LOOPBACK, "protocol": "tcp://", "dashboard_address": f"{LOOPBACK}:0"}
    workers = {
        i: {
            "cls": distributed.Nanny,
            "options": {
                **address,
                "nthreads": threads,
                "memory_limit": distributed.system.MEMORY_LIMIT // processes,
                "resources": {"GPU": 1} if gpus else {},
                "env": {"PIXELS_ONCE_THREADS": str(max(1, cores // processes))}
                | ({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {})
                | dict(variables or {}),
                "preload": list(preload),
                "silence_logs": 50,
            },
        }
        for i in range(processes)
    }
    scheduler = {"cls": _Scheduler, "options": address}
    return distributed.SpecCluster(
        workers=workers, scheduler=scheduler, name="pixels-once", silence_logs=50
    )


class _Scheduler(distributed.Scheduler):  # type: ignore[misc]
    """Without Dask's callback of the garbage collector: a Ctrl-C that arrives in one is lost."""

    async def start_unsafe(self) -> Any:
        started = await super().start_unsafe()
        disable_gc_diagnosis()
        return started


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM from all children that are started here; the flow alone decides.

    A terminal (or `kill` of a process group) sends them to every process. The mask is inherited by
    the threads that start workers, now and after a worker's death, and by the workers. A signal that
    arrives meanwhile is handled when the children have started.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    received: list[int] = []
    try:
        # Threads that exist already take no part in the mask, and Python handles it here.
        with on_signals(received.append, *numbers):
            # Else multiprocessing starts it with the first worker, and lifts the mask when it has.
            resource_tracker.ensure_running()
            before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
            try:
                yield
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        if received:
            signal.raise_signal(received[0])
