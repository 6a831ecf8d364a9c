"""What stands before gradio's own routes: few are needed, the others are closed.

A list of what is open, so that what a new version of gradio adds is closed until it is needed.
"""

from __future__ import annotations

import collections
import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tfgad.data.images import ImageError
from tfgad.serving.bodies import timely
from tfgad.serving.uploads import LATE, UploadError, Uploads, network_of

API = "/gradio_api"
FILE, UPLOAD, EVENT = f"{API}/file=", f"{API}/upload", f"{API}/queue/join"
PROGRESS = f"{API}/upload_progress"
HEARTBEAT, RESULTS = f"{API}/heartbeat/", f"{API}/queue/data"  # answers that do not end
# A visitor has two. `tfgad.serving.server` gives a number by its connections.
MOST_STREAMS = 1024
# What Chromium asks for while all of the page is used, and no more; see `tests/serving/page`.
OPEN = {
    "GET": re.compile(
        r"/|/theme\.css|/favicon\.ico|/(?:assets|static)/(?!.*\.\.)[\w./~-]+"
        rf"|{PROGRESS}|{API}/(?:queue/data|heartbeat/[\w-]{{1,64}}|file=.+)",
        re.ASCII | re.DOTALL,
    ),
    "POST": re.compile(f"{EVENT}|{UPLOAD}"),
}
OPEN["HEAD"] = OPEN["GET"]
# An event with 1000 files has 0.4 MB.
MOST_EVENT_BYTES = 2**20
# Gradio's page holds scripts and styles in itself, and makes some at run time.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
# A visitor's file is data, even if it says that it is a page or a drawing with scripts.
FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"


class PageGate:
    """An ASGI application that passes on to `app` what the page needs.

    Args:
        app: gradio's.
        uploads: the files that may be named and fetched; they are also taken in here.
        most_streams: answers that do not end, of all visitors; of one network half as many.
    """

    def __init__(self, app: ASGIApp, uploads: Uploads, most_streams: int = MOST_STREAMS):
        self._app, self._uploads = app, uploads
        self._streams = _Streams(most_streams)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or has it answered."""
        if scope["type"] != "http":
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        send = _with_policy(send, FILE_POLICY if path.startswith(FILE) else PAGE_POLICY)
        is_open = OPEN.get(scope["method"])
        if is_open is None or not is_open.fullmatch(path):
            await PlainTextResponse("Not found", 404)(scope, receive, send)
            return
        request = Request(scope, receive)
        if path == UPLOAD:
            await (await self._uploads.answer(request))(scope, receive, send)
            return
        if path == PROGRESS:  # which gradio does not know of what is taken in here
            await Response(media_type="text/event-stream")(scope, receive, send)
            return
        if path.startswith(HEARTBEAT) or path == RESULTS:
            with self._streams.held(network_of(request)) as problem:
                app = PlainTextResponse(problem, 503) if problem else self._app
                await app(scope, receive, send)
            return
        try:
            if path.startswith(FILE):
                self._uploads.check(path.removeprefix(FILE))
            elif path == EVENT:
                scope, receive = await self._checked(request)
        except ImageError:
            await PlainTextResponse("This page has no such file", 403)(scope, receive, send)
        except UploadError as error:
            await PlainTextResponse(str(error), error.status)(scope, receive, send)
        except TimeoutError:
            await PlainTextResponse(LATE, 408)(scope, receive, send)
        except ClientDisconnect:
            return
        else:
            await self._app(scope, receive, send)

    async def _checked(self, request: Request) -> tuple[Scope, Receive]:
        """Returns a request whose event names no other files than the page's.

        Its body is written anew, so that gradio reads what was checked, however it parses.

        Raises:
            UploadError: it is no event, or too large a one.
            ImageError: it names another file.
        """
        parts, size = [], 0
        async for chunk in timely(request, *self._uploads.patience):
            size += len(chunk)
            if size > MOST_EVENT_BYTES:
                raise UploadError(413, f"an event is larger than {MOST_EVENT_BYTES} bytes")
            parts.append(chunk)
        try:
            event = json.loads(b"".join(parts))
            self._check_files(event)
            body = json.dumps(event, allow_nan=False).encode()
        except ImageError:  # which is a ValueError, too
            raise
        except (ValueError, RecursionError) as error:
            raise UploadError(400, "no event of this page") from error
        kept = [
            each
            for each in request.scope["headers"]
            if each[0] not in (b"content-length", b"content-type", b"transfer-encoding")
        ]
        headers = [
            *kept,
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
        ]
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        receive = request.receive

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        return {**request.scope, "headers": headers}, replay

    def _check_files(self, value: Any) -> None:
        """Checks all that may be a file to gradio, which is any object with a path."""
        if isinstance(value, list):
            for each in value:
                self._check_files(each)
        elif isinstance(value, dict):
            if "path" in value:
                if not isinstance(value["path"], str):
                    raise UploadError(400, "a path is no text")
                self._uploads.check(value["path"])
                value["url"] = None  # the path says it all
            for each in value.values():
                self._check_files(each)


class _Streams:
    """The answers that do not end. Each holds a connection, which never gives way to another.

    All of it happens in the event loop's thread.
    """

    def __init__(self, most: int):
        self._most, self._most_of_one = most, max(1, most // 2)
        self._open: collections.Counter[str] = collections.Counter()  # by network

    @contextlib.contextmanager
    def held(self, network: str) -> Iterator[str]:
        """Counts a stream while it is open; yields why it must not be, or an empty text."""
        if self._open.total() >= self._most:
            yield f"{self._most} streams are open, which is the limit: try again later"
            return
        if self._open[network] >= self._most_of_one:
            yield f"your address has {self._most_of_one} streams open, which is the limit"
            return
        self._open[network] += 1
        try:
            yield ""
        finally:
            self._open[network] -= 1
            self._open += collections.Counter()  # forgets networks without one


def _with_policy(send: Send, policy: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["content-security-policy"] = policy
            if policy is FILE_POLICY:
                headers["cache-control"] = "no-store"
        await send(message)

    return sending
