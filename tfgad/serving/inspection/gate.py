"""A gate before gradio's routes: only those that the page needs are open.

The gate lists the open routes, so that routes of a new version of gradio are closed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tfgad.data.image_files import ImageError
from tfgad.serving.bodies import timely
from tfgad.serving.inspection.sessions import Sessions
from tfgad.serving.inspection.streams import ClosableStreams, Streams
from tfgad.serving.inspection.upload_form import UploadError
from tfgad.serving.inspection.uploads import LATE, Uploads, network_of

API = "/gradio_api"
FILE, UPLOAD, EVENT = f"{API}/file=", f"{API}/upload", f"{API}/queue/join"
PROGRESS = f"{API}/upload_progress"
HEARTBEAT, RESULTS = f"{API}/heartbeat/", f"{API}/queue/data"  # streams: answers that do not end
MAX_STREAMS = 1024  # a visitor has two; `tfgad.serving.app` sets a limit by its connections
# All requests of Chromium while the whole page is used; see `tests/serving/page`.
OPEN = {
    "GET": re.compile(
        r"/|/theme\.css|/favicon\.ico|/(?:assets|static)/(?!.*\.\.)[\w./~-]+"
        rf"|{PROGRESS}|{API}/(?:queue/data|heartbeat/[\w-]{{1,64}}|file=.+)",
        re.ASCII | re.DOTALL,
    ),
    "POST": re.compile(f"{EVENT}|{UPLOAD}"),
}
OPEN["HEAD"] = OPEN["GET"]
SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
MAX_EVENT_BYTES = 2**20  # an event with 1000 files has 0.4 MB
# Gradio's page has inline scripts and styles, and creates scripts at run time.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
# An uploaded file is data, even if it is an HTML page or an SVG with scripts.
FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"


class PageGate:
    """An ASGI application that passes on to gradio's what the page needs.

    Args:
        app: gradio's application.
        uploads: the files that may be named and fetched. The gate itself handles uploads.
        max_streams: limit of the open streams of all visitors; of one network, half as many.
        sessions: the visitors' sessions; new ones if not given.
        drop: frees what gradio keeps of a session. It is called with the session, and with True
            after its stream has ended: then it must do nothing if an event is running.
        is_running: whether an event of a session is queued or running. By default one is while
            the stream of its results is open.
    """

    def __init__(
        self,
        app: ASGIApp,
        uploads: Uploads,
        max_streams: int = MAX_STREAMS,
        sessions: Sessions | None = None,
        drop: Callable[[str, bool], Awaitable[None]] | None = None,
        is_running: Callable[[str], bool] | None = None,
    ):
        self._app, self._uploads = app, uploads
        self._streams = Streams(max_streams)
        self._sessions, self._drop = sessions or Sessions(), drop
        self._is_running = is_running
        self._closable = ClosableStreams(app, self._is_busy)

    def close_streams(self) -> None:
        """Ends the streams, since the server is being stopped; to be called in its event loop.

        The streams of a session whose events are in progress end with the last of them.
        """
        self._closable.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, passes it on, or refuses it."""
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
        elif path == PROGRESS:  # gradio does not know of these uploads
            await Response(media_type="text/event-stream")(scope, receive, send)
        elif path.startswith(HEARTBEAT) or path == RESULTS:
            await self._stream(request, path, send)
        else:
            await self._pass_on(request, path, send)

    async def _stream(self, request: Request, path: str, send: Send) -> None:
        """Answers a request for a stream."""
        scope, receive = request.scope, request.receive
        with self._streams.held(network_of(request)) as problem:
            if problem:
                await PlainTextResponse(problem, 503)(scope, receive, send)
            elif path == RESULTS and scope["method"] == "GET":
                await self._send_results(request, send)
            else:
                await self._closable.answer(request, path.removeprefix(HEARTBEAT), send)

    async def _pass_on(self, request: Request, path: str, send: Send) -> None:
        """Passes a request on if it names no other files than the page's."""
        scope, receive = request.scope, request.receive
        try:
            if path.startswith(FILE):
                self._uploads.check(path.removeprefix(FILE))
            elif path == EVENT:
                scope, receive, session = await self._checked(request)
                send = await self._join(session, network_of(request), send)
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

    async def _join(self, session: str, network: str, send: Send) -> Send:
        """Counts an event; returns a `send` that uncounts it if gradio refuses it.

        Raises:
            UploadError: the network has too many unread events.
        """
        for each in self._sessions.forget():
            if self._drop is not None:
                await self._drop(each, False)
        if not self._sessions.join(session, network):
            limit = f"{self._sessions.max_unread} events with unread results"
            raise UploadError(429, f"your address has {limit}, which is the limit: try again later")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] != 200:
                self._sessions.withdraw(session)
            await send(message)

        return sending

    async def _send_results(self, request: Request, send: Send) -> None:
        """Passes on the results of a known session."""
        session = request.query_params.get("session_hash", "")
        with self._sessions.read(session) as is_known:
            if not is_known:
                answer = PlainTextResponse("No event of this session", 404)
                await answer(request.scope, request.receive, send)
                return
            await self._closable.answer(request, session, send)
        if self._drop is not None:
            await self._drop(session, True)

    def _is_busy(self, session: str) -> bool:
        is_read = self._sessions.has_stream(session)
        return is_read and (self._is_running is None or self._is_running(session))

    async def _checked(self, request: Request) -> tuple[Scope, Receive, str]:
        """Checks the files that an event names; returns a new request, and its session.

        The body is serialized again, so that gradio parses exactly what was checked.

        Raises:
            UploadError: it is no event, or too large.
            ImageError: it names a file that is not the page's.
        """
        parts, size = [], 0
        async for chunk in timely(request, *self._uploads.patience):
            size += len(chunk)
            if size > MAX_EVENT_BYTES:
                raise UploadError(413, f"an event is larger than {MAX_EVENT_BYTES} bytes")
            parts.append(chunk)
        try:
            event = json.loads(b"".join(parts))
            self._check_files(event)
            session = event.get("session_hash") if isinstance(event, dict) else None
            if not isinstance(session, str) or not SESSION.fullmatch(session):
                raise ValueError("no session")
            body = json.dumps(event, allow_nan=False).encode()
        except ImageError:  # a subclass of ValueError
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

        return {**request.scope, "headers": headers}, replay, session

    def _check_files(self, value: Any) -> None:
        """Checks everything that gradio may take for a file: any object with a path."""
        if isinstance(value, list):
            for each in value:
                self._check_files(each)
        elif isinstance(value, dict):
            if "path" in value:
                if not isinstance(value["path"], str):
                    raise UploadError(400, "a path is not a string")
                self._uploads.check(value["path"])
                value["url"] = None  # gradio must use the path
            for each in value.values():
                self._check_files(each)


def _with_policy(send: Send, policy: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["content-security-policy"] = policy
            if policy is FILE_POLICY:
                headers["cache-control"] = "no-store"
        await send(message)

    return sending
