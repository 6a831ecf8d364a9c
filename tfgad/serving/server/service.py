"""The service behind both interfaces: it submits requests to models, and counts them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from tfgad.serving.errors import ServingError
from tfgad.serving.server import image_sizes
from tfgad.serving.server.batch import Arrays
from tfgad.serving.server.batching import Batching, ClosedError
from tfgad.serving.server.limits import Admission, Limits, Memory
from tfgad.serving.server.metrics import Metrics
from tfgad.serving.server.repository import Repository
from tfgad.serving.server.servable import Servable
from tfgad.serving.server.signature import Signature

log = logging.getLogger(__name__)


class Service:
    """The models of a folder, with limits and metrics.

    Args:
        folder: folder of the models.
        batching: settings of batching.
        limits: limits of requests.

    Attributes:
        models: the models of the folder.
        limits: limits of requests.
        metrics: counters of requests and runs.
        memory: counter of the bytes of bodies in progress, REST and gRPC together.
        make_room: closes a connection whose body is slow; returns whether there was one.
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
            name: name of the model.
            number: number of the version; None for the version in service.
            signature: name of the signature; empty for the default.
            inputs: returns the inputs for a signature. It is called again if the version is retired
                meanwhile, since its successor may have another signature.

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

        Args:
            future: what `submit` returned.
            seconds: the longest wait.

        Raises:
            ServingError: the run failed; DEADLINE_EXCEEDED, the time is up; CANCELLED, the future
                was cancelled.
        """
        try:
            return future.result(timeout=max(0.0, seconds))
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise timed_out(self.limits) from None
        except concurrent.futures.CancelledError:
            raise ServingError("CANCELLED", "the caller has cancelled") from None

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request while the context is open; see `Admission`."""
        with self._admission.admitted():
            yield


class Call:
    """A context that counts a request, and turns all its errors into `ServingError`.

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        code = "OK"
        if isinstance(error, Exception):
            error = error if isinstance(error, ServingError) else _internal(error)
            code = error.code
        elif error is not None:  # the task was cancelled
            code = "CANCELLED"
        seconds = time.monotonic() - self._start
        self._service.metrics.request(self._api, self._method, self.model, code, seconds)
        if isinstance(error, ServingError):
            raise error


def timed_out(limits: Limits) -> ServingError:
    """Returns the error of a request that timed out."""
    problem = f"the request timed out after {limits.request_timeout:g} s"
    return ServingError("DEADLINE_EXCEEDED", f"{problem} (--timeout)")


def _internal(error: Exception) -> ServingError:
    """Logs an error of the server itself; returns one without details for the caller."""
    log.error("a request failed: %r", error, exc_info=error)
    return ServingError("INTERNAL", "internal error; see the server's log")
