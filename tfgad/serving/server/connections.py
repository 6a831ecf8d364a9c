"""The connections of the REST interface: none keeps the server waiting at the expense of others.

A connection is a file, of which a process may have so many. Whoever holds one without using it, or
sends a request so slowly that it never ends, gives way to those who come: of the connections that
keep the server waiting, the one that has done so for longest is closed once there are too many.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import time

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tfgad.serving.server.limits import Limits

# What `accept` says where the system has no room for one more connection.
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
CLOSED_FOR_ROOM = 8  # connections that are closed when that happens
# Between two times. For one full table of descriptors the event loop says it up to BACKLOG times at
# once, before what was closed is free; it accepts again after a second.
SECONDS_BETWEEN_ROOM = 1.0
SECONDS_BETWEEN_LINES = 60.0  # of the log, about the same
SLOW_SECONDS = 5.0  # after which a body may have to give way: 64 MiB come at 13 MiB a second
PROBE_SECONDS = 1.0  # between two looks whether a caller is still there

log = logging.getLogger(__name__)


class Connections:
    """The open connections, and which of them keep the server waiting.

    All of it happens in the event loop's thread.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int):
        self._most = most
        self._open: set[H11Protocol] = set()
        # Since when each keeps the server waiting, the one that has done so for longest first.
        self._waiting: dict[H11Protocol, float] = {}
        self._said = -math.inf
        self._made_room = -math.inf

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, connection: H11Protocol) -> None:
        """Takes a new connection in; if there are too many, another is closed."""
        self._open.add(connection)
        self.waits(connection)
        if len(self._open) > self._most:
            self._say(f"there are more than {self._most} connections (--max-connections)")
            self.close_longest()

    def waits(self, connection: H11Protocol) -> None:
        """Notes that from now on the server waits for what comes from a connection."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = time.monotonic()

    def works(self, connection: H11Protocol) -> None:
        """Notes that a connection waits for the server."""
        self._waiting.pop(connection, None)

    def lost(self, connection: H11Protocol) -> None:
        """Forgets a connection."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def close_longest(self) -> None:
        """Closes the connection that has kept the server waiting for longest."""
        self._close(next(iter(self._waiting), None))

    def close_slow_body(self) -> bool:
        """Closes the connection whose body has been coming for longest, if that is long.

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

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict) -> None:
        """Handles the event loop's errors.

        It says of each connection that cannot be accepted that it cannot, up to thousands a second.
        """
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in NO_ROOM):
            loop.default_exception_handler(context)
            return
        self._say(f"no connection can be accepted ({os.strerror(error.errno)})")
        now = time.monotonic()
        if now - self._made_room < SECONDS_BETWEEN_ROOM:
            return
        self._made_room = now
        for _ in range(CLOSED_FOR_ROOM):
            self.close_longest()

    def _say(self, problem: str) -> None:
        if time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            log.warning("%s; those that were idle for longest are closed", problem)


def protocol(limits: Limits, connections: Connections) -> type[H11Protocol]:
    """Returns uvicorn's protocol, but for five things.

    1. It closes a connection whose request head does not end, or whose answer is not read; uvicorn
       waits for ever.
    2. It tells `connections` what it waits for.
    3. It gives up a request whose body is no HTTP; uvicorn answers twice, with a traceback.
    4. It answers a client that has sent a whole request and closed its side for writing; uvicorn
       closes the connection.
    5. A client that has gone looks the same at first. So such a client is sent "100 Continue" now
       and then: if it has gone, that fails.

    h11 bounds the size of a head (64 KiB); the quicker httptools does not.
    """

    class Impatient(H11Protocol):
        _head: asyncio.TimerHandle | None = None  # ends the wait for a head
        _reading: asyncio.TimerHandle | None = None  # ends the wait for who reads an answer
        _probe: asyncio.TimerHandle | None = None
        _begun = None  # the request, as its cycle, that is known to have begun

        def connection_made(self, transport) -> None:
            super().connection_made(transport)
            self._wait_for_head()
            connections.opened(self)

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
            connections.waits(self)
            self._note_wait()  # the next request may have come already

        def eof_received(self) -> bool:
            is_tls = self.transport.get_extra_info("sslcontext") is not None  # no half is closed
            is_whole = self.conn.their_state in (h11.DONE, h11.MUST_CLOSE)
            if self._answers() and is_whole and not is_tls:
                self.cycle.keep_alive = False
                self._look_whether_gone()
                return True
            return False

        def send_400_response(self, message: str) -> None:
            if self._answers():  # it is the body that is no HTTP: uvicorn would answer twice
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

        def connection_lost(self, error) -> None:
            for timer in (self._head, self._reading, self._probe):
                _cancel(timer)
            connections.lost(self)
            super().connection_lost(error)

        def _answers(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _note_wait(self) -> None:
            if self._answers() and self.conn.their_state is not h11.SEND_BODY:
                connections.works(self)
            elif self.cycle is not self._begun:  # a body comes, which is no idleness
                self._begun = self.cycle
                connections.waits(self)

        def _wait_for_head(self) -> None:
            self._head = self.loop.call_later(limits.header_timeout, self.transport.abort)

        def _wait_for_reader(self, left: int | None = None) -> None:
            """Hangs up if nothing was read since there were so many bytes left."""
            now = self.transport.get_write_buffer_size()
            if left is not None and now >= left:
                self.transport.abort()
                return
            self._reading = self.loop.call_later(limits.body_timeout, self._wait_for_reader, now)

        def _look_whether_gone(self) -> None:
            """Writes what every client passes over: who has gone answers that by a reset."""
            if not self._answers() or self.cycle.response_started or self.transport.is_closing():
                return
            if self.conn.their_http_version == b"1.1":  # before, there was nothing of the kind
                event = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
                self.transport.write(self.conn.send(event))
            self._probe = self.loop.call_later(PROBE_SECONDS, self._look_whether_gone)

    return Impatient


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
