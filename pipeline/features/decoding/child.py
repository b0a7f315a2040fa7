"""The decoder process: reads clips one at a time, on one thread, for `decoding.process`.

It reads one line of JSON per clip and writes one; frames go into the shared slot. It dies at once
when its parent does, whatever it is doing.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import fnmatch
import itertools
import json
import mmap
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

LARGEST_LOG = 1 << 20
"""Most bytes that the decoders may log about one clip."""

VARIABLE = "PIXELS_ONCE_FAULTS"


def main() -> None:
    """Serve until the parent closes the requests or dies. Settings are `sys.argv[1]`, as JSON."""
    settings = json.loads(sys.argv[1])
    die_with_parent(settings["lifeline_fd"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_LOG, LARGEST_LOG))

    import av.logging
    import cv2

    from pipeline.features.decoding.slots import counter, view
    from pipeline.features.decoding.values import FramePlan

    # FFmpeg logs to standard error, the log of this process, not through Python.
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)
    cv2.setNumThreads(1)
    plans = [FramePlan.from_dict(values) for values in settings["plans"]]
    memory = mmap.mmap(settings["frames_fd"], 0)
    progress = counter(memory, settings["process"])

    def count() -> None:
        progress[0] += 1

    def answer(reply: dict[str, Any]) -> None:
        os.write(settings["reply_fd"], json.dumps(reply).encode() + b"\n")

    limit_memory(settings["memory_bytes"])
    answer({"ready": True})
    opened = Opened(plans, count)
    for line in sys.stdin:
        request = json.loads(line)
        os.ftruncate(sys.stderr.fileno(), 0)
        count()
        # Hashed before it is read: bytes that change in between make the next run look again.
        digest = opened.digest(request)
        places = zip(request["plans"], request["offsets"], strict=True)
        rooms = [view(memory, offset, plans[number].frames_shape) for number, offset in places]
        reply = _decode(opened, request, rooms, previews=settings["previews"])
        answer({**reply, "sha256": digest})


class Opened:
    """The file whose parts are being read: it stays open, and its hash known, until the last is."""

    def __init__(self, plans: list[Any], count: Callable[[], None]) -> None:
        self._plans, self._count = plans, count
        self._of: Any = None  # path, parts
        self._digest = ""
        self._readers: list[Any] = []

    def digest(self, request: dict[str, Any]) -> str:
        """The SHA-256 of the request's file; whichever file was open before is closed."""
        from pipeline.features.files import sha256_if_readable

        if request["rows"]:
            return ""  # it is not read now
        of = (request["path"], request["file"], request["spans"])
        if self._of != of or not request["spans"]:
            self._close()
            known = request["sha256"]
            self._digest = known or sha256_if_readable(request["path"], on_read=self._count)
            self._of = of
        return self._digest

    def read(self, request: dict[str, Any], rooms: list[Any]) -> list[Any]:
        """What each plan asked for takes of the clip. Raises as `read_streams` and `PartReader`.

        rooms: of those plans
        """
        from pipeline.errors import UnreadableClip
        from pipeline.features.decoding.reading import read_streams

        plans = [self._plans[number] for number in request["plans"]]
        if not request["spans"]:
            return read_streams(request["path"], plans, rooms, on_progress=self._count)
        try:
            clips: dict[int, Any] = {}
            for members, reader in self._part_readers(request, plans):
                its = reader.read_each(request["number"], [rooms[i] for i in members])
                clips |= dict(zip(members, its, strict=True))
            return [clips[i] for i in range(len(plans))]
        except UnreadableClip:
            raise  # of this part alone
        except BaseException:  # whoever reads on from there cannot know where that is
            self._close()
            raise
        finally:
            if self._readers and not self._readers[0][1].left:
                self._close()

    def rows(self, request: dict[str, Any]) -> list[int]:
        """The rows that the request's file makes."""
        from pipeline.features.decoding.lengths import rows_of_file

        row_s, first_s = request["rows"]
        return rows_of_file(request["path"], row_s, first_s, self._count)

    def _part_readers(self, request: dict[str, Any], plans: list[Any]) -> list[Any]:
        """(the plans' places, a reader of the file's parts) for plans that take the same frames.

        Parts are decoded once for each.
        """
        from pipeline.features.decoding.parts import PartReader
        from pipeline.spans import Span

        if not self._readers:
            spans = [Span(*bounds) for bounds in request["spans"]]
            alike: dict[Any, list[int]] = {}
            for place, plan in enumerate(plans):
                alike.setdefault(plan.taking, []).append(place)
            with contextlib.ExitStack() as opened:
                readers = []
                for members in alike.values():
                    first, *further = (plans[place] for place in members)
                    reader = PartReader(request["path"], first, spans, self._count, further=further)
                    opened.callback(reader.close)
                    readers.append((members, reader))
                opened.pop_all()
            self._readers = readers
        return self._readers

    def _close(self) -> None:
        for _, reader in self._readers:
            reader.close()
        self._of, self._readers = None, []


def _decode(
    opened: Opened, request: dict[str, Any], rooms: list[Any], *, previews: bool
) -> dict[str, Any]:
    import cv2

    from pipeline.errors import UnreadableClip
    from pipeline.features.previews import preview_pictures

    try:
        act_out_fault(request["path"])
        if request["rows"]:
            return {"rows": opened.rows(request)}
        clips = opened.read(request, rooms)
        pictures = [preview_pictures(clip.frames) if previews else () for clip in clips]
    except UnreadableClip as error:
        return {"reason": error.reason, "detail": error.detail}
    except MemoryError:
        return {"reason": "out_of_memory", "detail": "decoding reached the memory limit"}
    except cv2.error as error:
        full = error.code == cv2.Error.StsNoMem
        reason = "out_of_memory" if full else "decoder_crashed"
        return {"reason": reason, "detail": str(error.err)}
    except Exception as error:
        return {"reason": "decoder_crashed", "detail": f"{type(error).__name__}: {error}"}
    return {"clips": [_reply(*pair) for pair in zip(clips, pictures, strict=True)]}


def _reply(clip: Any, previews: tuple[bytes, ...]) -> dict[str, Any]:
    return {
        "previews": [base64.b64encode(picture).decode() for picture in previews],
        "clip": {**clip.facts, "reason": clip.reason, "decode_s": clip.decode_s},
        "frames_shape": clip.frames.shape,
        "windows": None if clip.windows is None else clip.windows.tolist(),
        "gaps_s": None if clip.gaps_s is None else clip.gaps_s.tolist(),
        "frame_index": clip.frame_index.tolist(),
        "timestamp": clip.timestamp.tolist(),
    }


def die_with_parent(lifeline_fd: int) -> None:
    """Have the kernel kill this process when the other end of the lifeline closes.

    `SIGIO` is sent when the last writer of the pipe goes, and by default it kills, without a line
    of this program being run: a decoder that never returns or keeps the GIL dies too.
    (The parent-death signal of `prctl` would fire when the parent's starting *thread* ends.)
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGIO])
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline_fd, fcntl.F_GETFL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()
    poll.register(lifeline_fd, select.POLLHUP)
    if poll.poll(0):  # the parent died before the signal was set up
        os._exit(1)


def limit_memory(memory_bytes: int) -> None:
    """Let the address space grow by at most `memory_bytes` from here on."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * mmap.PAGESIZE
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = now + memory_bytes if hard == resource.RLIM_INFINITY else min(hard, now + memory_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


# What `PIXELS_ONCE_FAULTS` names makes a decoder process misbehave for real, for tests.
_FAULTS: dict[str, Callable[[], object]] = {
    "segfault": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(1e8),
    # PyDLL keeps the GIL: no thread and no Python signal handler of this process runs again.
    "spin_gil": lambda: ctypes.PyDLL(None).sleep(1_000_000),
    # The limit counts allocations: pages that are never touched count too, and cost no time.
    "eat_memory": lambda: [bytes(16 << 20) for _ in itertools.count()],
}


def act_out_fault(path: str) -> None:
    """Act out the fault that is set for this clip's file name, if any.

    The variable holds a JSON object: a pattern of file names (as in `fnmatch`) → a name of `_FAULTS`.
    """
    for pattern, fault in json.loads(os.environ.get(VARIABLE) or "{}").items():
        if fnmatch.fnmatch(os.path.basename(path), pattern):
            _FAULTS[fault]()


if __name__ == "__main__":
    main()
