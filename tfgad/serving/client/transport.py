"""The interface that the REST and the gRPC transport of a client share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

INITIAL_BACKOFF = 0.2  # seconds before the first retry; doubled for each further one

Arrays = Mapping[str, Any]


class ClientError(Exception):
    """An error that a server answered, or the lack of an answer.

    Attributes:
        code: the name of a gRPC status code: `INVALID_ARGUMENT`, `NOT_FOUND`, `UNAVAILABLE` (also
            if no server answers), `DEADLINE_EXCEEDED`, `RESOURCE_EXHAUSTED`, `INTERNAL`...
            REST gives `FAILED_PRECONDITION` and `INVALID_ARGUMENT` the same status; both are
            reported as `INVALID_ARGUMENT`.
        message: the server's message.
    """

    def __init__(self, code: str, message: str):
        self.code, self.message = code, message
        super().__init__(f"{code}: {message}")


class Transport(Protocol):
    """A connection to one model of a server."""

    def predict(self, inputs: Arrays, signature: str) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name."""

    def metadata(self) -> dict[str, Any]:
        """Returns the model's signatures; see `Client.metadata`."""

    def status(self) -> dict[int, dict[str, str]]:
        """Returns the states of the model's versions; see `Client.status`."""

    def close(self) -> None:
        """Closes the connection."""
