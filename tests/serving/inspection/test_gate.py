"""The page under attack: no route returns a private file, hangs, or fills the disk."""

import concurrent.futures
import contextlib
import json
import os
import re
import socket
import threading
import time
from urllib.parse import quote

import pytest
import requests

gradio = pytest.importorskip("gradio", reason="needs gradio: pip install 'tfgad[serve]'")

import uvicorn  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse  # noqa: E402
from starlette.routing import Mount, Route  # noqa: E402

from tfgad.serving.inspection import page as module  # noqa: E402
from tfgad.serving.inspection.batch import Batch  # noqa: E402
from tfgad.serving.inspection.process_folder import process_folder  # noqa: E402
from tfgad.serving.inspection.sessions import Sessions  # noqa: E402
from tfgad.serving.inspection.uploads import (  # noqa: E402
    ENTRY_BYTES,
    UploadLimits,
    Uploads,
    network_of,
)
from tfgad.serving.server.access import Gate, Hosts  # noqa: E402

from ..conftest import until  # noqa: E402
from .conftest import OWN_RATE  # noqa: E402

pytestmark = pytest.mark.integration

CANARY = b"canary-5d1c9e: nobody may read this"
PATIENCE = 60  # seconds
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FOREIGN = "evil.example"
# Streams of events do not end; they are read for this time.
STREAM_SECONDS = 0.3


class Site:
    """The page behind the gate, as a server has it.

    Attributes:
        url: where it answers.
        app: the application.
        uploads: its files.
    """

    def __init__(self, models, limits=None, **options):
        self.uploads = Uploads(limits)
        healthy = Route("/healthz", lambda request: JSONResponse({"status": "ok"}))
        self.app = Starlette(routes=[healthy])
        module.mount(self.app, models, "/", self.uploads, **options)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        gate = Gate(self.app, Hosts("127.0.0.1", is_local=True))
        self._server = uvicorn.Server(uvicorn.Config(gate, log_level="critical"))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self):
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(PATIENCE)

    def ask(self, method, path, **form):
        """Returns status, head and body of an answer; of a stream its beginning."""
        with requests.Session() as session:
            request = requests.Request(method, self.url, **form).prepare()
            request.url = self.url + path  # unchanged, with dots
            with session.send(request, stream=True, timeout=PATIENCE, allow_redirects=False) as got:
                return got.status_code, str(got.headers).encode(), b"".join(_content(got))

    def join(self, event, session, data=()):
        body = {"data": list(data), "fn_index": event, "session_hash": session}
        return requests.post(f"{self.url}/gradio_api/queue/join", json=body, timeout=PATIENCE)

    def results(self, session):
        """Returns the answer with the results of a session, not read yet."""
        url = f"{self.url}/gradio_api/queue/data?session_hash={session}"
        return requests.get(url, stream=True, timeout=PATIENCE)

    @property
    def queue(self):
        """The events, as gradio keeps them."""
        return self.app.routes[-1].app._app.get_blocks()._queue

    def is_healthy(self):
        return requests.get(f"{self.url}/healthz", timeout=PATIENCE).status_code == 200

    def upload(self, *files, **form):
        return requests.post(
            f"{self.url}/gradio_api/upload",
            files=[("files", (name, content)) for name, content in files],
            timeout=PATIENCE,
            **form,
        )

    def files(self):
        """The visitors' files on the disk, and folders of them."""
        given = [each for each in self.uploads.folder.iterdir() if len(each.name) == 32]
        return [file for each in given for file in (each, *each.iterdir())]


def _content(answer):
    if "event-stream" not in answer.headers.get("content-type", ""):
        yield answer.content
        return
    timer = threading.Timer(STREAM_SECONDS, getattr(answer.raw, "shutdown", answer.raw.close))
    timer.start()
    with contextlib.suppress(requests.RequestException, OSError, ValueError, AttributeError):
        yield from answer.iter_content(None)
    timer.cancel()


@pytest.fixture(scope="module")
def site(models):
    """A site without a limit of unread events."""
    with Site(models, sessions=Sessions(max_unread=10**6)) as site:
        yield site


@pytest.fixture
def limited(models):
    """A site that takes 3 MiB of all visitors, 2 MiB of one, 1 MiB a file, and five files."""
    limits = UploadLimits(total=3 * 2**20, address=2 * 2**20, file=2**20, files=5, timeout=PATIENCE)
    with Site(models, limits) as site:
        yield site


@pytest.fixture(scope="module")
def baits(site, tmp_path_factory):
    """Paths of private files, and of files without an end."""
    folder = tmp_path_factory.mktemp("baits")
    canary = folder / "canary.txt"
    canary.write_bytes(CANARY)
    os.mkfifo(folder / "pipe")
    link, beside = site.uploads.folder / "link.png", site.uploads.folder / "pipe.png"
    link.symlink_to(canary)
    os.mkfifo(beside)
    up = "../" * 12 + str(canary)[1:]
    paths = [
        str(canary),
        f"{site.uploads.folder}/{up}",
        up,
        str(link),
        str(beside),
        str(folder / "pipe"),
        "/dev/zero",
        f"file://{canary}",
        f"{site.url}/healthz",
    ]
    yield paths
    link.unlink()
    beside.unlink()


def routes_of(app, prefix=""):
    """Yields the paths of all routes, including those of mounted applications."""
    for route in app.routes:
        if hasattr(route, "original_router"):  # FastAPI's newer way to include a router
            yield from routes_of(route.original_router, prefix)
        elif isinstance(route, Mount):
            yield from routes_of(route, prefix + route.path)
        else:
            yield prefix + route.path


def filled(route, value):
    """Returns a route's path with a value for its last parameter, and 0 for the others."""
    parameters = re.findall(r"\{[^}]+\}", route)
    for parameter in parameters[:-1]:
        route = route.replace(parameter, "0")
    return route.replace(parameters[-1], value) if parameters else route


def attacks(routes, paths):
    """Yields the path of each route with each bait, in several encodings."""
    for route in routes:
        if "{" not in route:
            yield route
            continue
        for path in paths:
            once = quote(path, safe="")
            for written in (path, path.lstrip("/"), once, quote(once, safe="")):
                yield filled(route, written)


@pytest.mark.slow
def test_no_route_gives_a_file_away(site, baits):
    routes = sorted(set(routes_of(site.app)))
    for known in ("/gradio_api/file={path_or_url:path}", "/gradio_api/upload", "/healthz"):
        assert known in routes
    assert len(routes) > 50  # third parties' are among them
    query = {key: baits[0] for key in ("session_hash", "path", "deep_link", "upload_id", "url")}
    body = {"data": [baits[0]], "fn_index": 0, "session_hash": "a", **query}

    def attack(path):
        for method in METHODS:
            content = {"json": body} if method in ("POST", "PUT", "PATCH", "DELETE") else {}
            status, head, answer = site.ask(method, path, params=query, **content)
            assert CANARY not in head + answer, (method, path)
            assert status < 500, (method, path, answer[:200])
        for method in ("GET", "POST"):
            foreign = {"Host": FOREIGN, "X-Forwarded-Host": "localhost"}
            status, head, answer = site.ask(method, path, params=query, headers=foreign)
            assert status == 403, (method, path)
            assert CANARY not in head + answer, (method, path)

    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        list(threads.map(attack, set(attacks(routes, baits))))
    assert site.is_healthy()


def test_routes_that_the_page_does_not_need_are_closed(site):
    assert site.join(0, "x", [None]).status_code == 200  # results are those of an event
    open_to_get = {
        route
        for route in routes_of(site.app)
        if site.ask("GET", filled(route, "x") + "?session_hash=x")[0] != 404
    }
    assert open_to_get == {
        "/",
        "/favicon.ico",
        "/gradio_api/file={path_or_url:path}",
        "/gradio_api/heartbeat/{session_hash}",
        "/gradio_api/queue/data",
        "/gradio_api/upload_progress",
        "/healthz",
        "/theme.css",
    }


META = {"_type": "gradio.FileData"}


def files_of(path):
    """Yields all forms of what gradio might take for a file."""
    whole = {"path": path, "meta": META, "url": path, "orig_name": path, "is_stream": False}
    forms = [{"path": path, "meta": META}, whole, {**whole, "is_stream": True}, {"path": path}]
    for form in (*forms, {"meta": {**META, "path": path}}, path):
        yield from (form, [form], {"value": form})


def events_of(site):
    config = requests.get(site.url, timeout=PATIENCE).text
    config = re.search(r"window.gradio_config = (.*?);</script>", config, re.S)[1]
    return json.loads(config)["dependencies"]


def test_no_event_reads_a_file_of_the_machine(site, baits):
    events, meta = events_of(site), {"meta": META}
    assert len(events) > 10
    sent = [(event, value) for event in events for value in files_of(baits[0])]
    sent += [(event, [{"path": path, **meta}]) for event in events for path in baits[1:]]

    def attack(event, value):
        body = {
            "data": [value] * len(event["inputs"]),
            "event_data": {"index": 0, "value": value, "row_value": [value]},
            "fn_index": event["id"],
            "session_hash": f"visitor{event['id']}",
        }
        url = f"{site.url}/gradio_api/queue/join"
        answer = requests.post(url, json=body, timeout=PATIENCE)
        # A path alone is a text; objects that look like a file are refused.
        assert answer.status_code == 403 or "path" not in json.dumps(value)
        assert answer.status_code in (200, 403, 422), answer.text
        return body

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        bodies = list(threads.map(attack, *zip(*sent, strict=True)))
        for path in ("call/score", "call/v2/score", "run/predict", "api/score"):
            for body in bodies[:3]:
                assert site.ask("POST", f"/gradio_api/{path}", json=body)[0] == 404
        sessions = {body["session_hash"] for body in bodies}
        streams = [f"/gradio_api/queue/data?session_hash={each}" for each in sessions]
        for _, head, stream in threads.map(lambda path: site.ask("GET", path), streams):
            assert CANARY not in head + stream
    # Nothing was copied to a folder from which it could be fetched; links are baits.
    copies = [each for each in process_folder().rglob("*") if each.is_file()]
    assert not any(CANARY in each.read_bytes() for each in copies if not each.is_symlink())
    assert site.is_healthy()


def test_gradio_parses_an_event_as_it_was_checked(site, baits):
    """Duplicate keys or invalid encodings: gradio gets what was checked."""
    meta = '"meta": {"_type": "gradio.FileData"}'
    twice = f'{{"path": "{baits[0]}", {meta}, "path": "{site.uploads.folder}/x"}}'
    for body in (twice, "[" * 10**5, "\ud800", "{", b"\xff\xfe", b'{"a": NaN}', b""):
        content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
        url = f"{site.url}/gradio_api/queue/join"
        assert requests.post(url, data=content, timeout=PATIENCE).status_code in (400, 403, 422)
    large = requests.post(url, data=b" " * (2**20 + 1), timeout=PATIENCE)
    assert large.status_code == 413


# Uploads


def test_a_file_can_be_uploaded_and_fetched(site):
    names = ["part one.png", "../../etc/passwd", "C:\\x\\näh.png", ".hidden", "a" * 300 + ".png"]
    paths = site.upload(*[(name, name.encode()) for name in names]).json()
    expected = ["part one.png", "passwd", "näh.png", "hidden", "a" * 196 + ".png"]
    assert [os.path.basename(path) for path in paths] == expected
    for name, path in zip(names, paths, strict=True):
        assert os.path.dirname(os.path.dirname(path)) == str(site.uploads.folder)
        answer = requests.get(f"{site.url}/gradio_api/file={quote(path)}", timeout=PATIENCE)
        assert answer.content == name.encode()
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


def test_files_are_removed_with_their_visitor(site):
    before = site.files()
    first, second = site.upload(("a.png", b"a"), ("b.png", b"b")).json()
    (other,) = site.upload(("c.png", b"c")).json()
    site.uploads.claim("one", [first, second])
    site.uploads.claim("two", [other])
    site.uploads.claim("one", [second, "/an/example.png"])
    assert [os.path.exists(each) for each in (first, second, other)] == [False, True, True]
    site.uploads.leave("one")
    site.uploads.leave(None)
    assert [os.path.exists(each) for each in (second, other)] == [False, True]
    site.uploads.leave("two")
    assert site.files() == before


def test_uploads_over_a_limit_are_refused_and_removed(limited):
    mebi = b"x" * (2**20 - 2 * ENTRY_BYTES)
    answer = limited.upload(("large.png", b"x" * (2**20 + 1)))
    assert (answer.status_code, answer.text) == (413, "a file is larger than 1 MiB")
    answer = limited.upload(*[(f"{i}.png", b"") for i in range(6)])
    assert (answer.status_code, answer.text) == (413, "more than 5 files at once")
    assert limited.files() == []
    assert limited.upload(("a.png", mebi), ("b.png", mebi)).status_code == 200
    answer = limited.upload(("c.png", mebi))
    assert answer.status_code == 413
    assert "your uploads may take 2 MiB" in answer.text
    with limited.uploads._lock:  # other addresses fill the rest
        limited.uploads._held["192.0.2.1"] += 2**20
    answer = limited.upload(("d.png", mebi[: 2**19]))
    assert answer.status_code == 413
    assert "the uploads of all visitors may take 3 MiB" in answer.text
    assert len(limited.files()) == 4  # two, each in a folder
    limited.uploads.sweep()
    assert len(limited.files()) == 4
    age(limited.uploads, 11 * 60)
    limited.uploads.sweep()
    assert limited.files() == []
    assert limited.uploads.bytes == 2**20


def age(uploads, seconds):
    for upload in uploads._uploads.values():
        upload.used -= seconds


def test_a_file_that_an_event_names_is_kept_for_long(limited):
    named, claimed, _ = limited.upload(*[(f"{i}.png", b"x") for i in range(3)]).json()
    limited.uploads.check(named)
    limited.uploads.claim("one", [claimed])
    age(limited.uploads, 23 * 3600)
    limited.uploads.sweep()
    assert set(map(str, limited.files())) > {named, claimed}
    assert len(limited.files()) == 4  # two, each in a folder
    age(limited.uploads, 2 * 3600)
    limited.uploads.sweep()
    assert limited.files() == []


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("testclient", "testclient"),
    ],
)
def test_the_addresses_of_one_ipv6_network_count_as_one(host, network):
    assert network_of(Request({"type": "http", "client": (host, 1)})) == network


def test_open_streams_are_limited(models):
    with Site(models, max_streams=4) as site, contextlib.ExitStack() as opened:

        def stream():
            url = f"{site.url}/gradio_api/heartbeat/x"
            return opened.enter_context(requests.get(url, stream=True, timeout=PATIENCE))

        mine = [stream() for _ in range(2)]
        assert [each.status_code for each in mine] == [200, 200]
        refused = stream()
        assert (refused.status_code, refused.text) == (
            503,
            "your address has 2 streams open, which is the limit",
        )
        assert site.ask("GET", "/gradio_api/queue/data", params={"session_hash": "x"})[0] == 503
        streams = site.app.routes[-1].app._streams
        streams._open["192.0.2.1"] += 2
        assert stream().text == "4 streams are open, which is the limit: try again later"
        assert site.is_healthy()
        mine[0].close()
        until(lambda: streams._open.total() == 3)
        assert stream().status_code == 200


def number_of(site, handler):
    return next(each["id"] for each in events_of(site) if each["api_name"] == handler)


def test_unread_events_are_limited(models):
    sessions = Sessions(max_unread=2)
    with Site(models, sessions=sessions) as site:
        assert site.join(10**6, "refused").status_code >= 400  # a refused event does not count
        assert [site.join(0, each, [None]).status_code for each in ("a", "b")] == [200, 200]
        for session in ("a", "c"):
            refused = site.join(0, session, [None])
            assert (refused.status_code, refused.text) == (
                429,
                "your address has 2 events with unread results, which is the limit: "
                "try again later",
            )
        assert sessions.join("d", "192.0.2.1")  # another network
        assert "fabric" in site.results("a").text  # reads it to its end
        until(lambda: "a" not in site.queue.pending_messages_per_session)  # room for others
        assert site.join(0, "c", [None]).status_code == 200
        assert site.join(0, "a", [None]).status_code == 429  # its stream has ended
        for strange in (None, 1, "", "a" * 65, "a/b"):
            assert site.join(0, strange, [None]).status_code == 400


def test_files_are_not_scored_if_nobody_reads_the_results(models, paths, monkeypatch):
    add, scored = Batch.add, []

    def adding(batch, path):
        scored.append(batch.visitor)
        add(batch, path)

    monkeypatch.setattr(Batch, "add", adding)
    with Site(models, sessions=Sessions(stream_patience=0.2, session_patience=1)) as site:
        content = paths["good.png"].read_bytes()
        given = site.upload(("one.png", content), ("two.png", content)).json()
        data = [[{"path": path, "meta": META} for path in given], "fabric", OWN_RATE]
        score = number_of(site, "score")
        assert site.join(score, "gone", data).status_code == 200
        until(lambda: not site.queue.event_ids_to_events)
        assert scored == []
        assert "gone" in site.queue.pending_messages_per_session
        time.sleep(1)
        # The next event makes gradio forget the session, and is scored since its results are read.
        for _ in range(PATIENCE):  # a slow machine may open the stream too late
            assert site.join(score, "reader", data).status_code == 200
            text = site.results("reader").text
            if scored:
                break
        assert set(scored) == {"reader"}
        assert "one.png" in text
        assert "gone" not in site.queue.pending_messages_per_session


def test_streams_of_no_session_write_no_traceback(models, caplog):
    with Site(models) as site:
        assert site.results("stranger").status_code == 404
        assert caplog.text == ""
        for session in ("a", "b"):
            assert site.join(0, session, [None]).status_code == 200
            until(lambda: not site.queue.event_ids_to_events)
            del site.queue.pending_messages_per_session[session]  # so that gradio fails
            answer = site.results(session)
            assert answer.status_code == 200
            assert "unexpected_error" in answer.text  # the stream is complete
    (record,) = [each for each in caplog.records if each.name == "tfgad.serving.inspection.streams"]
    assert record.getMessage().startswith("1 streams of the page broke, the last by")
    assert not record.exc_info


HEAD = (
    "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
)
PART = '--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nhalf'


def started_upload(site):
    """Returns a connection that has sent half of a form."""
    host, _, port = site.url.removeprefix("http://").rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    connection.sendall((HEAD + PART).encode())
    return connection


def test_an_unfinished_upload_is_refused_and_removed(models):
    with Site(models, UploadLimits(timeout=0.5)) as site:
        with started_upload(site) as connection:
            answer = b"".join(iter(lambda: connection.recv(2**16), b""))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive in time" in answer
        assert site.files() == []
        assert site.uploads.bytes == 0


def test_the_upload_of_a_disconnected_client_is_removed(limited):
    with started_upload(limited):
        until(limited.files)
    until(lambda: not limited.files() and not limited.uploads.bytes)


@pytest.mark.parametrize(
    ("kind", "body", "problem"),
    [
        ("text/plain", PART, "is no form with files"),
        ("multipart/form-data", PART, "is no form with files"),
        ("multipart/form-data; boundary=b", PART, "the form is incomplete"),
        ("multipart/form-data; boundary=b", "nonsense", "the form cannot be read"),
        ("multipart/form-data; boundary=b", PART.replace("a.png", "a" * 5000), "cannot be read"),
        ("multipart/form-data; boundary=b", "--b\r\n" + "A: b\r\n" * 9, "cannot be read"),
        (
            "multipart/form-data; boundary=b",
            '--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nx\r\n--b--\r\n',
            "something other than files",
        ),
    ],
)
def test_a_broken_form_leaves_nothing(limited, kind, body, problem):
    url = f"{limited.url}/gradio_api/upload"
    answer = requests.post(url, data=body, headers={"Content-Type": kind}, timeout=PATIENCE)
    assert answer.status_code == 400
    assert problem in answer.text
    assert limited.files() == []
    assert limited.uploads.bytes == 0


def test_a_full_disk_is_reported_and_nothing_is_left(limited, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tfgad.serving.inspection.upload_form.UploadForm._write", fail)
    answer = limited.upload(("a.png", b"a"))
    assert (answer.status_code, answer.text) == (507, "the server's disk is full")
    assert limited.files() == []
