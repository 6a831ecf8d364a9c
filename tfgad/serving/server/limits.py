"""What a server takes at most: more is refused, or waits its turn.

Two things are not counted here. What gRPC holds of messages that are still arriving is known to its
library alone: at worst `max_body` for each call that may be arriving (`grpc_arrivals.py`). And an
answer is as large as the model makes it; whoever does not read it is left (`connections.py`).
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import threading
from collections.abc import Callable, Iterator

from tfgad.serving.server.errors import ServingError

try:
    import resource
except ImportError:  # Windows has none
    resource = None

MEBI = 2**20
# Descriptors that the process asks for at most, and those kept for what is no connection of REST:
# the page's pictures, files that are being loaded, gRPC's own.
MOST_OPEN_FILES, OTHER_FILES = 2**16, 192


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a server; those of time are in seconds.

    Attributes:
        max_body: bytes of a REST body, and of a gRPC message that comes in.
        max_pixels: of one image. Large ones are scored by blocks where the model is ours and scores
            images as they are, so that memory is flat and time alone grows; see `servable.py`.
        max_images: how many images of `max_pixels` one request may amount to. A PNG of one colour
            has a thousandth of the bytes of its pixels, so that the body's size is no bound.
        max_files: images that come as whole files in one request. To read the head of one takes 40
            to 70 us, which is half a second for as many, while others wait for Python's lock.
        max_concurrency: requests in progress, REST and gRPC together.
        max_bodies: bytes of all bodies in progress, REST and gRPC together.
        max_connections: of REST, and of gRPC. Once there are more, the one that has kept the server
            waiting for longest is closed. Fewer, where the process may not have as many files.
        request_timeout: from the whole request to its answer; TF Serving's is 30.
        body_timeout: for a body to arrive, beside a second for each 64 KiB of it.
        header_timeout: for a request's head to arrive.
        drain_timeout: for requests in progress once the server is told to stop.
    """

    max_body: int = 64 * MEBI
    max_pixels: int = 32 * MEBI
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
    """Counts the requests in progress and refuses those that are too many."""

    def __init__(self, max_concurrency: int):
        self._free, self._lock = max_concurrency, threading.Lock()
        self._max = max_concurrency

    @property
    def in_progress(self) -> int:
        """The number of requests in progress."""
        return self._max - self._free

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Holds a place while a request is in progress.

        Raises:
            ServingError: UNAVAILABLE, there is none.
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
    """Lets so many go on at once; the others follow in the order in which they came.

    A `threading.Semaphore` has no order: who lets go of it and comes again is there before those
    who wait, so that one busy model would keep all others waiting.
    """

    def __init__(self, most: int):
        self._free, self._lock = most, threading.Lock()
        self._waiting: collections.deque[threading.Event] = collections.deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Waits for a turn, and holds it."""
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
    """Counts the bytes that requests in progress hold, and refuses what is too much."""

    def __init__(self, most: int):
        self._most, self._held, self._lock = most, 0, threading.Lock()

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that is told of each further byte; all are let go at the end.

        It raises a ServingError, UNAVAILABLE, if there would be too many.
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


def raise_open_files(wanted: int = MOST_OPEN_FILES) -> int | None:
    """Lets the process open as many files as the system allows it, up to so many.

    A connection is a file, too, and the usual limit of 1,024 is made for programs of another kind.

    Returns:
        How many there may be now; None if there is no telling.
    """
    if resource is None:
        return None
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    better = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if now != resource.RLIM_INFINITY and now < better:
        with contextlib.suppress(OSError, ValueError):  # macOS has a limit below what it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (better, most))
            now = better
    return None if now == resource.RLIM_INFINITY else now


def most_connections(limits: Limits, files: int | None) -> int:
    """Returns how many connections each interface may have, when so many files may be open."""
    if files is None:
        return limits.max_connections
    return max(1, min(limits.max_connections, (files - OTHER_FILES) // 2))


def give_memory_back() -> None:
    """Gives freed memory back to the system, which glibc keeps for later otherwise."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
