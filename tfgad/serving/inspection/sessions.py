"""Visitors of the inspection page, and whether they read their results."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator

# Limit of unread events of one network. A browser opens the stream of results as soon as its event
# is accepted, so that a tab has one unread event for the time of a round trip.
MAX_UNREAD = 8
# Seconds that an event waits for its stream of results: a slow connection needs a few round trips.
STREAM_PATIENCE = 5.0
# Seconds after which a session that nobody reads is forgotten, and its events no longer count.
SESSION_PATIENCE = 60.0


@dataclasses.dataclass
class _Session:
    """A visitor's open page.

    Attributes:
        network: network of the visitor.
        seen: when it last sent an event, or a stream of its results ended.
        unread: events that were accepted since then, while no stream was open.
        streams: number of open streams.
    """

    network: str
    seen: float
    unread: int = 0
    streams: int = 0


class Sessions:
    """The visitors' sessions, and whether their results are read. Any thread may use it.

    Args:
        max_unread: limit of unread events of one network.
        stream_patience: seconds that an event waits for its stream.
        session_patience: seconds after which a session that nobody reads is forgotten.
    """

    def __init__(
        self,
        max_unread: int = MAX_UNREAD,
        stream_patience: float = STREAM_PATIENCE,
        session_patience: float = SESSION_PATIENCE,
    ):
        self.max_unread = max_unread
        self._stream_patience, self._session_patience = stream_patience, session_patience
        self._known: dict[str, _Session] = {}
        self._changed = threading.Condition()

    def join(self, session: str, network: str) -> bool:
        """Counts an event; returns whether it may be accepted."""
        with self._changed:
            known = self._known.get(session)
            if known is None or not known.streams:
                unread = sum(e.unread for e in self._known.values() if e.network == network)
                if unread >= self.max_unread:
                    return False
            if known is None:
                known = self._known[session] = _Session(network, 0)
            elif not known.streams:
                known.network = network
            known.seen = time.monotonic()
            known.unread += not known.streams
            return True

    def withdraw(self, session: str) -> None:
        """Uncounts an event that was refused after all."""
        with self._changed:
            if session in self._known:
                self._known[session].unread = max(0, self._known[session].unread - 1)

    @contextlib.contextmanager
    def read(self, session: str) -> Iterator[bool]:
        """Counts a stream while the context is open; yields whether the session is known."""
        with self._changed:
            known = self._known.get(session)
            if known is not None:
                known.streams += 1
                known.unread = 0
                self._changed.notify_all()
        try:
            yield known is not None
        finally:
            if known is not None:
                with self._changed:
                    known.streams -= 1
                    known.seen = time.monotonic()

    def has_stream(self, session: str) -> bool:
        """Returns whether a stream of a session is open."""
        with self._changed:
            known = self._known.get(session)
            return known is not None and known.streams > 0

    def is_read(self, session: str) -> bool:
        """Returns whether a stream of a session is open; waits for one up to `stream_patience`."""
        with self._changed:
            known = self._known.get(session)
            if known is None:
                return False
            left = known.seen + self._stream_patience - time.monotonic()
            return self._changed.wait_for(lambda: known.streams > 0, max(0.0, left))

    def forget(self) -> list[str]:
        """Forgets the sessions that nobody has read for long, and returns them."""
        end = time.monotonic() - self._session_patience
        with self._changed:
            old = [k for k, each in self._known.items() if not each.streams and each.seen < end]
            for session in old:
                del self._known[session]
        return old
