"""Requests that arrive together share a run of the model.

One queue for each signature of a version, and one thread that empties it: while it runs a batch,
the next gathers, so that an idle server answers at once and a busy one in batches. Only requests
alike share a run (see `image_sizes.Rows`), and one that has more rows than a batch is cut. TF
Serving's batching is the model (tensorflow/core/kernels/batching_util).
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError

import numpy as np

from tfgad.serving.server.errors import ServingError, invalid
from tfgad.serving.server.image_sizes import Rows

Arrays = Mapping[str, np.ndarray]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Batching:
    """How requests share runs.

    Attributes:
        max_batch_size: rows of a run.
        timeout: seconds that the first request waits for others while the model is idle.
        max_cost: pixels of a run; a single image may have more. Eight tiles of 128x128 by default:
            on two cores the `ganomaly` of `saved_models/` took 44 ms a tile for one at once, 34 for
            eight, 42 for sixteen and 58 for 32. An accelerator wants more.
        max_queue: rows that wait; more are refused.
        enabled: if not, each request has a run of its own, as many at once as there are threads.
        threads: of a queue: one where runs are shared, since TensorFlow spreads a run itself.
    """

    max_batch_size: int = 32
    timeout: float = 0.0
    max_cost: int = 2**17
    max_queue: int = 1024
    enabled: bool = True
    threads: int = 1


class ClosedError(Exception):
    """The queue takes no more: the version was retired."""


@dataclasses.dataclass(eq=False)
class _Request:
    """A request in the queue, whole or what is left of it.

    Attributes:
        inputs: of all its rows.
        rows: what they are.
        arrived: in seconds of the monotonic clock.
        answer: what the caller waits for.
        started: rows that runs have taken so far.
        done: rows whose runs are over.
        parts: the outputs of those that are done, by their first row.
    """

    inputs: Arrays
    rows: Rows
    arrived: float
    answer: Future = dataclasses.field(default_factory=Future)
    started: int = 0
    done: int = 0
    parts: dict[int, Arrays] = dataclasses.field(default_factory=dict)

    @property
    def left(self) -> int:
        return self.rows.count - self.started


class Batcher:
    """A queue before a function of arrays, and the threads that empty it.

    Args:
        run: from inputs to outputs, each with the batch as first axis; called with no lock held.
        batching: how requests share runs.
        splits: whether requests may share a run and be cut; False if axis 0 is no batch.
        in_parts: whether `run` also takes a function that says, between the parts of a run, whether
            no caller waits for it any longer.
        on_batch: called with the rows of each run.
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
        self._queue: collections.deque[_Request] = collections.deque()
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
        """Rows that wait for a run."""
        return self._queued_rows

    def submit(self, inputs: Arrays, rows: Rows) -> Future:
        """Queues a request.

        Returns:
            A future of the outputs; once it is cancelled, the request leaves the queue.

        Raises:
            ServingError: UNAVAILABLE, the queue is full; INVALID_ARGUMENT, the rows cannot be cut
                and are more than a batch.
            ClosedError: the queue takes no more.
        """
        if self._splits and rows.kind is None and rows.count > self._batching.max_batch_size:
            most = self._batching.max_batch_size
            problem = f"{rows.count} images of different sizes are more than {most}"
            raise invalid(f"{problem} (--max-batch-size)")
        with self._changed:
            if self._closed:
                raise ClosedError
            # A request larger than the queue must not wait for a place that never comes.
            if self._queue and self._queued_rows + rows.count > self._batching.max_queue:
                problem = "The batch scheduling queue to which this task was submitted is full"
                raise ServingError("UNAVAILABLE", f"{problem} (--max-queue)")
            request = _Request(inputs, rows, time.monotonic())
            self._queue.append(request)
            self._queued_rows += rows.count
            self._changed.notify_all()
        request.answer.add_done_callback(lambda answer: answer.cancelled() and self._drop(request))
        return request.answer

    def close(self) -> None:
        """Takes no more requests, and returns when the last is answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _drop(self, request: _Request) -> None:
        """Takes a request whose caller no longer waits out of the queue, with all that it holds."""
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
            if batch:
                self._answer_surely(batch)

    def _wait_for_more(self) -> None:
        """Waits until a batch is full or its first request has waited long enough."""
        while self._queue and not self._closed:
            first = self._queue[0]
            wait = first.arrived + self._batching.timeout - time.monotonic()
            alike = sum(each.left for each in self._queue if _are_alike(first, each))
            if wait <= 0 or alike >= self._most_rows(first):
                return
            self._changed.wait(wait)

    def _take(self) -> list[tuple[_Request, slice]]:
        """Takes the oldest request, and others like it as far as they fit."""
        batch, kept, room = [], collections.deque(), None
        while self._queue:
            request = self._queue.popleft()
            if request.answer.done():  # cancelled, or one of its runs failed
                self._queued_rows -= request.left
                continue
            if room is None:
                room = self._most_rows(request)
            elif room == 0 or not _are_alike(batch[0][0], request) or not self._batching.enabled:
                kept.append(request)
                continue
            count = min(room, request.left)
            batch.append((request, slice(request.started, request.started + count)))
            request.started += count
            self._queued_rows -= count
            room -= count
            if request.left:
                kept.append(request)
        self._queue = kept
        return batch

    def _most_rows(self, request: _Request) -> int:
        if not self._splits or request.rows.kind is None:
            return request.rows.count
        most = min(self._batching.max_batch_size, self._batching.max_cost // request.rows.cost)
        return max(1, most)

    def _answer_surely(self, batch: list[tuple[_Request, slice]]) -> None:
        """Answers a batch whatever it raises: its callers wait, and the next need this thread."""
        try:
            self._answer(batch)
        except BaseException as error:
            for request, _ in batch:
                _settle(request, RuntimeError(f"a batch ended in {error!r}"))

    def _answer(self, batch: list[tuple[_Request, slice]]) -> None:
        """Runs a batch, and gives each request its own."""
        try:
            outputs = self._run_rows(_joined(batch), [request.answer for request, _ in batch])
        except Exception as error:
            if len(batch) > 1:  # the mistake is one's, and the others shall not pay for it
                for each in batch:
                    if not each[0].answer.done():
                        self._answer([each])
            else:
                _settle(batch[0][0], error)
            return
        if _is_whole(batch):
            _settle(batch[0][0], outputs)
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
                whole = request.done == request.rows.count
            if whole:
                _settle(request, _assembled(request.parts))

    def _run_rows(self, inputs: Arrays, answers: list[Future]) -> Arrays:
        rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
        self._on_batch(rows)
        if self._in_parts:
            return self._run(inputs, lambda: all(answer.done() for answer in answers))
        return self._run(inputs)

    def _run_alone(self, batch: list[tuple[_Request, slice]]) -> None:
        """Runs requests whole, one after another: the outputs have not a row for each input.

        From now on no request shares a run.
        """
        log.warning("outputs have not a row for each input: requests share no run any more")
        self._splits = False
        for request, _ in batch:
            if request.answer.done():  # its caller no longer waits
                continue
            try:
                _settle(request, self._run_rows(request.inputs, [request.answer]))
            except Exception as error:
                _settle(request, error)


def _is_whole(batch: list[tuple[_Request, slice]]) -> bool:
    """Returns whether a batch is one request with all its rows."""
    (request, rows), *others = batch
    return not others and rows == slice(0, request.rows.count)


def _are_alike(one: _Request, other: _Request) -> bool:
    return one is other or (one.rows.kind is not None and one.rows.kind == other.rows.kind)


def _joined(batch: list[tuple[_Request, slice]]) -> Arrays:
    if _is_whole(batch):
        return batch[0][0].inputs
    return _concatenated(
        [{name: array[rows] for name, array in request.inputs.items()} for request, rows in batch]
    )


def _concatenated(parts: list[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _assembled(parts: Mapping[int, Arrays]) -> Arrays | Exception:
    """Returns a request's outputs from those of its runs, or why they cannot be put together."""
    try:
        return _concatenated([parts[i] for i in sorted(parts)])
    except ValueError as error:  # besides the rows, an axis had another length in each run
        problem = f"the outputs of the request's runs do not fit together: {error}"
        return ServingError("INTERNAL", problem)


def _settle(request: _Request, outcome: Arrays | Exception) -> None:
    """Gives the caller outputs or an error, unless it no longer waits."""
    try:
        if isinstance(outcome, Exception):
            request.answer.set_exception(outcome)
        else:
            request.answer.set_result(outcome)
    except InvalidStateError:
        log.debug("an answer came too late")
