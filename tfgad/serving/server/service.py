"""The answers to requests, whichever way they come."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tfgad.serving.server import image_sizes
from tfgad.serving.server.batching import Arrays, Batching, ClosedError
from tfgad.serving.server.errors import ServingError
from tfgad.serving.server.limits import Admission, Limits, Memory
from tfgad.serving.server.metrics import Metrics
from tfgad.serving.server.repository import Repository
from tfgad.serving.server.servable import Servable
from tfgad.serving.server.signature import Signature

log = logging.getLogger(__name__)


class Service:
    """The models of a folder, with limits and metrics.

    Attributes:
        models: what the folder holds.
        limits: of requests.
        metrics: what was counted.
        memory: what the bodies of requests in progress hold, REST and gRPC together.
        make_room: lets go of a body that has been coming for long; returns whether there was one.
    """

    def __init__(self, folder: Path, batching: Batching, limits: Limits):
        self.limits = limits
        self._admission = Admission(limits.max_concurrency)
        self.memory = Memory(limits.max_bodies)
        self.make_room: Callable[[], bool] = lambda: False
        self.metrics = Metrics(self._admission)
        self.models = Repository(folder, batching, self.metrics.batch)
        self.metrics.observe_models(self.models)

    def submit(
        self,
        name: str,
        number: int | None,
        signature: str,
        inputs: Callable[[Signature], Arrays],
    ) -> tuple[Servable, concurrent.futures.Future]:
        """Queues a request.

        Args:
            name: of the model.
            number: of the version; None for the one in service.
            signature: its name; empty for the default.
            inputs: makes the inputs for a signature; called again if the version is retired
                meanwhile, since the next may want others.

        Returns:
            The version that answers, and a future of its outputs.

        Raises:
            ServingError: the request cannot be answered.
        """
        while True:
            servable = self.models.find(name, number)
            wanted = servable.signature(signature)
            arrays = inputs(wanted)
            wanted.check(arrays)
            rows = image_sizes.measure(arrays, self.limits)
            try:
                return servable, servable.submit(wanted, arrays, rows)
            except ClosedError:
                continue

    def outputs(self, future: concurrent.futures.Future, seconds: float) -> dict[str, np.ndarray]:
        """Waits for outputs.

        Raises:
            ServingError: the run's, DEADLINE_EXCEEDED, or CANCELLED if the future was.
        """
        try:
            return future.result(timeout=max(0.0, seconds))
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise too_late(self.limits) from None
        except concurrent.futures.CancelledError:
            raise ServingError("CANCELLED", "the caller no longer waits") from None

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Holds a place while a request is in progress; see `Admission`."""
        with self._admission.admitted():
            yield


class Call:
    """Counts a request and turns whatever it raises into a `ServingError`.

    with Call(service, "REST", "Predict") as call:
        call.model = name
        ...
    """

    def __init__(self, service: Service, api: str, method: str):
        self._service, self._api, self._method = service, api, method
        self._start = time.monotonic()
        self.model = ""

    def __enter__(self) -> Call:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        code = "OK"
        if isinstance(error, Exception):
            error = error if isinstance(error, ServingError) else _unforeseen(error)
            code = error.code
        elif error is not None:  # the task was cancelled
            code = "CANCELLED"
        seconds = time.monotonic() - self._start
        self._service.metrics.request(self._api, self._method, self.model, code, seconds)
        if isinstance(error, ServingError):
            raise error


def too_late(limits: Limits) -> ServingError:
    """Returns the error of a request whose time is up."""
    problem = f"the time for this request is up: it has {limits.request_timeout:g} s at most"
    return ServingError("DEADLINE_EXCEEDED", f"{problem} (--timeout)")


def _unforeseen(error: Exception) -> ServingError:
    """Logs a mistake of the server's own, of which the caller learns no more than that."""
    log.error("a request failed: %r", error, exc_info=error)
    return ServingError("INTERNAL", "internal error; see the server's log")
