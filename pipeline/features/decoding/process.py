"""A decoder process as its parent sees it: start, request, wait with a limit, kill."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PixelsError, UnreadableClip
from pipeline.features.decoding.slots import FrameSlots, anonymous_file
from pipeline.features.decoding.values import ClipFrames, FramePlan, Part
from pipeline.spans import WHOLE

_TICK_S = 0.25
_START_S = 120.0
_REAP_S = 5.0
_LOG_TAIL = 2000
_ROOT = str(Path(__file__).resolve().parents[3])
_QUIET = {"OPENCV_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_FULL = ("bad_alloc", "Cannot allocate memory", "Insufficient memory", "MemoryError")


class DecoderUnavailable(PixelsError, RuntimeError):
    """Decoder processes cannot be started here at all: no fault of a clip."""


class DecoderKilled(UnreadableClip):
    """The process that read the clip was killed by the system or a person: it may be read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What decoding one clip may cost before it is given up.

    A clip is `timed_out` when no frame has come for `stall_s` seconds, or after `base_s` seconds
    plus `per_mib_s` for each MiB of its file. Time in which this process itself stood still (a
    suspended machine, a stopped job) does not count. It is `out_of_memory` when it asks for more
    than `memory_bytes` on top of what the bare decoder process takes.
    """

    base_s: float = 60.0
    per_mib_s: float = 20.0
    stall_s: float = 30.0
    memory_bytes: int = 4 << 30

    def seconds(self, size_bytes: int) -> float:
        """The time limit of a clip with a file of this size; −1, unknown, counts as 1 GiB."""
        size = size_bytes if size_bytes >= 0 else 1 << 30
        return self.base_s + self.per_mib_s * size / (1 << 20)


class ChildProcess:
    """One decoder process. Used by one thread, except `kill`."""

    def __init__(
        self,
        plans: Sequence[FramePlan],
        slots: FrameSlots,
        *,
        number: int,
        limits: Limits,
        previews: bool,
    ) -> None:
        self._slots, self._number, self._limits = slots, number, limits
        self._every = tuple(range(len(plans)))
        self._log_fd = anonymous_file("pixels-once-decoder-log")
        # Appending, so that the child may cut its log short between clips.
        fcntl.fcntl(self._log_fd, fcntl.F_SETFL, os.O_APPEND)
        lifeline_fd, self._lifeline = os.pipe()
        self._replies, reply_fd = os.pipe()
        self._unread = b""
        self._ended = False
        settings = {
            "plans": [asdict(plan) for plan in plans],
            "process": number,
            "frames_fd": slots.fd,
            "lifeline_fd": lifeline_fd,
            "reply_fd": reply_fd,
            "memory_bytes": limits.memory_bytes,
            "previews": previews,
        }
        # -P keeps the working folder, where anything may lie, off the module search path.
        command = [sys.executable, "-P", "-m", "pipeline.features.decoding.child"]
        search = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH", "")]))
        try:
            self._process = subprocess.Popen(
                [*command, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=self._log_fd,
                stderr=self._log_fd,
                pass_fds=(slots.fd, lifeline_fd, reply_fd),
                env={**os.environ, **_QUIET, "PYTHONPATH": search},
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
            )
        except OSError as error:
            for fd in (self._log_fd, self._lifeline, self._replies):
                os.close(fd)
            raise DecoderUnavailable(f"a decoder process cannot be started: {error}") from None
        finally:
            os.close(lifeline_fd)
            os.close(reply_fd)
        try:
            self._receive(_START_S, _START_S)
        except _Gone as gone:
            message = f"the decoder process did not start ({gone}): {self._last_words()}"
            self.close()
            raise DecoderUnavailable(message) from None

    def read(
        self,
        path: str,
        size_bytes: int,
        slot: int,
        part: Part | None = None,
        plans: Sequence[int] = (),
    ) -> ClipFrames:
        """The clip's frames, in the slot's memory. Raises `UnreadableClip`.

        part: of a file that stays open from one of its parts to the next. plans: the numbers of those
        that take frames, if not all.
        Check `usable` afterwards: a process that crashed or was killed reads no other clip.
        """
        numbers = plans or self._every
        offsets = [self._slots.offset(slot, number) for number in numbers]
        request = {"path": path, "plans": numbers, "offsets": offsets, "rows": [], **_asked(part)}
        return _clip_frames(self._answer(request, size_bytes), self._slots, slot, numbers)

    def rows(self, path: str, size_bytes: int, row_s: float, first_s: float) -> list[int]:
        """The rows that a file makes: see `lengths.rows_of_file`. Raises `UnreadableClip`."""
        asked = {"path": path, "rows": [row_s, first_s], "plans": [], "offsets": []}
        rows: list[int] = self._answer({**asked, **_asked(None)}, size_bytes)["rows"]
        return rows

    def _answer(self, request: dict[str, Any], size_bytes: int) -> dict[str, Any]:
        """The reply to a request. Raises `UnreadableClip` where it gives a reason instead."""
        try:
            self._send(json.dumps(request).encode() + b"\n")
            reply = self._receive(self._limits.seconds(size_bytes), self._limits.stall_s)
        except _Gone as gone:
            if gone.was_killed:
                raise DecoderKilled(gone.reason, str(gone)) from None
            words = self._last_words()
            full = gone.reason == "decoder_crashed" and any(sign in words for sign in _FULL)
            reply = {"reason": "out_of_memory" if full else gone.reason, "detail": str(gone)}
        else:
            if "detail" not in reply:
                return reply
            if reply["reason"] == "out_of_memory":
                self._end()  # a heap that has been full cannot be trusted
            words = self._last_words() if reply["reason"] != "missing" else ""
        detail = "; ".join(filter(None, [reply["detail"], words]))
        raise UnreadableClip(reply["reason"], detail, sha256=reply.get("sha256", ""))

    @property
    def usable(self) -> bool:
        """Whether it runs and can read another clip."""
        return not self._ended and self._process.poll() is None

    def kill(self) -> None:
        """End the process at once; safe from any thread."""
        self._process.kill()

    def close(self) -> None:
        """Kill and reap the process, and close its descriptors."""
        self._end()
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        for fd in (self._log_fd, self._lifeline, self._replies):
            os.close(fd)

    def _end(self) -> None:
        self._ended = True
        self.kill()
        # A process stuck in the kernel (a dead network mount) goes when the kernel lets it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_S)

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def _receive(self, limit_s: float, stall_s: float) -> dict[str, Any]:
        poll = select.poll()
        poll.register(self._replies, select.POLLIN)
        waited = stalled = 0.0
        before, count = time.monotonic(), self._slots.counter(self._number)
        while b"\n" not in self._unread:
            if poll.poll(_TICK_S * 1000):
                part = os.read(self._replies, 1 << 16)
                if not part:
                    raise self._gone()
                self._unread += part
                continue
            now, seen = time.monotonic(), self._slots.counter(self._number)
            passed = min(now - before, 2 * _TICK_S)
            waited += passed
            stalled = stalled + passed if seen == count else 0.0
            before, count = now, seen
            if stalled > stall_s or waited > limit_s:
                self._end()
                what = f"no frame for {stall_s:g} s" if stalled > stall_s else f"over {limit_s:g} s"
                raise _Gone(what, "timed_out")
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)  # type: ignore[no-any-return]

    def _gone(self) -> _Gone:
        code = self._process.wait()  # only the system, short of memory, or a person sends SIGKILL
        if code == -signal.SIGKILL:
            return _Gone(_ending(code), "out_of_memory", was_killed=True)
        return _Gone(_ending(code), "decoder_crashed")

    def _last_words(self) -> str:
        size = os.fstat(self._log_fd).st_size
        text = os.pread(self._log_fd, _LOG_TAIL, max(0, size - _LOG_TAIL))
        lines = [line.strip() for line in text.decode(errors="replace").splitlines()]
        return " | ".join([line for line in lines if line][-3:])


def _asked(part: Part | None) -> dict[str, Any]:
    """The part of a file, and the parts that it is read with, as the child takes them.

    A file alone, as a whole, has no `spans`: it is read in a way of its own.
    """
    if part is None:
        return {"spans": [], "number": 0, "sha256": "", "file": 0}
    spans = [] if part.of.spans == (WHOLE,) else [astuple(span) for span in part.of.spans]
    asked = {"spans": spans, "number": part.number, "sha256": part.of.sha256}
    return {**asked, "file": part.of.number}


class _Gone(Exception):
    """The process ended, or was ended, before it answered; `reason` is the clip's."""

    def __init__(self, what: str, reason: str, was_killed: bool = False) -> None:
        super().__init__(what)
        self.reason, self.was_killed = reason, was_killed


def _ending(code: int) -> str:
    if code >= 0:
        return f"the decoder process ended with status {code}"
    try:
        return f"the decoder process died of {signal.Signals(-code).name}"
    except ValueError:
        return f"the decoder process died of signal {-code}"


def _clip_frames(
    reply: dict[str, Any], slots: FrameSlots, slot: int, plans: Sequence[int]
) -> ClipFrames:
    """The frames of the first plan, with those of further ones. All released, the slot is free again.

    plans: the numbers of those that took frames
    """
    lent, lock = set(plans), threading.Lock()

    def release(number: int) -> None:
        with lock:
            last = lent == {number}  # a second call does nothing
            lent.discard(number)
        if last:
            slots.take_back(slot)

    def part(number: int, told: dict[str, Any]) -> ClipFrames:
        windows, gaps_s = told["windows"], told["gaps_s"]
        return ClipFrames(
            frames=slots.frames(slot, tuple(told["frames_shape"]), plan=number),
            place=slots.place(slot, number),
            frame_index=np.array(told["frame_index"], dtype=np.int32),
            timestamp=np.array(told["timestamp"], dtype=np.float32),
            windows=None if windows is None else np.array(windows, dtype=np.int32),
            gaps_s=None if gaps_s is None else np.array(gaps_s, dtype=np.float64),
            release=functools.partial(release, number),
            sha256=reply["sha256"],
            previews=tuple(base64.b64decode(picture) for picture in told["previews"]),
            **told["clip"],
        )

    first, *further = (part(*each) for each in zip(plans, reply["clips"], strict=True))
    return replace(first, further=tuple(further))
