"""Queued requests, and the batches that are made of their rows."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError

import numpy as np

from tfgad.serving.errors import ServingError
from tfgad.serving.server.image_sizes import Rows

Arrays = Mapping[str, np.ndarray]

log = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False)
class QueuedRequest:
    """A request in the queue, or the part of it that is still queued.

    Attributes:
        inputs: arrays of all its rows.
        rows: their number, cost and kind.
        arrived: time of arrival, in seconds of the monotonic clock.
        answer: future of the outputs.
        started: rows that runs have taken so far.
        done: rows whose runs have ended.
        parts: outputs of the rows that are done, by first row.
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
        """Rows that no run has taken yet."""
        return self.rows.count - self.started

    def is_like(self, other: QueuedRequest) -> bool:
        """Returns whether both may share a run."""
        return self is other or (self.rows.kind is not None and self.rows.kind == other.rows.kind)

    def settle(self, outcome: Arrays | Exception) -> None:
        """Sets outputs or an error as the answer, unless it was cancelled."""
        try:
            if isinstance(outcome, Exception):
                self.answer.set_exception(outcome)
            else:
                self.answer.set_result(outcome)
        except InvalidStateError:
            log.debug("the request was cancelled before its answer")

    def settle_parts(self) -> None:
        """Sets the outputs of all runs, put together, as the answer."""
        try:
            self.settle(_concatenated([self.parts[i] for i in sorted(self.parts)]))
        except ValueError as error:  # another axis than the rows differs between the runs
            problem = f"the outputs of the request's runs do not fit together: {error}"
            self.settle(ServingError("INTERNAL", problem))


# Requests, each with those of its rows that the batch holds.
Batch = list[tuple[QueuedRequest, slice]]


def is_one_whole_request(batch: Batch) -> bool:
    """Returns whether a batch is one request with all its rows."""
    (request, rows), *others = batch
    return not others and rows == slice(0, request.rows.count)


def inputs_of(batch: Batch) -> Arrays:
    """Returns the inputs of a batch."""
    if is_one_whole_request(batch):
        return batch[0][0].inputs
    return _concatenated(
        [{name: array[rows] for name, array in request.inputs.items()} for request, rows in batch]
    )


def _concatenated(parts: list[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
