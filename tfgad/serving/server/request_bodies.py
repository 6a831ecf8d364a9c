"""Bodies of REST requests: read within the limits, or refused before they have arrived."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Send

from tfgad.serving.bodies import announced_size, timely
from tfgad.serving.errors import ServingError
from tfgad.serving.file_cost import MEBI
from tfgad.serving.server import encodings
from tfgad.serving.server.service import Service, timed_out

# Of a refused body some more is read and discarded. A client that reads the answer only after it
# has sent everything would find a broken connection otherwise.
DRAIN_SECONDS, DRAINED_BODIES = 10.0, 16
# Bodies that are decompressed at a time; the other threads of the pool parse and answer meanwhile.
# Small contents, which take 10 ms at most, do not wait for the large ones.
DECOMPRESSIONS, SMALL_CONTENT = 2, MEBI
ROOM_SECONDS = 0.01  # between two attempts to count bytes of a body


class _LargeError(Exception):
    """The content of a compressed body is not small."""


class BodyReader:
    """Reads the bodies of requests within the limits of a service."""

    def __init__(self, service: Service):
        self._service, self._limits = service, service.limits
        self._decompressing = asyncio.Semaphore(DECOMPRESSIONS)

    async def read(self, request: Request, hold: Callable[[int], None]) -> bytes:
        """Returns a body as it arrives; `decompressed` is the next step.

        Args:
            request: the request.
            hold: counts bytes; see `Memory.held`.

        Raises:
            ServingError: the body is too large, does not arrive in time, or has another encoding
                than gzip.
        """
        self._is_gzip(request)
        # A body that is announced as too large is refused before it arrives.
        self._check_size(announced_size(request.headers))
        try:
            return await self._arrived(request, hold)
        except TimeoutError:
            problem = "the body did not arrive in time: it has "
            problem += f"{self._limits.body_timeout:g} s (--body-timeout) and 1 s for each 64 KiB"
            raise ServingError("DEADLINE_EXCEEDED", problem, http_status=408) from None
        except ClientDisconnect:
            raise disconnected() from None

    async def decompressed(
        self, request: Request, body: bytes, hold: Callable[[int], None], deadline: float
    ) -> bytes:
        """Returns a body that has arrived, decompressed if it is gzip.

        Args:
            request: the request.
            body: its body.
            hold: counts bytes; see `Memory.held`.
            deadline: time of the monotonic clock by which it has to be done.

        Raises:
            ServingError: the content is too large or invalid, or the time is up.
        """
        if not self._is_gzip(request):
            return body

        def check_time() -> None:
            if time.monotonic() > deadline:
                raise timed_out(self._limits)

        def check_small(size: int) -> None:
            if size > SMALL_CONTENT:
                raise _LargeError

        try:
            content = await run_in_threadpool(
                encodings.decompress, body, check_small, lambda size: None, check_time
            )
        except _LargeError:
            async with self._decompressing:
                return await run_in_threadpool(
                    encodings.decompress, body, self._check_size, hold, check_time
                )
        self._check_size(len(content))
        hold(len(content))
        return content

    def _is_gzip(self, request: Request) -> bool:
        return encodings.is_gzip(request.headers.get("content-encoding", ""))

    async def _arrived(self, request: Request, hold: Callable[[int], None]) -> bytes:
        parts, size = [], 0
        async for part in timely(request, self._limits.body_timeout):
            size += len(part)
            self._check_size(size)
            await self._hold(hold, len(part))
            parts.append(part)
        return b"".join(parts)

    async def _hold(self, hold: Callable[[int], None], size: int) -> None:
        """Counts bytes of a body; if there is no room, slow bodies are dropped first."""
        while True:
            try:
                return hold(size)
            except ServingError:
                if not self._service.make_room():
                    raise
            await asyncio.sleep(ROOM_SECONDS)  # until the closed connection has released its bytes

    def _check_size(self, size: int) -> None:
        if size > self._limits.max_body:
            problem = f"the body is larger than {self._limits.max_body} bytes, which is the limit"
            problem += " (--max-body)"
            raise ServingError("RESOURCE_EXHAUSTED", problem, http_status=413)


class Incoming:
    """The ASGI `receive` of a request, which records whether more of the body may come.

    Attributes:
        more: whether more of the body may come.
    """

    def __init__(self, receive: Receive):
        self._receive, self.more = receive, True

    async def __call__(self) -> Message:
        """Returns the next event."""
        event = await self._receive()
        self.more = event["type"] == "http.request" and event.get("more_body", False)
        return event


async def refuse(request: Request, response: Response, send: Send, max_body: int) -> None:
    """Answers before the body has arrived, reads on for a while, then closes the connection.

    Args:
        request: the request.
        response: the answer.
        send: of ASGI.
        max_body: limit of a body, in bytes.
    """
    headers = [*response.raw_headers, (b"connection", b"close")]
    status = response.status_code
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    # A client that waits for "100 Continue" sends no body then.
    is_waiting = request.headers.get("expect", "").lower() == "100-continue"
    if status != 408 and not is_waiting:
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(_drain(request, DRAINED_BODIES * max_body), DRAIN_SECONDS)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(request: Request, most: int) -> None:
    while most > 0:
        event = await request.receive()
        most -= len(event.get("body", b""))
        if event["type"] == "http.disconnect" or not event.get("more_body"):
            return


def disconnected() -> ServingError:
    """Returns the error of a request whose client has disconnected."""
    return ServingError("CANCELLED", "the connection was closed")
