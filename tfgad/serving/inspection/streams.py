"""Streams of the page: their number, and their end when the server is stopped.

A browser keeps a stream open for as long as it shows the page, so that a server that waited for
their end would not stop before its limit of time.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Send

LOG_SECONDS = 60.0  # between two lines on broken streams
BUSY_SECONDS = 0.05  # between two checks whether the events of a session have ended

log = logging.getLogger(__name__)


class Streams:
    """The open streams: answers that do not end, and hold a connection each.

    Only the event loop's thread uses it.

    Args:
        most: limit of all streams; those of one network may be half as many.
    """

    def __init__(self, most: int):
        self._most, self._most_of_one = most, max(1, most // 2)
        self._open: collections.Counter[str] = collections.Counter()  # by network

    @contextlib.contextmanager
    def held(self, network: str) -> Iterator[str]:
        """Counts a stream while the context is open; yields why it is refused, or an empty text."""
        if self._open.total() >= self._most:
            yield f"{self._most} streams are open, which is the limit: try again later"
            return
        if self._open[network] >= self._most_of_one:
            yield f"your address has {self._most_of_one} streams open, which is the limit"
            return
        self._open[network] += 1
        try:
            yield ""
        finally:
            self._open[network] -= 1
            self._open += collections.Counter()  # drops networks without streams


class ClosableStreams:
    """Passes on requests for streams until `close` is called.

    Only the event loop's thread uses it.

    Args:
        app: the application that answers them.
        is_busy: whether somebody reads the results of a session's events in progress.
    """

    def __init__(self, app: ASGIApp, is_busy: Callable[[str], bool]):
        self._app, self._is_busy = app, is_busy
        self._closing = asyncio.Event()
        self._broken, self._next_line = 0, 0.0  # broken streams since the last line of the log

    def close(self) -> None:
        """Ends the streams of all sessions, those of busy ones when they no longer are.

        The application sees visitors who disconnect, and frees what it keeps of them.
        """
        self._closing.set()

    async def answer(self, request: Request, session: str, send: Send) -> None:
        """Passes on a request; the stream ends properly even if the application fails.

        Args:
            request: the request.
            session: session of the visitor.
            send: sends the answer.

        Raises:
            Exception: the application failed before it had begun to answer.
        """
        has_started = is_complete = False

        async def sending(message: Message) -> None:
            nonlocal has_started, is_complete
            has_started = True
            is_complete = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        closed = asyncio.ensure_future(self._closed(session))
        try:
            await self._app(request.scope, _until(closed, request.receive), sending)
        except Exception as error:
            if not has_started:
                raise
            self._log_broken(error)
        finally:
            closed.cancel()
        if has_started and not is_complete:
            await send({"type": "http.response.body", "body": b""})

    async def _closed(self, session: str) -> None:
        """Waits until the streams of a session are to end."""
        await self._closing.wait()
        while self._is_busy(session):
            await asyncio.sleep(BUSY_SECONDS)

    def _log_broken(self, error: Exception) -> None:
        self._broken += 1
        now = time.monotonic()
        if now >= self._next_line:
            log.warning("%d streams of the page broke, the last by %r", self._broken, error)
            self._broken, self._next_line = 0, now + LOG_SECONDS


def _until(closed: asyncio.Future[None], receive: Receive) -> Receive:
    """Returns a `receive` that reports a disconnected client as soon as `closed` is done."""

    async def receiving() -> Message:
        received = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((received, closed), return_when=asyncio.FIRST_COMPLETED)
            return received.result() if received.done() else {"type": "http.disconnect"}
        finally:
            received.cancel()

    return receiving
