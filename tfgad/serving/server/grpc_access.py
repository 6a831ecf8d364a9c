"""Who may ask by gRPC: the token, and TLS; see `tfgad.serving.server.access` for HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from tfgad.serving.credentials import Secret, Tls, content
from tfgad.serving.server.access import token_of

# An orchestrator's probes have no token.
OPEN_SERVICE = "/grpc.health.v1.Health/"
METADATA_KEY = "authorization"


class TokenInterceptor(grpc.ServerInterceptor):
    """Refuses requests without the token, which stands once in the metadata as over HTTP."""

    def __init__(self, token: str):
        self._secret = Secret(token)
        # Of streams, so that no message is read before the answer.
        self._refusal = grpc.stream_stream_rpc_method_handler(_refuse)

    def intercept_service(self, continuation, handler_call_details):
        """Returns what answers a request."""
        details = handler_call_details
        if details.method.startswith(OPEN_SERVICE):
            return continuation(details)
        given = [value for key, value in details.invocation_metadata if key == METADATA_KEY]
        is_one = len(given) == 1 and isinstance(given[0], str)  # of two, which one would count?
        if is_one and self._secret.is_shown_by(token_of(given[0])):
            return continuation(details)
        return self._refusal


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Returns what the gRPC interface shows its clients."""
    key, certificate = content(tls.key, "--tls-key"), content(tls.certificate, "--tls-certificate")
    return grpc.ssl_server_credentials([(key, certificate)])


def _refuse(_, context) -> Iterator[None]:
    problem = "a token is needed: metadata authorization: Bearer TOKEN"
    context.abort(grpc.StatusCode.UNAUTHENTICATED, problem)
    yield  # a stream's handler is a generator
