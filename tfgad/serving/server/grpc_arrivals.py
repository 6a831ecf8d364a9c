"""gRPC calls whose message does not arrive: the oldest are cancelled to make room.

gRPC starts a call when its head arrives, and lets a thread wait for the message: for ever, if the
client set no deadline. 264 such calls blocked the interface.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from tfgad.serving.errors import invalid

MAX_ARRIVING = 64  # calls that wait for their message; usually it arrives within a millisecond
WATCH = "/grpc.health.v1.Health/Watch"


class Arrivals(grpc.ServerInterceptor):
    """An interceptor that limits the calls that wait for their message.

    It must be the first interceptor: the handlers that others return wait for the message, too.

    Args:
        seconds: time for a message to arrive before its call may be cancelled.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._arriving: dict[grpc.ServicerContext, float] = {}  # -> start, the oldest first
        self._lock = threading.Lock()

    def intercept_service(
        self, continuation: Callable[..., Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """Returns a handler that calls the original one when the message is there."""
        if handler_call_details.method == WATCH:
            return None  # unimplemented: such a call never ends, and would hold a thread
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        # On the wire a stream of one message is the same as a message.
        return grpc.stream_unary_rpc_method_handler(
            self._when_arrived(handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _when_arrived(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        def call(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
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
            late = [each for each, start in self._arriving.items() if self._is_late(start)]
            cancelled = late or list(self._arriving)[: max(0, len(self._arriving) - MAX_ARRIVING)]
            for each in cancelled:
                del self._arriving[each]
        for each in cancelled:
            each.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._arriving.pop(context, None)

    def _is_late(self, start: float) -> bool:
        return time.monotonic() - start > self._seconds
