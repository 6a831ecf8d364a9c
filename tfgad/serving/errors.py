"""Errors of a request: a gRPC status code, and the HTTP status that TF Serving gives for it."""

from __future__ import annotations

# `ToHTTPStatusCode` of TF Serving's model_servers/http_server.cc; 499 is nginx's "client closed".
HTTP_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


class ServingError(Exception):
    """A request that cannot be answered.

    Attributes:
        code: the name of a gRPC status code, such as `INVALID_ARGUMENT`.
        message: the problem, for the caller to read.
        http_status: status of the REST answer; TF Serving's for the code, unless HTTP has a more
            precise one.
    """

    def __init__(self, code: str, message: str, http_status: int | None = None):
        self.code, self.message = code, message
        self.http_status = http_status or HTTP_STATUS[code]
        super().__init__(f"{code}: {message}")


def invalid(message: str) -> ServingError:
    """Returns an `INVALID_ARGUMENT` error."""
    return ServingError("INVALID_ARGUMENT", message)
