"""The connections of the REST interface: idle and slow ones are closed if there are too many.

Each connection takes a file descriptor, and a process may have only so many. If there are too many
connections, the one that has kept the server waiting for longest is closed, whether it is idle or
sends its request slowly.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tfgad.serving.server.limits import Limits

# Errors of `accept` if the system has no room for one more connection.
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
CLOSED_FOR_ROOM = 8  # connections that are closed then
# Between two times. The event loop reports one full table of descriptors up to BACKLOG times at
# once, before the closed ones are free; it accepts again after a second.
SECONDS_BETWEEN_ROOM = 1.0
SECONDS_BETWEEN_LINES = 60.0  # between two lines of the log on the same problem
SLOW_SECONDS = 5.0  # after which a body may be dropped: 64 MiB need 13 MiB per second
PROBE_SECONDS = 1.0  # between two checks whether a client is still connected

log = logging.getLogger(__name__)


class Connections:
    """The open connections, and since when each keeps the server waiting.

    Only the event loop's thread uses it.

    Args:
        most: limit of connections.
    """

    def __init__(self, most: int):
        self._most = most
        self._open: set[H11Protocol] = set()
        # Connection -> since when it keeps the server waiting; the longest first.
        self._waiting: dict[H11Protocol, float] = {}
        self._logged = -math.inf
        self._made_room = -math.inf

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, connection: H11Protocol) -> None:
        """Adds a new connection; if there are too many, another one is closed."""
        self._open.add(connection)
        self.waits(connection)
        if len(self._open) > self._most:
            self._log(f"there are more than {self._most} connections (--max-connections)")
            self.close_longest()

    def waits(self, connection: H11Protocol) -> None:
        """Records that the server now waits for a connection."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = time.monotonic()

    def works(self, connection: H11Protocol) -> None:
        """Records that a connection now waits for the server."""
        self._waiting.pop(connection, None)

    def lost(self, connection: H11Protocol) -> None:
        """Removes a connection."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def close_longest(self) -> None:
        """Closes the connection that has kept the server waiting for longest."""
        self._close(next(iter(self._waiting), None))

    def close_slow_body(self) -> bool:
        """Closes the connection that has been sending its body for longest, if that is long.

        Returns:
            Whether there was one.
        """
        for connection, since in self._waiting.items():
            if connection.conn.their_state is h11.SEND_BODY:
                if time.monotonic() - since < SLOW_SECONDS:
                    return False
                self._close(connection)
                return True
        return False

    def _close(self, connection: H11Protocol | None) -> None:
        if connection is not None:
            self.lost(connection)
            connection.transport.abort()

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handles errors of the event loop.

        The loop reports every connection that cannot be accepted, up to thousands per second.
        """
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in NO_ROOM):
            loop.default_exception_handler(context)
            return
        self._log(f"no connection can be accepted ({os.strerror(error.errno)})")
        now = time.monotonic()
        if now - self._made_room < SECONDS_BETWEEN_ROOM:
            return
        self._made_room = now
        for _ in range(CLOSED_FOR_ROOM):
            self.close_longest()

    def _log(self, problem: str) -> None:
        if time.monotonic() - self._logged >= SECONDS_BETWEEN_LINES:
            self._logged = time.monotonic()
            log.warning("%s; those that were idle for longest are closed", problem)


class _RestProtocol(H11Protocol):
    """Uvicorn's protocol with five changes.

    1. It closes a connection whose request head does not end, or whose answer is not read; uvicorn
       waits for ever.
    2. It tells `registry` which side waits for the other.
    3. It aborts a request whose body is invalid HTTP; uvicorn answers twice, with a traceback.
    4. It answers a client that has sent a complete request and closed its writing side; uvicorn
       closes the connection.
    5. A client that has disconnected looks the same at first. So such a client is sent "100
       Continue" now and then, which fails if it has disconnected.

    h11 limits the size of a head (64 KiB); the faster httptools does not.

    Attributes:
        limits: limits of time.
        registry: the open connections.
    """

    limits: Limits
    registry: Connections

    _head: asyncio.TimerHandle | None = None  # timeout of a head
    _reading: asyncio.TimerHandle | None = None  # timeout of a client that reads an answer
    _probe: asyncio.TimerHandle | None = None
    _started = None  # the request, as its cycle, that has started

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()
        self.registry.opened(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            _cancel(self._head)
            self._head = None
        elif self._head is None:
            self._wait_for_head()
        self._note_wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.registry.waits(self)
        self._note_wait()  # the next request may have arrived already

    def eof_received(self) -> bool:  # type: ignore[override]
        # TLS connections have no half-closed state.
        is_tls = self.transport.get_extra_info("sslcontext") is not None
        is_whole = self.conn.their_state in (h11.DONE, h11.MUST_CLOSE)
        if self._is_answering() and is_whole and not is_tls:
            self.cycle.keep_alive = False
            self._check_presence()
            return True
        return False

    def send_400_response(self, message: str) -> None:
        if self._is_answering():  # the body is invalid HTTP: uvicorn would answer twice
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        super().send_400_response(message)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._reading)

    def connection_lost(self, error: Exception | None) -> None:
        for timer in (self._head, self._reading, self._probe):
            _cancel(timer)
        self.registry.lost(self)
        super().connection_lost(error)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _note_wait(self) -> None:
        if self._is_answering() and self.conn.their_state is not h11.SEND_BODY:
            self.registry.works(self)
        elif self.cycle is not self._started:  # a body arrives: the wait starts anew
            self._started = self.cycle
            self.registry.waits(self)

    def _wait_for_head(self) -> None:
        self._head = self.loop.call_later(self.limits.header_timeout, self.transport.abort)

    def _wait_for_reader(self, left: int | None = None) -> None:
        """Disconnects if the client has read nothing since `left` bytes were buffered."""
        now = self.transport.get_write_buffer_size()
        if left is not None and now >= left:
            self.transport.abort()
            return
        self._reading = self.loop.call_later(self.limits.body_timeout, self._wait_for_reader, now)

    def _check_presence(self) -> None:
        """Writes what every client ignores; one that has disconnected answers by a reset."""
        is_over = not self._is_answering() or self.cycle.response_started
        if is_over or self.transport.is_closing():
            return
        if self.conn.their_http_version == b"1.1":  # HTTP/1.0 has no such message
            event = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self.transport.write(self.conn.send(event))
        self._probe = self.loop.call_later(PROBE_SECONDS, self._check_presence)


def protocol(limits: Limits, connections: Connections) -> type[H11Protocol]:
    """Returns the protocol class of one server."""
    return type("BoundProtocol", (_RestProtocol,), {"limits": limits, "registry": connections})


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
