"""What stands before gradio's own routes: few are needed, the others are closed.

A list of what is open, so that what a new version of gradio adds is closed until it is needed.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tfgad.data.image_files import ImageError
from tfgad.serving.inspection.uploads import LATE, UploadError, Uploads, network_of
from tfgad.serving.server.bodies import timely

log = logging.getLogger(__name__)

API = "/gradio_api"
FILE, UPLOAD, EVENT = f"{API}/file=", f"{API}/upload", f"{API}/queue/join"
PROGRESS = f"{API}/upload_progress"
HEARTBEAT, RESULTS = f"{API}/heartbeat/", f"{API}/queue/data"  # answers that do not end
# A visitor has two. `tfgad.serving.server.server` gives a number by its connections.
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
# Events of one network whose results nobody reads. A browser opens the stream of results as soon
# as its event is accepted, so that a tab has one such event for the time of a round trip.
MOST_UNREAD = 8
# Seconds for which an event waits for its stream of results: a slow line needs a few round trips.
STREAM_PATIENCE = 5.0
# Seconds after which a session that nobody reads is forgotten, and its events count no more.
SESSION_PATIENCE = 60.0
SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
LOG_SECONDS = 60.0  # between two lines on streams that broke
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
        sessions: who reads the results of events; a new one, if not given.
        drop: frees what gradio keeps of a session; told that its stream has just ended, only if no
            event is under way.
    """

    def __init__(
        self,
        app: ASGIApp,
        uploads: Uploads,
        most_streams: int = MOST_STREAMS,
        sessions: Sessions | None = None,
        drop: Callable[[str, bool], Awaitable[None]] | None = None,
    ):
        self._app, self._uploads = app, uploads
        self._streams = _Streams(most_streams)
        self._sessions, self._drop = sessions or Sessions(), drop
        self._broken, self._next_line = 0, 0.0  # streams since the last line of the log

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
                if problem:
                    await PlainTextResponse(problem, 503)(scope, receive, send)
                elif path == RESULTS and scope["method"] == "GET":
                    await self._give_results(request, send)
                else:
                    await self._app(scope, receive, send)
            return
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
        """Counts an event; returns what sends its answer, and takes it back if it is refused.

        Raises:
            UploadError: nobody reads the results of too many.
        """
        for each in self._sessions.forget():
            if self._drop is not None:
                await self._drop(each, False)
        if not self._sessions.join(session, network):
            limit = f"{self._sessions.most_unread} events whose results nobody reads"
            raise UploadError(429, f"your address has {limit}, which is the limit: try again later")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] != 200:
                self._sessions.withdraw(session)
            await send(message)

        return sending

    async def _give_results(self, request: Request, send: Send) -> None:
        """Passes on the stream of a session that has joined. Where it breaks, it ends in order."""
        is_begun = is_whole = False

        async def sending(message: Message) -> None:
            nonlocal is_begun, is_whole
            is_begun = True
            is_whole = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        scope, receive = request.scope, request.receive
        session = request.query_params.get("session_hash", "")
        with self._sessions.read(session) as is_known:
            if not is_known:
                await PlainTextResponse("No event of this session", 404)(scope, receive, send)
                return
            try:
                await self._app(scope, receive, sending)
            except Exception as error:
                if not is_begun:
                    raise
                self._note_broken(error)
                if not is_whole:
                    await send({"type": "http.response.body", "body": b""})
        if self._drop is not None:
            await self._drop(session, True)

    def _note_broken(self, error: Exception) -> None:
        self._broken += 1
        now = time.monotonic()
        if now >= self._next_line:
            log.warning("%d streams of results broke, the last by %r", self._broken, error)
            self._broken, self._next_line = 0, now + LOG_SECONDS

    async def _checked(self, request: Request) -> tuple[Scope, Receive, str]:
        """Returns a request whose event names no other files than the page's, and its session.

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
            session = event.get("session_hash") if isinstance(event, dict) else None
            if not isinstance(session, str) or not SESSION.fullmatch(session):
                raise ValueError("no session")
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

        return {**request.scope, "headers": headers}, replay, session

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


@dataclasses.dataclass
class _Session:
    """A visitor's open page.

    Attributes:
        network: whose it is.
        seen: when it last joined, or a stream of its results ended.
        unread: events that were accepted since then while no stream was open.
        streams: how many are open.
    """

    network: str
    seen: float
    unread: int = 0
    streams: int = 0


class Sessions:
    """Who reads the results of events. Any thread may ask.

    Args:
        most_unread: events of one network whose results nobody reads.
        stream_patience: seconds for which an event waits for its stream.
        session_patience: seconds after which a session that nobody reads is forgotten.
    """

    def __init__(
        self,
        most_unread: int = MOST_UNREAD,
        stream_patience: float = STREAM_PATIENCE,
        session_patience: float = SESSION_PATIENCE,
    ):
        self.most_unread = most_unread
        self._stream_patience, self._session_patience = stream_patience, session_patience
        self._known: dict[str, _Session] = {}
        self._changed = threading.Condition()

    def join(self, session: str, network: str) -> bool:
        """Counts an event; returns whether it may be accepted."""
        with self._changed:
            known = self._known.get(session)
            if known is None or not known.streams:
                unread = sum(e.unread for e in self._known.values() if e.network == network)
                if unread >= self.most_unread:
                    return False
            if known is None:
                known = self._known[session] = _Session(network, 0)
            elif not known.streams:
                known.network = network
            known.seen = time.monotonic()
            known.unread += not known.streams
            return True

    def withdraw(self, session: str) -> None:
        """Takes back an event that was not accepted after all."""
        with self._changed:
            if session in self._known:
                self._known[session].unread = max(0, self._known[session].unread - 1)

    @contextlib.contextmanager
    def read(self, session: str) -> Iterator[bool]:
        """Notes that a stream is open meanwhile; yields whether the session has joined."""
        with self._changed:
            known = self._known.get(session)
            if known is not None:
                known.streams += 1
                known.unread = 0
                self._changed.notify_all()
        try:
            yield known is not None
        finally:
            if known is not None:
                with self._changed:
                    known.streams -= 1
                    known.seen = time.monotonic()

    def is_read(self, session: str) -> bool:
        """Returns whether a stream is open, once it is or `stream_patience` is over."""
        with self._changed:
            known = self._known.get(session)
            if known is None:
                return False
            left = known.seen + self._stream_patience - time.monotonic()
            return self._changed.wait_for(lambda: known.streams > 0, max(0.0, left))

    def forget(self) -> list[str]:
        """Forgets the sessions that nobody has read for long, and returns them."""
        end = time.monotonic() - self._session_patience
        with self._changed:
            gone = [k for k, each in self._known.items() if not each.streams and each.seen < end]
            for session in gone:
                del self._known[session]
        return gone


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
