"""TF Serving's REST interface, with health checks and metrics.

    GET  /v1/models/NAME[/versions/N]              states of its versions
    GET  /v1/models/NAME[/versions/N]/metadata     its signatures
    POST /v1/models/NAME[/versions/N]:predict
    GET  /healthz, /readyz                         200; /readyz 503 while a model is missing
    GET  /monitoring/prometheus/metrics

It uses Starlette rather than FastAPI: the content of a body depends on the model's signature, so
that there is nothing for pydantic to validate or to document.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any
from urllib.parse import unquote

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtoMessage
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tfgad.serving.errors import ServingError, invalid
from tfgad.serving.file_cost import MEBI
from tfgad.serving.server import json_answers, json_requests, messages, metrics
from tfgad.serving.server.batch import Arrays
from tfgad.serving.server.request_bodies import BodyReader, Incoming, disconnected, refuse
from tfgad.serving.server.service import Call, Service, timed_out
from tfgad.serving.server.version_folders import LARGEST_VERSION

# Those of TF Serving's model_servers/http_rest_api_util.cc.
SPEC = (
    r"(?i:/v1/models)/(?P<name>[^/:]+)"
    r"(?:(?i:/versions)/(?P<number>\d+)|(?i:/labels)/(?P<label>[^/:]+))?"
)
PREDICTION = re.compile(SPEC + r":(?P<method>(?i:classify|regress|predict))", re.ASCII)
STATUS = re.compile(SPEC + r"(?P<metadata>(?i:/metadata))?", re.ASCII)
JSON = "application/json"
LARGE_BODY = MEBI
RETRY_SECONDS = "1"  # the pause that a busy server asks for


def build(service: Service) -> Starlette:
    """Returns the application."""
    handler = _Handler(service)
    api = _Api(handler, service.limits.max_body)
    return Starlette(
        routes=[
            Route("/healthz", _alive, methods=["GET"]),
            Route("/readyz", handler.ready, methods=["GET"]),
            Route(metrics.PATH, handler.metrics, methods=["GET"]),
            Route("/v1/{rest:path}", api),
            Route("/v1", api),
        ],
        exception_handlers={404: _not_found, 405: _not_found},
    )


async def _alive(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _not_found(request: Request, error: Exception) -> Response:
    return _error(ServingError("NOT_FOUND", f"Not found: {request.method} {request.url.path}"))


class _Handler:
    """The handlers of the routes."""

    def __init__(self, service: Service):
        self._service, self._limits = service, service.limits
        self._bodies = BodyReader(service)
        self._parsing = asyncio.Lock()

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
        if request.method == "POST" and (match := PREDICTION.fullmatch(path)):
            if match["method"].lower() != "predict":
                raise ServingError("UNIMPLEMENTED", f"{match['method']} is not supported")
            return await self._predict(request, match)
        if request.method == "GET" and (match := STATUS.fullmatch(path)):
            return self._metadata(match) if match["metadata"] else self._status(match)
        if request.method == "GET" and path.lower().rstrip("/") == "/v1/models":
            raise invalid("Missing model name in request.")
        raise invalid(f"Malformed request: {request.method} {path}")

    async def _predict(self, request: Request, match: re.Match) -> Response:
        with Call(self._service, "REST", "Predict") as call, self._service.memory.held() as hold:
            call.model, number = _model_of(match)
            body = await self._bodies.read(request, hold)
            deadline = time.monotonic() + self._limits.request_timeout
            # Admitted only now: a slow body holds a connection, but counts as no request.
            with self._service.admitted():
                body = await self._bodies.decompressed(request, body, hold, deadline)
                form, future = await self._parsed(request, call.model, number, body)
                del body  # it may be large, and is not needed while the request waits for a run
                outputs = await self._outputs(request, future, deadline)
                content = await run_in_threadpool(json_answers.answer, outputs, form)
                return Response(content, media_type=JSON)

    async def _parsed(
        self, request: Request, name: str, number: int | None, body: bytes
    ) -> tuple[str, Future]:
        """Parses and queues a request; returns its form, and the future of its outputs."""
        # Parsed lists take 25 times the memory of their text, so large bodies are parsed one after
        # another. This costs no time, since parsing holds Python's lock.
        async with self._parsing if len(body) > LARGE_BODY else contextlib.nullcontext():
            if await request.is_disconnected():
                raise disconnected()
            return await run_in_threadpool(self._submit, name, number, body)

    def _submit(self, name: str, number: int | None, body: bytes) -> tuple[str, Future]:
        document = json_requests.parse(body)
        form = json_requests.form_of(document)
        _, future = self._service.submit(
            name,
            number,
            json_requests.signature_name(document),
            lambda signature: json_requests.inputs_of(document, signature),
        )
        return form, future

    async def _outputs(self, request: Request, future: Future, deadline: float) -> Arrays:
        """Waits for outputs until the deadline, or until the client disconnects."""
        outputs = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(_until_disconnected(request))
        remaining = max(0.0, deadline - time.monotonic())
        try:
            ready, _ = await asyncio.wait(
                [outputs, gone], timeout=remaining, return_when=asyncio.FIRST_COMPLETED
            )
            if outputs in ready:
                return outputs.result()
            raise disconnected() if ready else timed_out(self._limits)
        finally:
            outputs.cancel()  # no run is made for a client that has gone, or it ends early
            gone.cancel()

    def _status(self, match: re.Match) -> Response:
        with Call(self._service, "REST", "GetModelStatus") as call:
            call.model, number = _model_of(match)
            status = messages.model_status(self._service.models, call.model, number)
            return JSONResponse(_as_dict(status))

    def _metadata(self, match: re.Match) -> Response:
        with Call(self._service, "REST", "GetModelMetadata") as call:
            call.model, number = _model_of(match)
            servable = self._service.models.find(call.model, number)
            return JSONResponse(
                {
                    "model_spec": _as_dict(messages.model_spec(servable)),
                    "metadata": {"signature_def": _as_dict(messages.signature_defs(servable))},
                }
            )


class _Api:
    """The interface as an ASGI application, which can answer before a body has arrived."""

    def __init__(self, handler: _Handler, max_body: int):
        self._handler, self._max_body = handler, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(receive)
        request = Request(scope, incoming)
        try:
            response = await self._handler.answer(request)
        except ServingError as error:
            response = _error(error)
            if error.http_status in (408, 413, 503) and incoming.more:
                await refuse(request, response, send, self._max_body)
                return
        await response(scope, receive, send)


async def _until_disconnected(request: Request) -> None:
    """Returns when the client of a complete request has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _model_of(match: re.Match) -> tuple[str, int | None]:
    """Returns the model and the version that a path names."""
    if match["label"]:
        label = unquote(match["label"])
        raise invalid(f"Unrecognized servable version label: {label}")
    number = None
    if match["number"]:
        number = int(match["number"].lstrip("0")[:20] or "0")
        if number > LARGEST_VERSION:
            raise invalid(f"Failed to convert version: {match['number'][:40]} to numeric.")
    return unquote(match["name"]), number


def _as_dict(message: ProtoMessage) -> Mapping[str, Any]:
    """Returns a message as TF Serving writes it: with the proto's names and all its fields."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _error(error: ServingError) -> Response:
    headers = {"retry-after": RETRY_SECONDS} if error.code == "UNAVAILABLE" else None
    body = json_answers.error_body(error.message)
    return Response(body, error.http_status, headers, media_type=JSON)
