"""TF Serving's REST interface, and what is beside it: health and metrics.

    GET  /v1/models/NAME[/versions/N]              the states of its versions
    GET  /v1/models/NAME[/versions/N]/metadata     its signatures
    POST /v1/models/NAME[/versions/N]:predict
    GET  /healthz, /readyz                         200; /readyz 503 while a model is missing
    GET  /monitoring/prometheus/metrics

Starlette rather than FastAPI: a body is one of numbers in an order that only the model's signature
knows, so there is nothing for pydantic to check or to document.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from urllib.parse import unquote

from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from tfgad.serving.server import encodings, json_tensors, messages, metrics
from tfgad.serving.server.batching import Arrays
from tfgad.serving.server.bodies import announced_size, timely
from tfgad.serving.server.errors import ServingError, invalid
from tfgad.serving.server.limits import MEBI
from tfgad.serving.server.repository import LARGEST_VERSION
from tfgad.serving.server.service import Call, Service, too_late

# Those of TF Serving's model_servers/http_rest_api_util.cc.
SPEC = (
    r"(?i:/v1/models)/(?P<name>[^/:]+)"
    r"(?:(?i:/versions)/(?P<number>\d+)|(?i:/labels)/(?P<label>[^/:]+))?"
)
PREDICTION = re.compile(SPEC + r":(?P<method>(?i:classify|regress|predict))", re.ASCII)
STATUS = re.compile(SPEC + r"(?P<metadata>(?i:/metadata))?", re.ASCII)
JSON = "application/json"
LARGE_BODY = MEBI
RETRY_SECONDS = "1"  # what a caller is told to wait who comes at a bad time
# What is read and thrown away of a body that is refused, so that its sender, who reads the answer
# only once all is sent, does not find the connection broken instead.
DRAIN_SECONDS, DRAINED_BODIES = 10.0, 16
ROOM_SECONDS = 0.01


def build(service: Service) -> Starlette:
    """Returns the application."""
    handler = _Handler(service)
    return Starlette(
        routes=[
            Route("/healthz", _alive, methods=["GET"]),
            Route("/readyz", handler.ready, methods=["GET"]),
            Route(metrics.PATH, handler.metrics, methods=["GET"]),
            Route("/v1/{rest:path}", handler.api),
            Route("/v1", handler.api),
        ],
        exception_handlers={404: _no_such_page, 405: _no_such_page},
    )


async def _alive(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _no_such_page(request: Request, error: Exception) -> Response:
    return _error(ServingError("NOT_FOUND", f"Not found: {request.method} {request.url.path}"))


class _Handler:
    def __init__(self, service: Service):
        self._service, self._limits = service, service.limits
        self._parsing = asyncio.Lock()
        self.most_drained = DRAINED_BODIES * service.limits.max_body
        self.api = _Api(self)

    async def ready(self, request: Request) -> Response:
        ready = self._service.models.is_ready()
        content = {"status": "ready" if ready else "not ready"}
        return JSONResponse(content, status_code=200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(
            self._service.metrics.page(), headers={"content-type": metrics.CONTENT_TYPE}
        )

    async def answer(self, request: Request) -> Response:
        """Answers a request of TF Serving's interface."""
        path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1")
        if request.method == "POST" and (asked := PREDICTION.fullmatch(path)):
            if asked["method"].lower() != "predict":
                raise ServingError("UNIMPLEMENTED", f"{asked['method']} is not supported")
            return await self._predict(request, asked)
        if request.method == "GET" and (asked := STATUS.fullmatch(path)):
            return self._metadata(asked) if asked["metadata"] else self._status(asked)
        if request.method == "GET" and path.lower().rstrip("/") == "/v1/models":
            raise invalid("Missing model name in request.")
        raise invalid(f"Malformed request: {request.method} {path}")

    async def _predict(self, request: Request, asked: re.Match) -> Response:
        with Call(self._service, "REST", "Predict") as call, self._service.memory.held() as hold:
            call.model, number = _model_of(asked)
            body = await self._body(request, hold)
            deadline = time.monotonic() + self._limits.request_timeout
            # Whoever sends a body slowly holds a connection meanwhile, but no place.
            with self._service.admitted():
                form, future = await self._parsed(request, call.model, number, body)
                del body  # it may be large, and what waits for a run no longer needs it
                outputs = await self._outputs(request, future, deadline)
                content = await run_in_threadpool(json_tensors.answer, outputs, form)
                return Response(content, media_type=JSON)

    async def _parsed(self, request: Request, name: str, number: int | None, body: bytes):
        # Lists take 25 times the memory of the text that they are read from. One large body after
        # another costs no time: it is Python's lock that they would wait for otherwise.
        async with self._parsing if len(body) > LARGE_BODY else contextlib.nullcontext():
            if await request.is_disconnected():
                raise _gone()
            return await run_in_threadpool(self._submit, name, number, body)

    async def _outputs(self, request: Request, future: Future, deadline: float) -> Arrays:
        """Waits for outputs as long as the time lasts and the caller is there to have them."""
        waiting = [asyncio.wrap_future(future), asyncio.ensure_future(_hung_up(request))]
        remaining = max(0.0, deadline - time.monotonic())
        try:
            ready, _ = await asyncio.wait(
                waiting, timeout=remaining, return_when=asyncio.FIRST_COMPLETED
            )
            if waiting[0] in ready:
                return waiting[0].result()
            raise _gone() if ready else too_late(self._limits)
        finally:
            for each in waiting:
                each.cancel()  # a run that no caller waits for is left out, or ends early

    def _submit(self, name: str, number: int | None, body: bytes):
        """Queues a request; returns its form, and the future of its outputs."""
        document = json_tensors.parse(body)
        form = json_tensors.form_of(document)
        _, future = self._service.submit(
            name,
            number,
            json_tensors.signature_name(document),
            lambda signature: json_tensors.inputs_of(document, signature),
        )
        return form, future

    async def _body(self, request: Request, hold: Callable[[int], None]) -> bytes:
        """Reads a body, decompressed, unless it is too large or does not come."""
        compressed = encodings.is_gzip(request.headers.get("content-encoding", ""))
        # Whoever says how much will come is answered before it does.
        self._check_body(announced_size(request.headers))
        try:
            body = await self._read(request, hold)
        except TimeoutError:
            problem = "the body did not arrive in time: it has "
            problem += f"{self._limits.body_timeout:g} s (--body-timeout) and 1 s for each 64 KiB"
            raise ServingError("DEADLINE_EXCEEDED", problem, http_status=408) from None
        except ClientDisconnect:
            raise _gone() from None
        if not compressed:
            return body
        return await run_in_threadpool(encodings.decompress, body, self._check_body, hold)

    async def _read(self, request: Request, hold: Callable[[int], None]) -> bytes:
        parts, size = [], 0
        async for part in timely(request, self._limits.body_timeout):
            size += len(part)
            self._check_body(size)
            await self._hold(hold, len(part))
            parts.append(part)
        return b"".join(parts)

    async def _hold(self, hold: Callable[[int], None], size: int) -> None:
        """Counts bytes of a body; those that have been coming for long give way if need be."""
        while True:
            try:
                return hold(size)
            except ServingError:
                if not self._service.make_room():
                    raise
            await asyncio.sleep(ROOM_SECONDS)  # until what was closed is let go of

    def _check_body(self, size: int) -> None:
        if size > self._limits.max_body:
            problem = f"the body is larger than {self._limits.max_body} bytes, which is the limit"
            problem += " (--max-body)"
            raise ServingError("RESOURCE_EXHAUSTED", problem, http_status=413)

    def _status(self, asked: re.Match) -> Response:
        with Call(self._service, "REST", "GetModelStatus") as call:
            call.model, number = _model_of(asked)
            return _message(messages.model_status(self._service.models, call.model, number))

    def _metadata(self, asked: re.Match) -> Response:
        with Call(self._service, "REST", "GetModelMetadata") as call:
            call.model, number = _model_of(asked)
            servable = self._service.models.find(call.model, number)
            return JSONResponse(
                {
                    "model_spec": _as_dict(messages.model_spec(servable)),
                    "metadata": {"signature_def": _as_dict(messages.signature_defs(servable))},
                }
            )


class _Api:
    """The interface as an ASGI application: it may answer before a body has come."""

    def __init__(self, handler: _Handler):
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = _Incoming(receive)
        request = Request(scope, incoming)
        try:
            response = await self._handler.answer(request)
        except ServingError as error:
            response = _error(error)
            if error.http_status in (408, 413, 503) and incoming.more:
                await _refuse(request, response, send, self._handler.most_drained)
                return
        await response(scope, receive, send)


class _Incoming:
    """A request's body on its way.

    Attributes:
        more: whether more of it may come.
    """

    def __init__(self, receive: Receive):
        self._receive, self.more = receive, True

    async def __call__(self) -> Message:
        event = await self._receive()
        self.more = event["type"] == "http.request" and event.get("more_body", False)
        return event


async def _refuse(request: Request, response: Response, send: Send, most: int) -> None:
    """Answers at once, reads on for a while so that the answer arrives, then hangs up."""
    headers = [*response.raw_headers, (b"connection", b"close")]
    status = response.status_code
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    waits = request.headers.get("expect", "").lower() == "100-continue"  # then no body comes
    if status != 408 and not waits:
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(_drain(request, most), DRAIN_SECONDS)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(request: Request, most: int) -> None:
    while most > 0:
        event = await request.receive()
        most -= len(event.get("body", b""))
        if event["type"] == "http.disconnect" or not event.get("more_body"):
            return


async def _hung_up(request: Request) -> None:
    """Returns once the caller of a whole request has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _gone() -> ServingError:
    return ServingError("CANCELLED", "the connection was closed")


def _model_of(asked: re.Match) -> tuple[str, int | None]:
    """Returns the name and the version that a path asks for."""
    if asked["label"]:
        label = unquote(asked["label"])
        raise invalid(f"Unrecognized servable version label: {label}")
    number = None
    if asked["number"]:
        number = int(asked["number"].lstrip("0")[:20] or "0")
        if number > LARGEST_VERSION:
            raise invalid(f"Failed to convert version: {asked['number'][:40]} to numeric.")
    return unquote(asked["name"]), number


def _message(message) -> Response:
    return JSONResponse(_as_dict(message))


def _as_dict(message) -> Mapping[str, object]:
    """Returns a message as TF Serving writes it: with the proto's names and all its fields."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _error(error: ServingError) -> Response:
    headers = {"retry-after": RETRY_SECONDS} if error.code == "UNAVAILABLE" else None
    body = json_tensors.error_body(error.message)
    return Response(body, error.http_status, headers, media_type=JSON)
