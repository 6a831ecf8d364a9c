"""Who may ask: what stands before every HTTP request of a server, whoever answers it.

A browser lets any web page send requests to a server on the same machine or network. So `Gate`
checks the `Host` (else a name of the page's could be pointed at the server, "DNS rebinding"), that
the request comes from no other site, and the token if the server has one. And it forbids other
sites to embed an answer.
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

# An orchestrator's probes have no token.
OPEN_PATHS = ("/healthz", "/readyz")
# Headers that the libraries behind would believe: `Host` alone is checked. The last is gradio's.
DISBELIEVED = (b"forwarded", b"x-forwarded-host", b"x-gradio-server")
# `Referrer-Policy: no-referrer` would take the origin from the page's own requests, too.
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
MOST_PORT = 2**16 - 1
LOCAL_NAMES = ("localhost",)
SAFE_METHODS = ("GET", "HEAD")


class Hosts:
    """The names that a server answers to.

    Args:
        host: the address or name that it was told to listen at.
        is_local: whether only its own machine reaches it.
        allowed: further names, such as those that a proxy or a cluster calls it by.
    """

    def __init__(self, host: str, is_local: bool, allowed: Iterable[str] = ()):
        names = [host, *LOCAL_NAMES, *allowed]
        if not is_local:
            names.append(socket.gethostname())
        self._names = {each.lower().rstrip(".") for each in names}
        self._is_local = is_local

    def know(self, header: str) -> bool:
        """Returns whether a `Host` header means this server.

        Beyond its own machine any address does, since only names can be pointed elsewhere: a
        machine behind a router or in a container does not know all of its addresses.
        """
        found = HOST.fullmatch(header)
        if found is None or not 1 <= int(found[3] or 1) <= MOST_PORT:
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
    """An ASGI application that passes permitted requests on to `app`.

    Args:
        app: the application that answers them.
        hosts: the names that the server answers to.
        token: what must be shown, as `Authorization: Bearer TOKEN`, or by a browser as the password
            of any user; None lets everybody in.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, token: str | None = None):
        self._app, self._hosts = app, hosts
        self._secret = None if token is None else Secret(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or has it answered."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no WebSocket is offered
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    # An answer may be stricter, as those of the page are.
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, secured)
            return
        kept = [each for each in scope["headers"] if each[0] not in DISBELIEVED]
        await self._app({**scope, "headers": kept}, receive, secured)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        unknown = [host for host in headers.getlist("host") if not self._hosts.know(host)]
        if unknown:  # no host at all is sent by no browser, and by old probes of HTTP/1.0
            host = unknown[0]
            hint = "start the server with --allowed-host NAME if it is this one's"
            return _refused(403, f"Host {host[:200]!r} is not known; {hint}")
        if is_cross_site(scope["method"], headers):
            return _refused(403, "requests from other sites are refused")
        if self._secret is None or scope["path"] in OPEN_PATHS:
            return None
        given = headers.getlist("authorization")  # of two, which one would count?
        if len(given) == 1 and self._secret.is_shown_by(token_of(given[0])):
            return None
        response = _refused(401, "a token is needed: Authorization: Bearer TOKEN")
        for challenge in CHALLENGES:
            response.headers.append("www-authenticate", challenge)
        return response


def is_cross_site(method: str, headers: Mapping[str, str]) -> bool:
    """Returns whether a browser says that another site's page sends a request.

    Going to a page by a link of another site is none. Browsers leave `Sec-Fetch-Site` out where the
    server is reached over plain HTTP, and `Origin` out of what only reads without looking; others
    than browsers send neither.
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
    """Returns whether an address is reached from its own machine only."""
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def _refused(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)  # as TF Serving words its errors
