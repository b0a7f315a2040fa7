"""The workers of a run as its flow sees them: which take part, which answer, and whether any is left.

No call here waits without a limit. A worker that does not answer (stopped, swapping, cut off) is excluded
until it does; when none is left the run prints so, waits for a stated time, and ends.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Self

import distributed

from flows.extract.named_cluster import LostJobs
from flows.extract.worker_checks import Check, WorkerCheck, answer, ask, within, workers_of
from pipeline.errors import ConfigError, PixelsError

LOOK_EVERY_S = 1.0
SILENT_S = 30.0
"""Seconds without a heartbeat, or an answer of the scheduler, after which a silence is reported."""

ANSWER_S = 30.0
"""How long the start of a run waits for workers that have not answered, once one has."""

_ASK_AGAIN_S = 2.0
_PLUGIN_S = 10.0
_AT_REST = {"memory", "released", "error", "forgotten"}
"""States of a task at a worker that has nothing more to do for it."""


class NoWorkers(PixelsError, RuntimeError):
    """No worker is left: the environment is at fault. The store is consistent."""

    exit_status = 4


class Workforce:
    """Which workers take part in a run. A context manager; its block begins once one has answered.

    client: of the cluster's scheduler. check: what every worker is asked before it gets a batch.
    wait_s: how long to wait while no worker answers. say: called with messages about waiting. jobs: of
    the cluster that the run has started, if it has.

    Entering raises `ConfigError` naming every worker that answers with a problem, and `NoWorkers`
    where workers are there and none answers within `wait_s`. A queue may take its time: while no
    worker has ever been there, entering waits for ever.
    """

    def __init__(
        self,
        client: distributed.Client,
        check: Check,
        *,
        wait_s: float,
        say: Callable[[str], None],
        jobs: LostJobs | None = None,
    ) -> None:
        self._client, self._check, self._wait_s, self._say = client, check, wait_s, say
        self._jobs = jobs
        self._workers: dict[str, dict[str, Any]] = {}
        self._seen: set[str] = set()
        self._beats: dict[str, tuple[float, float]] = {}  # last_seen, and when we saw it move
        self._looked_at = self._somebody_at = self._not_idle_at = time.monotonic()
        self._is_open = False
        self._answers: dict[str, str] = {}  # a worker's problem, or empty: it takes part
        self._questions: dict[str, tuple[float, Future[Any]]] = {}
        self._silent: set[str] = set()
        self._reported_nobody = False
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, name="workforce", daemon=True)
        self._plugin = f"pixels-once-check-{uuid.uuid4().hex[:12]}"

    def __enter__(self) -> Self:
        self._watch.start()
        try:
            self._open()
        except BaseException:  # Ctrl-C too: the watching thread must end
            self._over.set()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        # The scheduler may be what has just gone, or a worker may not answer.
        within(_PLUGIN_S, lambda: self._client.unregister_worker_plugin(self._plugin))

    @property
    def count(self) -> int:
        """How many workers take part."""
        return len(self._taking_part())

    @property
    def threads(self) -> int:
        """How many batches the workers that take part run at once."""
        workers = self._workers  # the thread replaces it
        return sum(workers[name]["nthreads"] for name in self._taking_part() if name in workers)

    @property
    def only(self) -> list[str] | None:
        """The workers that may be given a batch, where some are left out; None where all may."""
        taking_part = self._taking_part()
        return None if len(taking_part) == len(self._workers) else taking_part

    @property
    def nobody_for_s(self) -> float:
        """For how long no worker that takes part has been alive."""
        return time.monotonic() - self._somebody_at

    @property
    def idle_for_s(self) -> float:
        """For how long workers that take part have been alive, and none of them has had work."""
        return time.monotonic() - self._not_idle_at

    def has_any(self, workers: Iterable[str]) -> bool:
        """Whether the scheduler still knows one of these workers; True while it does not answer."""
        return self._scheduler_silent() or any(name in self._workers for name in workers)

    def has_left(self, worker: str) -> bool:
        """Whether the scheduler has dropped a worker that it knew; False while it does not answer."""
        return worker in self._seen and not self.has_any([worker])

    def keep_up(self) -> None:
        """Report workers that fall silent, admit those that answer, replace the lost; call it often.

        Raises `NoWorkers` if no worker has been alive for `wait_s` seconds.
        """
        if self._jobs is not None:
            self._jobs.keep_up()
        self._ask_workers()
        silent = {name for name in self._taking_part() if not self._is_alive(name)}
        for name in sorted(silent - self._silent):
            self._say(
                f"the worker {name} has not answered for {SILENT_S:.0f} s: its batches wait for it "
                "until the scheduler drops it"
            )
        for name in sorted(self._silent - silent):
            self._say(
                f"the worker {name} "
                + ("answers again" if name in self._workers else "has left the scheduler")
            )
        self._silent = silent
        self._require_somebody()

    def _require_somebody(self) -> None:
        nobody_for_s = self.nobody_for_s
        if self._scheduler_silent() or nobody_for_s > 5 * LOOK_EVERY_S:
            if not self._reported_nobody:
                self._reported_nobody = True
                self._say(f"{self._who_is_missing()}: waiting up to {self._wait_s:.0f} s")
            if nobody_for_s > self._wait_s:
                raise NoWorkers(
                    f"{self._who_is_missing()} for {nobody_for_s:.0f} s: start workers (dask worker "
                    f"{self._client.scheduler.address}) and run again, the run goes on where it stood"
                )
        else:
            self._reported_nobody = False

    def _who_is_missing(self) -> str:
        scheduler = self._client.scheduler.address
        if self._scheduler_silent():
            return f"the Dask scheduler {scheduler} has not answered"
        if not self._workers:
            return f"the Dask scheduler {scheduler} has had no worker"
        taking_part = self._taking_part()
        if taking_part and all(self._is_paused(name) for name in taking_part):
            return f"all workers of {scheduler} are paused, short of memory"
        if refusals := self._refusals():
            return f"nobody is left at the Dask scheduler {scheduler}: {refusals}"
        return f"none of the {len(self._workers)} workers of {scheduler} has answered"

    def _open(self) -> None:
        """Return when a worker has been admitted and the others have had their time to answer."""
        is_reported, began = False, time.monotonic()
        while not self._workers:
            if self._scheduler_silent():
                self._require_somebody()
            elif not is_reported and self._looked_at - began > LOOK_EVERY_S:
                self._say(
                    f"the scheduler {self._client.scheduler.address} has no worker yet: waiting for "
                    "the first (dask worker ADDRESS starts one)"
                )
                is_reported = True
            time.sleep(0.1)
        self._somebody_at = began = time.monotonic()
        while True:
            self._ask_workers()
            if refusals := self._refusals():
                raise ConfigError(refusals)
            waiting = self._workers.keys() - self._answers.keys()
            if not waiting and self._answers:
                break
            if self._answers and time.monotonic() - began > ANSWER_S:
                self._say(
                    f"{len(waiting)} of {len(self._workers)} workers have not answered for "
                    f"{ANSWER_S:.0f} s and are left out until they do: {', '.join(sorted(waiting))}"
                )
                break
            if not self._answers and time.monotonic() - began > SILENT_S:
                self._require_somebody()
            time.sleep(0.05)
        self._somebody_at = self._not_idle_at = time.monotonic()
        self._is_open = True
        plugin = WorkerCheck(self._check, passed=set(self._answers))
        # It is in force for workers to come once the scheduler has it; those that are here may be slow.
        within(_PLUGIN_S, lambda: self._client.register_plugin(plugin, name=self._plugin))

    def _ask_workers(self) -> None:
        """Take in the answers that have arrived, and ask every worker that has not answered."""
        now, here = time.monotonic(), self._workers.keys()
        for known in (self._answers, self._questions):
            for name in known.keys() - here:  # another worker may come to its address
                del known[name]
        for name, (asked_at, question) in list(self._questions.items()):
            problem = answer(question, name) if question.done() else None
            if problem is not None:
                self._answers[name] = problem
            elif not question.done() or now - asked_at <= _ASK_AGAIN_S:
                continue
            del self._questions[name]
            if problem and self._is_open:
                self._say(f"the worker {name} is left out until it is started anew: {problem}")
        for name in here - self._answers.keys() - self._questions.keys():
            self._questions[name] = (now, ask(self._client, self._check.problem, name))

    def _refusals(self) -> str:
        """A sentence about the workers that cannot take part, by problem; empty where there is none."""
        by_problem: dict[str, list[str]] = defaultdict(list)
        for worker, problem in self._answers.items():
            if problem:
                by_problem[problem].append(worker)
        count = sum(map(len, by_problem.values()))
        problems = "; ".join(
            f"{', '.join(sorted(who))}: {what}" for what, who in sorted(by_problem.items())
        )
        total = len(self._workers)
        return f"{count} of {total} workers cannot take part: {problems}" if count else ""

    def _taking_part(self) -> list[str]:
        return [name for name in list(self._workers) if self._answers.get(name) == ""]

    def _is_alive(self, name: str) -> bool:
        _, moved_at = self._beats.get(name, (0.0, time.monotonic()))
        return time.monotonic() - moved_at < SILENT_S

    def _is_paused(self, name: str) -> bool:
        """Whether Dask gives the worker no work, since its memory is nearly full."""
        return self._workers.get(name, {}).get("status") == "paused"

    def _scheduler_silent(self) -> bool:
        return time.monotonic() - self._looked_at > SILENT_S

    def _look(self) -> None:
        """Keep the scheduler's view of its workers up to date, in a thread: it may not answer."""
        while not self._over.wait(LOOK_EVERY_S if self._workers else 0.1):
            try:
                workers = workers_of(self._client)
            except Exception:  # the scheduler is away; how long follows from `_looked_at`
                continue
            now = self._looked_at = time.monotonic()
            for name, worker in workers.items():
                seen = float(worker.get("last_seen", 0.0))
                if self._beats.get(name, (-1.0, 0.0))[0] != seen:
                    self._beats[name] = (seen, now)
            self._workers = workers
            self._seen.update(workers)
            alive = [name for name in self._taking_part() if self._is_alive(name)]
            if any(not self._is_paused(name) for name in alive):
                self._somebody_at = now
            if not alive or any(_has_work(workers[name]) for name in alive if name in workers):
                self._not_idle_at = now


def _has_work(worker: Mapping[str, Any]) -> bool:
    """Whether a worker, as the scheduler describes it, had a task to do at its last heartbeat."""
    counts = worker.get("metrics", {}).get("task_counts", {})
    return any(count for state, count in counts.items() if state not in _AT_REST)
