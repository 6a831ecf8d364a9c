"""Limits of a server's requests, and the counters that enforce them.

Two quantities are not limited here. Messages that are still arriving by gRPC are known to its
library alone: at worst they take `max_body` for each arriving call (`grpc_arrivals.py`). And the
size of an answer depends on the model; a client that does not read its answer is disconnected
(`connections.py`).
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator

from tfgad.serving.errors import ServingError
from tfgad.serving.file_cost import MAX_PIXELS, MEBI


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a server. Times are in seconds.

    Attributes:
        max_body: bytes of a REST body, and of an incoming gRPC message.
        max_pixels: pixels of one image. A model exported by tfgad that scores images at native
            resolution scores large ones block by block: their memory is bounded and only the time
            grows; see `large_images.py`.
        max_images: how many images of `max_pixels` one request may amount to. A PNG of one colour
            can have a thousandth of the bytes of its pixels, so that the body's size is no bound.
        max_files: images of one request. Reading the head of a file takes 40 to 70 us, thus half a
            second for as many, while other requests wait for Python's lock. A tiny image in an
            array takes as long to score as a tile, 1 ms or more, and so many wait in one queue.
        max_concurrency: requests in progress, REST and gRPC together.
        max_bodies: bytes of all bodies in progress, REST and gRPC together.
        max_connections: connections of REST, and of gRPC. If there are more, the connection that
            has been idle for longest is closed. Lower if the process may open fewer files.
        request_timeout: from the complete request to its answer; TF Serving's is 30.
        body_timeout: for a body to arrive, in addition to one second for each 64 KiB of it.
        header_timeout: for a request's head to arrive.
        drain_timeout: for requests in progress when the server is stopped. Streams that only keep
            the inspection page open end at once.
    """

    max_body: int = 64 * MEBI
    max_pixels: int = MAX_PIXELS
    max_images: int = 4
    max_files: int = 2**13
    max_concurrency: int = 256
    max_bodies: int = 512 * MEBI
    max_connections: int = 4096
    request_timeout: float = 60.0
    body_timeout: float = 30.0
    header_timeout: float = 10.0
    drain_timeout: float = 30.0


class Admission:
    """A counter of the requests in progress that refuses requests over its limit."""

    def __init__(self, max_concurrency: int):
        self._free, self._lock = max_concurrency, threading.Lock()
        self._max = max_concurrency

    @property
    def in_progress(self) -> int:
        """The number of requests in progress."""
        return self._max - self._free

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request while the context is open.

        Raises:
            ServingError: UNAVAILABLE, the limit is reached.
        """
        with self._lock:
            if self._free == 0:
                problem = f"{self._max} requests are in progress, which is the limit"
                raise ServingError("UNAVAILABLE", f"{problem} (--max-concurrency)")
            self._free -= 1
        try:
            yield
        finally:
            with self._lock:
                self._free += 1


class Turns:
    """A semaphore that serves its waiting threads in their order of arrival.

    `threading.Semaphore` has no order: a thread that releases and acquires it again may overtake
    those that wait, so that one busy model could block all others.
    """

    def __init__(self, most: int):
        self._free, self._lock = most, threading.Lock()
        self._waiting: collections.deque[threading.Event] = collections.deque()

    @property
    def waiting(self) -> int:
        """The number of waiting threads."""
        return len(self._waiting)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Waits for a turn, and holds it while the context is open."""
        turn = threading.Event()
        with self._lock:
            if self._free:
                self._free -= 1
                turn.set()
            else:
                self._waiting.append(turn)
        turn.wait()
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().set()
                else:
                    self._free += 1


class Memory:
    """A counter of the bytes that requests in progress hold; it refuses more than its limit."""

    def __init__(self, most: int):
        self._most, self._held, self._lock = most, 0, threading.Lock()

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that counts further bytes; all are released at the end.

        The function raises a ServingError, UNAVAILABLE, if the limit would be exceeded.
        """
        own = 0

        def hold(size: int) -> None:
            nonlocal own
            with self._lock:
                if self._held + size > self._most:
                    problem = f"the bodies in progress hold {self._most} bytes, which is the limit"
                    raise ServingError("UNAVAILABLE", f"{problem} (--max-bodies)")
                self._held += size
                own += size

        try:
            yield hold
        finally:
            with self._lock:
                self._held -= own
