"""A proxy before a real HTTP server that delays, refuses or cuts off requests by their number: always the same ones.

with faulty_proxy(url, lambda number: ResetAfter(100) if number % 3 == 0 else None) as proxy: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Respond:
    """The proxy responds, and the server never sees the request.

    Attributes:
        status: Such as "503 Slow Down".
        code: As S3 names the error.
        message: As S3 phrases it.
    """

    status: str
    code: str
    message: str

    def to(self, request: bytes) -> bytes:
        """Return the response; to HEAD it has no body."""
        body = f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>".encode()
        fields = {"Content-Type": "application/xml", "Content-Length": len(body), "Connection": "close"}
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        return "\r\n".join(lines).encode() + (b"" if request.startswith(b"HEAD ") else body)


@dataclass(frozen=True)
class ResetAfter:
    """The connection is reset after so many bytes of the server's response."""

    num_bytes: int


@dataclass(frozen=True)
class Wait:
    """The request is held back for a while."""

    seconds: float


Fault = Respond | ResetAfter | Wait
_METHODS = (b"GET ", b"PUT ", b"HEAD ", b"POST ", b"DELETE ")


class FaultyProxy:
    """What a test sees of it.

    Attributes:
        url: Its address.
        num_requests: How many it has seen.
        num_faults: How many of them it has disturbed.
    """

    def __init__(self, url: str, fault: Callable[[int], Fault | None]) -> None:
        behind = urlsplit(url)
        self._host, self._port = behind.hostname, behind.port
        self._fault = fault
        self.url = ""
        self.num_requests = self.num_faults = 0

    async def serve(self, is_ready: threading.Event, is_over: asyncio.Event) -> None:
        """Serve until the event."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        is_ready.set()
        await is_over.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(self._host, self._port)
        left: list[int | None] = [None]  # bytes of a response until the reset; None: none is planned
        tasks = [
            asyncio.ensure_future(self._requests(reader, behind_writer, writer, left)),
            asyncio.ensure_future(self._responses(behind_reader, writer, left)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for side in (writer, behind_writer):
            side.close()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        behind: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        left: list[int | None],
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if data.startswith(_METHODS):
                    self.num_requests += 1
                    fault = self._fault(self.num_requests)
                    self.num_faults += fault is not None
                    if isinstance(fault, Respond):
                        client.write(fault.to(data))
                        await client.drain()
                        return
                    if isinstance(fault, Wait):
                        await asyncio.sleep(fault.seconds)
                    if isinstance(fault, ResetAfter):
                        left[0] = fault.num_bytes
                behind.write(data)
                await behind.drain()

    async def _responses(
        self, behind: asyncio.StreamReader, client: asyncio.StreamWriter, left: list[int | None]
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await behind.read(1 << 16):
                if left[0] is not None and len(data) > left[0]:
                    client.write(data[: left[0]])
                    await client.drain()
                    client.transport.abort()  # a reset, not an orderly end
                    return
                if left[0] is not None:
                    left[0] -= len(data)
                client.write(data)
                await client.drain()


@contextlib.contextmanager
def faulty_proxy(url: str, fault: Callable[[int], Fault | None]) -> Iterator[FaultyProxy]:
    """Run a proxy in a thread.

    Args:
        url: Of the server behind it.
        fault: What happens to the n-th request, from 1; None: nothing.
    """
    proxy, is_ready = FaultyProxy(url, fault), threading.Event()
    loop = asyncio.new_event_loop()
    is_over = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(proxy.serve(is_ready, is_over),))
    thread.start()
    is_ready.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(is_over.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
