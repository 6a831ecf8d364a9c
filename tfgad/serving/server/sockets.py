"""Listening sockets of the REST and the gRPC interface."""

from __future__ import annotations

import socket

import grpc

from tfgad.errors import UsageError
from tfgad.serving.credentials import Tls
from tfgad.serving.server.grpc_access import server_credentials

BACKLOG = 1024  # connections that wait to be accepted


def listen(host: str, port: int, option: str = "--rest-port") -> socket.socket:
    """Opens a listening socket.

    Args:
        host: address to listen at.
        port: port to listen at; 0 for any free one.
        option: name of the option that gave the port, for the message.

    Raises:
        UsageError: the port is taken, or the address does not belong to this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise _cannot_listen(option, host, port, error) from error
    # Accepted sockets inherit this; asyncio sets it only for sockets with an explicit protocol.
    # Without it an answer waits 40 ms for the client to acknowledge its head (Nagle, RFC 896).
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def bind_grpc(server: grpc.Server, host: str, port: int, tls: Tls | None) -> int:
    """Opens the port of a gRPC server.

    Args:
        server: the server.
        host: address to listen at.
        port: port to listen at; 0 for any free one.
        tls: certificate and key; None for plain connections.

    Returns:
        The port.

    Raises:
        UsageError: the port is taken, or the address does not belong to this machine.
    """
    # gRPC reports only that binding failed; a plain socket also gives the reason.
    listen(host, port, "--grpc-port").close()
    try:
        if tls:
            return server.add_secure_port(address_of(host, port), server_credentials(tls))
        return server.add_insecure_port(address_of(host, port))
    except RuntimeError as error:
        raise _cannot_listen("--grpc-port", host, port, error) from error


def address_of(host: str, port: int) -> str:
    """Returns `host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cannot_listen(option: str, host: str, port: int, error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or str(error)
    problem = f"cannot listen there ({reason[:1].lower()}{reason[1:]})"
    return UsageError(option, address_of(host, port), problem, "choose another; 0 takes a free one")
