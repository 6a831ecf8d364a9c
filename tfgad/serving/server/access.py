"""Access control of the HTTP interfaces: host names, cross-site requests, and the token.

A browser lets any web page send requests to a server on the same machine or network. So `Gate`
checks the `Host` header (otherwise an attacker's host name could be resolved to this server, "DNS
rebinding"), that no other site sent the request, and the token if the server has one. It also
forbids other sites to embed an answer.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tfgad.serving.credentials import Secret

# Health checks of an orchestrator have no token.
OPEN_PATHS = ("/healthz", "/readyz")
# Removed headers: libraries would trust them instead of the checked `Host`. The last is gradio's.
UNTRUSTED = (b"forwarded", b"x-forwarded-host", b"x-gradio-server")
# `Referrer-Policy: no-referrer` would also remove the origin from the page's own requests.
SECURITY_HEADERS = {
    "x-frame-options": "DENY",
    "content-security-policy": "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
CHALLENGES = ('Bearer realm="tfgad"', 'Basic realm="tfgad", charset="UTF-8"')
# A name, an IPv4 address, or an IPv6 address in brackets, and a port (RFC 9110, 7.2); no zone.
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::(\d{1,5}))?", re.ASCII | re.IGNORECASE)
MAX_PORT = 2**16 - 1
LOCAL_NAMES = ("localhost",)
SAFE_METHODS = ("GET", "HEAD")


class Hosts:
    """The host names of a server.

    Args:
        host: the address or name that it listens at.
        is_local: whether only its own machine can reach it.
        allowed: further names, such as those of a proxy or a cluster.
    """

    def __init__(self, host: str, is_local: bool, allowed: Iterable[str] = ()):
        names = [host, *LOCAL_NAMES, *allowed]
        if not is_local:
            names.append(socket.gethostname())
        self._names = {each.lower().rstrip(".") for each in names}
        self._is_local = is_local

    def match(self, header: str) -> bool:
        """Returns whether a `Host` header names this server.

        A server that other machines can reach accepts every IP address, since only names can be
        resolved to another server, and a machine behind a router or in a container does not know
        all of its addresses.
        """
        found = HOST.fullmatch(header)
        if found is None or not 1 <= int(found[3] or 1) <= MAX_PORT:
            return False
        name = (found[1] or found[2]).lower()
        if name.rstrip(".") in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._is_local


class Gate:
    """An ASGI application that passes permitted requests on to another one.

    Args:
        app: the other application.
        hosts: host names of the server.
        token: the required token, sent as `Authorization: Bearer TOKEN`, or by a browser as the
            password of any user; None for no authentication.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, token: str | None = None):
        self._app, self._hosts = app, hosts
        self._secret = None if token is None else Secret(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no WebSockets
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    # The application may set a stricter value, as the page does.
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, secured)
            return
        kept = [each for each in scope["headers"] if each[0] not in UNTRUSTED]
        await self._app({**scope, "headers": kept}, receive, secured)

    def _refusal(self, scope: Scope) -> Response | None:
        """Returns the answer to a request that is refused, else None."""
        headers = Headers(scope=scope)
        # Browsers always send a host; old health checks by HTTP/1.0 send none.
        unknown = [host for host in headers.getlist("host") if not self._hosts.match(host)]
        if unknown:
            hint = "start the server with --allowed-host NAME if it is a name of this server"
            return _refused(403, f"Host {unknown[0][:200]!r} is not known; {hint}")
        if is_cross_site(scope["method"], headers):
            return _refused(403, "cross-site requests are refused")
        if self._secret is None or scope["path"] in OPEN_PATHS:
            return None
        given = headers.getlist("authorization")  # two tokens are ambiguous
        if len(given) == 1 and self._secret.matches(token_of(given[0])):
            return None
        response = _refused(401, "a token is required: Authorization: Bearer TOKEN")
        for challenge in CHALLENGES:
            response.headers.append("www-authenticate", challenge)
        return response


def is_cross_site(method: str, headers: Mapping[str, str]) -> bool:
    """Returns whether a browser sent a request for a page of another site.

    Following a link from another site is permitted. Browsers omit `Sec-Fetch-Site` if the server
    is reached by plain HTTP, and `Origin` in requests whose answer the page cannot read. Other
    clients than browsers send neither.

    Args:
        method: HTTP method of the request.
        headers: its headers, by lower-case name.
    """
    site = headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return False
    if site is not None:
        follows_link = headers.get("sec-fetch-mode") == "navigate"
        return not (follows_link and method in SAFE_METHODS)
    origin = headers.get("origin")
    if origin is None:
        return False
    return origin.partition("://")[2].lower() != headers.get("host", "").lower()


def token_of(authorization: str) -> str | None:
    """Returns the token of an `Authorization` header: that of Bearer, or the password of Basic."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            _, found, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return password if found else None
    return None


def is_loopback(address: str) -> bool:
    """Returns whether only its own machine can reach an address."""
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def _refused(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)  # the form of TF Serving's errors
