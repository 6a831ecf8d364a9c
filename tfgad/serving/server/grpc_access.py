"""Access control of the gRPC interface: token and TLS. For HTTP see `access.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from tfgad.serving.credentials import Secret, Tls, read_file
from tfgad.serving.server.access import token_of

# Health checks of an orchestrator have no token.
OPEN_SERVICE = "/grpc.health.v1.Health/"
METADATA_KEY = "authorization"


class TokenInterceptor(grpc.ServerInterceptor):
    """An interceptor that refuses calls without exactly one valid token in their metadata."""

    def __init__(self, token: str):
        self._secret = Secret(token)
        # A handler of streams, so that no message is read before the answer.
        self._refusal = grpc.stream_stream_rpc_method_handler(_refuse)

    def intercept_service(
        self, continuation: Callable[..., Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler:
        """Returns the handler of a call."""
        details = handler_call_details
        if details.method.startswith(OPEN_SERVICE):
            return continuation(details)
        given = [value for key, value in details.invocation_metadata if key == METADATA_KEY]
        is_one = len(given) == 1 and isinstance(given[0], str)  # two tokens are ambiguous
        if is_one and self._secret.matches(token_of(given[0])):
            return continuation(details)
        return self._refusal


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Returns the credentials of a gRPC server."""
    key = read_file(tls.key, "--tls-key")
    certificate = read_file(tls.certificate, "--tls-certificate")
    return grpc.ssl_server_credentials([(key, certificate)])


def _refuse(_: object, context: grpc.ServicerContext) -> Iterator[None]:
    problem = "a token is required: metadata authorization: Bearer TOKEN"
    context.abort(grpc.StatusCode.UNAUTHENTICATED, problem)
    yield  # a stream's handler is a generator
