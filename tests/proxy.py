"""A faulty HTTP proxy on loopback: it passes requests on to a real server and breaks some by rule.

>>> with Proxy("http://127.0.0.1:5000") as proxy:                     # doctest: +SKIP
...     proxy.rule = nth(2, CUT_AFTER, lambda request: request.method == "PUT")
...     client(proxy.url)
...     [request.method for request in proxy.seen]

Where the server stands is the client's only setting that differs: the bytes are the client's own and the
server's own, keep-alive, chunked bodies and WebSockets too (`Host` stays as the client wrote it).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one request.

    forward: whether the server gets it; status: the answer in place of its own (0: its own),
    with `body` and `headers`; delay_s: before the answer; keep: the share of the answer's bytes that is
    sent before the connection is reset (1: all of it, and no reset).
    """

    name: str
    forward: bool = True
    status: int = 0
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    keep: float = 1.0

    def __str__(self) -> str:
        return self.name

    def saying(self, body: bytes, *headers: tuple[str, str]) -> Fault:
        """The same fault, whose answer has this body and these headers."""
        return replace(self, body=body, headers=headers)


CUT_BEFORE = Fault(name="cut before", forward=False, keep=0.0)
CUT_AFTER = Fault(name="cut after", keep=0.0)
ERROR_500 = Fault(name="500", forward=False, status=500)
LOST_500 = Fault(name="500 after", status=500)
BUSY_503 = Fault(name="503", forward=False, status=503)
LOST_503 = Fault(name="503 after", status=503)
FORBIDDEN_403 = Fault(name="403", forward=False, status=403)
MOVED_301 = Fault(name="301", forward=False, status=301)
SLOW = Fault(name="slow", delay_s=0.5)
HALF = Fault(name="half", keep=0.5)
FAULTS = (
    CUT_BEFORE,
    CUT_AFTER,
    ERROR_500,
    LOST_500,
    BUSY_503,
    LOST_503,
    FORBIDDEN_403,
    MOVED_301,
    SLOW,
    HALF,
)


@dataclass(slots=True, kw_only=True)
class Request:
    """A request as the proxy saw it; `status` is the server's answer (0: it was not asked).

    target: path and query as sent; body: as sent (a chunked one with its chunk headers).
    """

    number: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    status: int = 0
    fault: Fault | None = None

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The query's values, the last of each name."""
        found = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[-1] for name, values in found.items()}


Rule = Callable[[Request], Fault | None]


def nth(which: int, fault: Fault, of: Callable[[Request], bool], *, times: int = 1) -> Rule:
    """A rule that breaks the `which`-th (from 1) of the requests that `of` chooses, and those after it.

    `times` requests in all; a client that tries again sends another request.
    """
    seen = 0

    def rule(request: Request) -> Fault | None:
        nonlocal seen
        if not of(request):
            return None
        seen += 1
        return fault if which <= seen < which + times else None

    return rule


class Proxy:
    """A proxy before `target` (`http://host:port`), at `url`. A context manager.

    `rule` is asked once per request (in the proxy's thread, one request at a time) and may be set at any
    time; `seen` lists the requests in the order in which they came.
    """

    def __init__(self, target: str, rule: Rule | None = None) -> None:
        parts = urlsplit(target)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = parts.hostname, parts.port
        self.rule = rule
        self.seen: list[Request] = []
        self.port = 0
        self._away = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *error: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextlib.contextmanager
    def away(self) -> Any:
        """While this lasts, every connection is reset, open ones (WebSockets too) and new ones."""
        self._away = True
        self._loop.call_soon_threadsafe(self.cut)
        try:
            yield
        finally:
            self._away = False

    def cut(self) -> None:
        """Reset every open connection. Call it in the proxy's loop, or through `away`."""
        for writer in list(self._writers):
            _reset(writer)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _close(self) -> None:
        self._server.close()
        self.cut()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while not self._away and await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # either side has gone
        finally:
            self._writers.discard(writer)
            if self._away:
                _reset(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Pass one request on and its answer back; False where the connection is over."""
        head = await _head(reader)
        if head is None:
            return False
        first, headers = head
        method, target, _ = first.split(" ", 2)
        if headers.pop("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _body(reader, headers, until_end=False)
        request = Request(
            number=len(self.seen), method=method, target=target, headers=headers, body=body
        )
        request.fault = fault = self.rule(request) if self.rule is not None else None
        self.seen.append(request)
        answer, end = b"", False
        if fault is None or fault.forward:
            upstream_reader, upstream = await asyncio.open_connection(*self._target)
            self._writers.add(upstream)
            try:
                upstream.write(_bytes(first, headers) + body)
                answer_head = await _head(upstream_reader)
                while answer_head is not None and answer_head[0].split(" ", 2)[1] == "100":
                    answer_head = await _head(upstream_reader)
                if answer_head is None:
                    return False
                line, named = answer_head
                request.status = int(line.split(" ", 2)[1])
                if request.status == 101 and fault is None:
                    writer.write(_bytes(line, named))
                    await _tunnel(reader, writer, upstream_reader, upstream)
                    return False
                bare = method == "HEAD" or request.status in (101, 204, 304)
                content = b"" if bare else await _body(upstream_reader, named, until_end=True)
                end = named.get("connection", "").lower() == "close"
                answer = _bytes(line, named) + content
            finally:
                self._writers.discard(upstream)
                upstream.close()
        if fault is not None:
            if fault.status:
                answer = _answer(fault, method)
            await asyncio.sleep(fault.delay_s)
            if fault.keep < 1.0:
                writer.write(answer[: int(len(answer) * fault.keep)])
                await writer.drain()
                if fault.keep:
                    await asyncio.sleep(0.02)  # else the reset discards what was sent
                _reset(writer)
                return False
        writer.write(answer)
        await writer.drain()
        return not end


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    """The first line, and the headers by name in small letters; None at the connection's end."""
    lines: list[str] = []
    while True:
        line = (await reader.readline()).decode("latin-1")
        if not line:
            return None
        line = line.rstrip("\r\n")
        if line:
            lines.append(line)
        elif lines:
            break
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        # Cookies may come several times; nothing else of ours does.
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    return lines[0], headers


async def _body(reader: asyncio.StreamReader, headers: dict[str, str], *, until_end: bool) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        parts = []
        while True:
            line = await reader.readline()
            size = int(line.split(b";")[0], 16)
            parts += [line, await reader.readexactly(size + 2) if size else await _trailer(reader)]
            if not size:
                return b"".join(parts)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read() if until_end else b""


async def _trailer(reader: asyncio.StreamReader) -> bytes:
    lines = []
    while (line := await reader.readline()).strip():
        lines.append(line)
    return b"".join([*lines, b"\r\n"])


async def _tunnel(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upstream_reader: asyncio.StreamReader,
    upstream: asyncio.StreamWriter,
) -> None:
    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()

    await asyncio.gather(pump(reader, upstream), pump(upstream_reader, writer))


def _bytes(first: str, headers: dict[str, str]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _answer(fault: Fault, method: str) -> bytes:
    headers = {"content-length": str(len(fault.body)), **dict(fault.headers)}
    head = _bytes(f"HTTP/1.1 {fault.status} Faulty", headers)
    return head if method == "HEAD" else head + fault.body


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a crash or a firewall does: the other side sees a reset, not an end."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
