"""A Dask cluster by class path (`dask_jobqueue.SLURMCluster`): started, and its lost workers replaced.

Dask restarts a process, not a job: one that a batch system has ended (cancelled, preempted, over its
time) stays in the plan of its cluster, and no other is asked for, with `adapt` or without. A run asks.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import distributed

from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError, ServiceUnavailable

LOST_AFTER_S = 15.0
"""How long a nanny has to bring a worker back before its job counts as lost."""

_LOOK_EVERY_S = 1.0
_TIMES = 3
_MOST_LETTERS = 500


def named_cluster(settings: FeaturesSettings) -> Any:
    """The cluster of a class path with its options; `started` has it start and end.

    Raises `ConfigError` where there is no such class or it does not take its options, and
    `ServiceUnavailable` where it cannot be made.
    """
    cls = _imported(settings.cluster)
    try:
        return cls(**settings.cluster_options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{settings.cluster} does not take its options: {_words(error)}; see "
            "[features.cluster_options] in the config file"
        ) from None
    except Exception as error:  # each kind of cluster raises its own
        raise _not_started(settings.cluster, error) from error


@contextlib.contextmanager
def started(cluster: Any, path: str) -> Iterator[None]:
    """The block of a named cluster, which ends with it. Raises `ServiceUnavailable` if it cannot start.

    path: of its class.
    """
    try:
        cluster.__enter__()
        _require_jobs(cluster)
    except Exception as error:  # each kind of cluster raises its own
        with contextlib.suppress(Exception):  # what has not started may not close either
            cluster.close()
        raise _not_started(path, error) from error
    with contextlib.ExitStack() as stack:
        stack.push(cluster.__exit__)
        yield


def _require_jobs(cluster: Any) -> None:
    """Raise why a job was not taken: Dask forgets it, and the run would wait for its worker for ever."""
    refused = [
        job
        for job in list(getattr(cluster, "workers", {}).values())
        if getattr(job, "status", None) == distributed.Status.created
    ]
    try:
        for job in refused:
            cluster.sync(_begun, job)
    except BaseException:
        for job in refused:
            job.status = distributed.Status.failed  # else its cluster does not close
        raise


async def _begun(job: Any) -> None:
    await job


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"the cluster class {path!r} cannot be imported ({error}): "
            "give its full path, e.g. distributed.LocalCluster, and install its package"
        ) from None


def _not_started(path: str, error: Exception) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"{path} does not start ({_words(error)}): see [features.cluster_options] in the config "
        "file, and whether its service answers"
    )


def _words(error: Exception) -> str:
    """What a command that failed has printed is in the middle of some lines."""
    return " ".join(str(error).split())[:_MOST_LETTERS] or type(error).__name__


class LostJobs:
    """Asks a cluster for other workers in place of those that have left; `keep_up` is called often.

    cluster: of a run; only a `SpecCluster` of workers that are all alike is asked: Kubernetes' operator
    replaces by itself, and so do the nannies of a run's own. done: how many clips are finished. say:
    called with messages.
    """

    def __init__(
        self, cluster: Any, *, done: Callable[[], int], say: Callable[[str], None]
    ) -> None:
        self._cluster, self._done, self._say = cluster, done, say
        self._replaces = isinstance(cluster, distributed.SpecCluster) and bool(cluster.new_spec)
        self._joined: set[Any] = set()
        self._missing_since: dict[Any, float] = {}
        self._looked_at = 0.0
        self._done_then, self._in_vain = -1, 0
        self._asking: threading.Thread | None = None

    def keep_up(self) -> None:
        """Ask for others in place of lost jobs; three times for each at most until a clip is finished."""
        now = time.monotonic()
        if not self._replaces or now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        lost = self._lost(now)
        if not lost or (self._asking is not None and self._asking.is_alive()):
            return
        for name in lost:
            self._joined.discard(name)
            del self._missing_since[name]
        if (done := self._done()) > self._done_then:
            self._done_then, self._in_vain = done, 0
        self._in_vain += len(lost)
        if self._in_vain > _TIMES * len(self._cluster.worker_spec):
            self._say(
                f"{_count(lost)} left, and no clip was finished since others were asked for {_TIMES} "
                "times: no more are, look at their logs"
            )
            return
        self._say(f"{_count(lost)} left: others are asked for in their place")
        self._asking = threading.Thread(target=self._replace, args=(lost,), daemon=True)
        self._asking.start()

    def _lost(self, now: float) -> list[Any]:
        """What has joined and has had no worker for a while: names in the cluster's plan."""
        workers = self._cluster.scheduler_info["workers"].values()
        here = {worker["name"] for worker in list(workers)}
        for name, spec in list(self._cluster.worker_spec.items()):
            members = [f"{name}{suffix}" for suffix in spec.get("group", ())] or [name]
            if here.intersection(members):
                self._joined.add(name)
                self._missing_since.pop(name, None)
            elif name in self._joined:
                self._missing_since.setdefault(name, now)
        gone = self._joined - self._cluster.worker_spec.keys()  # scaled down by Dask
        self._joined -= gone
        for name in gone:
            self._missing_since.pop(name, None)
        return [name for name, since in self._missing_since.items() if now - since > LOST_AFTER_S]

    def _replace(self, lost: list[Any]) -> None:
        cluster, size = self._cluster, len(self._cluster.plan)
        # What asks a batch system may fail, and be right at the next loss.
        with contextlib.suppress(Exception):
            cluster.sync(cluster.scale_down, lost)
            cluster.scale(size)


def _count(lost: list[Any]) -> str:
    return (
        f"a job or worker of the cluster ({lost[0]}) has"
        if len(lost) == 1
        else (f"{len(lost)} jobs or workers of the cluster ({', '.join(map(str, lost))}) have")
    )
