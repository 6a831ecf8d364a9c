"""Batching: requests that arrive together share a run of the model.

Each signature of a version has a queue and a thread that empties it. While the thread runs a batch,
the next one gathers, so that an idle server answers at once and a busy one in batches. Only
requests of the same kind share a run (see `image_sizes.Rows`), and a request with more rows than a
batch is split. The design is that of TF Serving (tensorflow/core/kernels/batching_util).
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from tfgad.serving.errors import ServingError, invalid
from tfgad.serving.server.batch import (
    Arrays,
    Batch,
    QueuedRequest,
    inputs_of,
    is_one_whole_request,
)
from tfgad.serving.server.image_sizes import Rows

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Batching:
    """Settings of batching.

    Attributes:
        max_batch_size: rows of a run.
        timeout: seconds that the first request waits for others while the model is idle.
        max_cost: pixels of a run; a single image may have more. By default eight tiles of 128x128:
            on two cores the `ganomaly` of `saved_models/` took 44 ms per tile for one at a time, 34
            for eight, 42 for sixteen and 58 for 32. An accelerator needs more.
        max_queue: rows that wait; further ones are refused. A queued request counts with at most
            `max_batch_size` rows, a new one with all of its own.
        enabled: if False, each request has its own run, and `threads` runs are concurrent.
        threads: threads of a queue; one if runs are shared, since TensorFlow itself uses all cores.
    """

    max_batch_size: int = 32
    timeout: float = 0.0
    max_cost: int = 2**17
    max_queue: int = 1024
    enabled: bool = True
    threads: int = 1


class ClosedError(Exception):
    """The queue is closed: its version was retired."""


class Batcher:
    """A queue of requests for a function of arrays, and the threads that empty it.

    Args:
        run: from inputs to outputs, each with the batch as first axis; called without a lock.
        batching: settings.
        splits: whether requests may be batched and split; False if axis 0 is no batch axis.
        in_parts: whether `run` takes a second argument: a function that it calls between the parts
            of a run, and that returns whether all callers have cancelled.
        on_batch: called with the number of rows of each run.
    """

    def __init__(
        self,
        run: Callable[..., Arrays],
        batching: Batching,
        *,
        splits: bool = True,
        in_parts: bool = False,
        on_batch: Callable[[int], None] = lambda rows: None,
    ):
        self._run, self._batching, self._on_batch = run, batching, on_batch
        self._splits, self._in_parts = splits, in_parts
        self._queue: collections.deque[QueuedRequest] = collections.deque()
        self._queued_rows = 0
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._empty_queue, daemon=True, name=f"batches-{i}")
            for i in range(batching.threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued_rows(self) -> int:
        """The number of rows that wait for a run."""
        return self._queued_rows

    def submit(self, inputs: Arrays, rows: Rows) -> Future:
        """Queues a request.

        Args:
            inputs: arrays by name.
            rows: their number, cost and kind.

        Returns:
            A future of the outputs. When it is cancelled, the request leaves the queue.

        Raises:
            ServingError: UNAVAILABLE, the queue is full; INVALID_ARGUMENT, there are more rows than
                a batch holds and they cannot be split.
            ClosedError: the queue is closed.
        """
        if self._splits and rows.kind is None and rows.count > self._batching.max_batch_size:
            most = self._batching.max_batch_size
            problem = f"{rows.count} images of different sizes are more than {most}"
            raise invalid(f"{problem} (--max-batch-size)")
        with self._changed:
            if self._closed:
                raise ClosedError
            # A request larger than the queue is taken if nothing else is queued. Further ones wait
            # for one of its runs only.
            most = self._batching.max_batch_size
            waiting = sum(min(each.left, most) for each in self._queue)
            if self._queue and waiting + rows.count > self._batching.max_queue:
                problem = "The batch scheduling queue to which this task was submitted is full"
                raise ServingError("UNAVAILABLE", f"{problem} (--max-queue)")
            request = QueuedRequest(inputs, rows, time.monotonic())
            self._queue.append(request)
            self._queued_rows += rows.count
            self._changed.notify_all()
        request.answer.add_done_callback(
            lambda answer: self._drop(request) if answer.cancelled() else None
        )
        return request.answer

    def close(self) -> None:
        """Closes the queue; returns when all its requests are answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _drop(self, request: QueuedRequest) -> None:
        """Removes a cancelled request from the queue, with its arrays."""
        with self._changed:
            if request in self._queue:
                self._queue.remove(request)
                self._queued_rows -= request.left
                self._changed.notify_all()

    def _empty_queue(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return
                self._wait_for_more()
                batch = self._take()
            if not batch:
                continue
            try:
                self._answer(batch)
            except BaseException as error:  # callers must get an answer, and the thread go on
                for request, _ in batch:
                    request.settle(RuntimeError(f"a batch ended in {error!r}"))

    def _wait_for_more(self) -> None:
        """Waits until a batch is full, or its first request has waited for the timeout."""
        while self._queue and not self._closed:
            first = self._queue[0]
            wait = first.arrived + self._batching.timeout - time.monotonic()
            alike = sum(each.left for each in self._queue if first.is_like(each))
            if wait <= 0 or alike >= self._most_rows(first):
                return
            self._changed.wait(wait)

    def _take(self) -> Batch:
        """Takes the first request, and as many others of its kind as fit.

        What is left of a request goes to the end, so that large ones do not hold up the others.
        """
        batch: Batch = []
        rest: list[QueuedRequest] = []
        kept: collections.deque[QueuedRequest] = collections.deque()
        room: int | None = None
        while self._queue:
            request = self._queue.popleft()
            if request.answer.done():  # cancelled, or one of its runs failed
                self._queued_rows -= request.left
                continue
            if room is None:
                room = self._most_rows(request)
            elif room == 0 or not batch[0][0].is_like(request) or not self._batching.enabled:
                kept.append(request)
                continue
            count = min(room, request.left)
            batch.append((request, slice(request.started, request.started + count)))
            request.started += count
            self._queued_rows -= count
            room -= count
            if request.left:
                rest.append(request)
        kept.extend(rest)
        self._queue = kept
        return batch

    def _most_rows(self, request: QueuedRequest) -> int:
        """Returns the largest batch for a request's kind."""
        if not self._splits or request.rows.kind is None:
            return request.rows.count
        most = min(self._batching.max_batch_size, self._batching.max_cost // request.rows.cost)
        return max(1, most)

    def _answer(self, batch: Batch) -> None:
        """Runs a batch, and gives each request its part of the outputs."""
        try:
            outputs = self._run_rows(inputs_of(batch), [request.answer for request, _ in batch])
        except Exception as error:
            if len(batch) > 1:  # one request is at fault, and the others must not fail with it
                for each in batch:
                    if not each[0].answer.done():
                        self._answer([each])
            else:
                batch[0][0].settle(error)
            return
        if is_one_whole_request(batch):
            batch[0][0].settle(outputs)
            return
        count = sum(rows.stop - rows.start for _, rows in batch)
        if any(array.shape[:1] != (count,) for array in outputs.values()):
            self._run_alone(batch)
            return
        start = 0
        for request, rows in batch:
            end = start + rows.stop - rows.start
            part = {name: array[start:end] for name, array in outputs.items()}
            start = end
            with self._changed:
                request.parts[rows.start] = part
                request.done += rows.stop - rows.start
                is_complete = request.done == request.rows.count
            if is_complete:
                request.settle_parts()

    def _run_rows(self, inputs: Arrays, answers: list[Future]) -> Arrays:
        rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
        self._on_batch(rows)
        if self._in_parts:
            return self._run(inputs, lambda: all(answer.done() for answer in answers))
        return self._run(inputs)

    def _run_alone(self, batch: Batch) -> None:
        """Runs requests one by one, since the outputs do not have one row per input.

        From now on no request shares a run.
        """
        log.warning("outputs do not have one row per input: requests no longer share runs")
        self._splits = False
        for request, _ in batch:
            if request.answer.done():  # cancelled
                continue
            try:
                request.settle(self._run_rows(request.inputs, [request.answer]))
            except Exception as error:
                request.settle(error)
