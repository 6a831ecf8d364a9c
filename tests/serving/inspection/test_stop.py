"""A server that is stopped while browsers show the page."""

import contextlib
import json
import re
import signal
import time

import pytest
import requests

pytest.importorskip("gradio", reason="needs gradio: pip install 'tfgad[serve]'")

from ..conftest import PATIENCE, ServerProcess
from .conftest import OWN_RATE

pytestmark = pytest.mark.integration

API = "/gradio_api"
# A stream ends within 0.1 s and the process within 2 s, half of it TensorFlow's; the limit of
# requests in progress is far above both.
STREAM_SECONDS, EXIT_SECONDS, DRAIN_SECONDS = 3, 10, 120
FILES = 60  # of 10 ms and more each


@pytest.fixture
def started(models_folder):
    ports = ["--port", "0", "--grpc-port", "0", "--drain-timeout", DRAIN_SECONDS]
    with ServerProcess(models_folder / "native", "--page", *ports) as started:
        yield started


@pytest.fixture
def stream(started):
    """Opens a stream of the server, read by nobody yet."""
    with contextlib.ExitStack() as opened:

        def stream(path):
            url = f"{started.url}{API}{path}"
            answer = opened.enter_context(requests.get(url, stream=True, timeout=PATIENCE))
            assert answer.status_code == 200
            return answer

        yield stream


def join(started, handler, session, data):
    """Sends an event, as a browser does."""
    config = re.search(
        r"window.gradio_config = (.*?);</script>", requests.get(started.url).text, re.S
    )
    events = json.loads(config[1])["dependencies"]
    number = next(each["id"] for each in events if each["api_name"] == handler)
    body = {"data": data, "fn_index": number, "session_hash": session}
    answer = requests.post(f"{started.url}{API}/queue/join", json=body, timeout=PATIENCE)
    assert answer.status_code == 200


def messages(results):
    """The messages of a stream of results."""
    for line in results.iter_lines():
        if line:
            yield json.loads(line.removeprefix(b"data: "))


def assert_stopped(started, since):
    """Asserts that a server that has received SIGTERM stops soon, and without a traceback."""
    assert started.process.wait(PATIENCE) == 0
    assert time.monotonic() - since < EXIT_SECONDS
    started._reader.join()
    assert started.lines[-1] == "stopped\n", started.lines
    assert not any("Traceback" in line for line in started.lines), started.lines


def test_an_open_page_does_not_delay_the_stop(started, stream):
    heartbeats = [stream(f"/heartbeat/{each}") for each in "ab"]
    join(started, "list_models", "a", [None])
    assert "native" in stream("/queue/data?session_hash=a").text  # to its end
    since = time.monotonic()
    started.process.send_signal(signal.SIGTERM)
    for each in heartbeats:
        assert each.text == "data: ALIVE\n\n"  # the stream ends properly
    assert time.monotonic() - since < STREAM_SECONDS
    assert_stopped(started, since)


def test_files_that_are_being_scored_are_scored_to_the_last(started, stream, paths):
    heartbeat = stream("/heartbeat/a")
    form = [("files", ("good.png", paths["good.png"].read_bytes()))]
    (path,) = requests.post(f"{started.url}{API}/upload", files=form, timeout=PATIENCE).json()
    files = [{"path": path, "meta": {"_type": "gradio.FileData"}}] * FILES
    join(started, "score", "a", [files, "native", OWN_RATE])
    received = messages(stream("/queue/data?session_hash=a"))
    while next(received)["msg"] != "process_generating":
        pass
    started.process.send_signal(signal.SIGTERM)
    *_, completed, closed = received
    since = time.monotonic()
    assert (completed["msg"], closed["msg"]) == ("process_completed", "close_stream")
    (table,) = [each for each in completed["output"]["data"] if "headers" in (each or ())]
    assert len(table["data"]) == FILES
    assert heartbeat.text.startswith("data: ALIVE")  # the stream ends properly
    assert time.monotonic() - since < STREAM_SECONDS
    assert_stopped(started, since)
