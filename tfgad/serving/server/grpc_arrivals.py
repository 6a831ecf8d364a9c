"""Calls by gRPC whose message does not come: they hold a thread each, so the oldest give way.

gRPC counts a call from its head on, and keeps a thread waiting for the message, for ever if the
caller set no deadline: 264 calls without one stopped the interface until they were given up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from tfgad.serving.server.errors import invalid

MOST_ARRIVING = 64  # calls whose message is to come; that of others takes a millisecond
WATCH = "/grpc.health.v1.Health/Watch"


class Arrivals(grpc.ServerInterceptor):
    """Takes the message of a call as one that may not come.

    It is to be the first interceptor: what others answer a call by waits for its message, too.

    Args:
        seconds: for a message to come, before it gives way to others.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._arriving: dict[grpc.ServicerContext, float] = {}  # since when; the oldest first
        self._lock = threading.Lock()

    def intercept_service(self, continuation, handler_call_details):
        """Answers by the same method, called once the message is there."""
        if handler_call_details.method == WATCH:
            return None  # unimplemented: such a call never ends, and holds a place meanwhile
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        # A stream of one message is the same on the wire.
        return grpc.stream_unary_rpc_method_handler(
            self._once_it_is_there(handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _once_it_is_there(self, answer: Callable) -> Callable:
        def call(requests, context):
            with self._waiting(context):
                request = next(requests, None)
            if request is None:
                error = invalid("the call has no message")
                context.abort(grpc.StatusCode[error.code], error.message)
            return answer(request, context)

        return call

    @contextlib.contextmanager
    def _waiting(self, context: grpc.ServicerContext) -> Iterator[None]:
        with self._lock:
            self._arriving[context] = time.monotonic()
            given_up = [each for each, since in self._arriving.items() if self._is_late(since)]
            given_up = (
                given_up or list(self._arriving)[: max(0, len(self._arriving) - MOST_ARRIVING)]
            )
            for each in given_up:
                del self._arriving[each]
        for each in given_up:
            each.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._arriving.pop(context, None)

    def _is_late(self, since: float) -> bool:
        return time.monotonic() - since > self._seconds
