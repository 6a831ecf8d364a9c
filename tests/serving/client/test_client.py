"""The client with servers that answer, answer slowly, or do not answer."""

import base64
import contextlib
import io
import json
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

for package in ("requests", "tensorflow_serving"):
    pytest.importorskip(package, reason="needs pip install 'tfgad[serve]'")

from tfgad.scores.map_regions import find_regions, from_outputs  # noqa: E402
from tfgad.serving.client import Client, ClientError  # noqa: E402

from ..conftest import PATIENCE, REASONS, encoded, kept_port, until  # noqa: E402

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.integration


@pytest.fixture(params=["http", "grpc"])
def client(request, server):
    """A client of either interface."""
    url = server.url if request.param == "http" else f"grpc://{server.grpc}"
    with Client(url, "native", timeout=PATIENCE) as client:
        yield client


def test_the_client_scores_arrays_files_and_paths(client, pictures, expected, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(pictures[0]))
    three = [encoded(each) for each in pictures[:3]]
    for images, count in (
        (pictures[:3], 3),
        (list(pictures[:3]), 3),
        (pictures[0], 1),
        (pictures[0, :, :, 0], 1),
        (three, 3),
        (three[0], 1),
        (path, 1),
        ([str(path)], 1),
    ):
        given = client.score(images)
        assert {name: value.dtype.name for name, value in given.items()} == {
            "score": "float32",
            "probability": "float32",
            "is_anomalous": "bool",
            "map": "float32",
            "reason": "object",
            "brightness": "float32",
        }
        for name in ("score", "map"):
            np.testing.assert_allclose(given[name], expected[name][:count], rtol=1e-5, atol=1e-5)


def test_the_client_lists_regions(client, pictures, expected, fitted, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(pictures[0]))
    threshold = float(fitted("ganomaly").calibration.threshold)
    for images, count in ((pictures[:3], 3), (path, 1)):
        given = client.regions(images)
        assert set(given) == {
            "score",
            "probability",
            "is_anomalous",
            "reason",
            "brightness",
            "regions",
            "region_count",
        }
        assert given["region_count"].dtype == np.int32
        for index in range(count):
            row = {name: value[index] for name, value in given.items()}
            found = find_regions(expected["map"][index], threshold)
            np.testing.assert_allclose(from_outputs(row), found[:64], rtol=1e-4, atol=1e-4)
            assert row["region_count"] == len(found)


def test_the_client_calls_a_signature(client, pictures):
    reconstruction = client.predict({"images": pictures[:2]}, "reconstruct")
    assert reconstruction["reconstruction"].shape == (2, 48, 48, 1)
    assert reconstruction["reconstruction"].dtype == np.uint8


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_client_reads_strings(server, scheme):
    url = server.url if scheme == "http" else f"grpc://{server.grpc}"
    with Client(url, "foreign", timeout=PATIENCE) as client:
        given = client.predict({"x": np.float32([1, 0, 3])}, "described")
    reasons = [REASONS[i].encode() for i in (1, 0, 3)]
    assert given["reason"].tolist() == reasons
    assert given["file_bytes"].tolist() == [b"\xff" + each for each in reasons]
    assert given["score"].tolist() == [0.25, 0, 0.75]


def test_the_client_returns_status_and_metadata(client):
    assert client.status() == {1: {"state": "AVAILABLE", "error_code": "OK", "error_message": ""}}
    metadata = client.metadata()
    assert (metadata["name"], metadata["version"]) == ("native", 1)
    default = metadata["signatures"]["serving_default"]
    assert default["inputs"] == {"images": {"dtype": "DT_UINT8", "shape": [-1, -1, -1, 1]}}
    assert default["outputs"]["map"] == {"dtype": "DT_FLOAT", "shape": [-1, -1, -1]}


def test_the_client_raises_the_servers_errors(client, pictures):
    for images, message in (
        (b"no image", "not a readable PNG or JPEG"),
        (pictures[:, :20], "smaller than"),
    ):
        with pytest.raises(ClientError, match=message) as raised:
            client.score(images)
        assert raised.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_client_raises_if_no_server_answers(scheme):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        Client(f"{scheme}://127.0.0.1:{port}", "parts", timeout=5, retries=1) as client,
        pytest.raises(ClientError) as raised,
    ):
        client.status()
    assert raised.value.code == "UNAVAILABLE"


def test_the_client_retries_if_the_server_is_busy():
    """The server answers twice: busy, then a state."""
    content = b'{"model_version_status":[{"version":"3","state":"AVAILABLE","status":{}}]}'
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}"
    ready = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer_twice():
            connection, _ = listening.accept()
            with connection, io.BufferedReader(connection.makefile("rb", 0)) as lines:
                for answer in (busy, ready):
                    while lines.readline() != b"\r\n":
                        pass
                    connection.sendall(answer)

        answering = threading.Thread(target=answer_twice)
        answering.start()
        with Client(f"http://127.0.0.1:{listening.getsockname()[1]}", "parts") as client:
            assert client.status() == {3: {"state": "AVAILABLE"}}
        answering.join(PATIENCE)


def test_the_rest_client_needs_no_tensorflow(server, pictures):
    script = f"""
import base64, sys
from tfgad.serving.client import Client
file = base64.b64decode("{base64.b64encode(encoded(pictures[0])).decode()}")
assert Client("{server.url}", "native").score(file)["map"].shape == (1, 48, 48)
assert not {{"tensorflow", "grpc", "keras"}} & sys.modules.keys()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


@contextlib.contextmanager
def stalling(answer):
    """The URL of a server that sends only the beginning of an answer."""
    held = []

    def serve(listening):
        with contextlib.suppress(OSError):
            while True:
                held.append(listening.accept()[0])
                held[-1].sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", held
    for each in held:
        each.close()


@pytest.mark.parametrize("answer", [b"", HEAD], ids=["nothing", "the beginning"])
def test_a_late_answer_is_a_deadline_error(answer):
    """The request is not sent again, since the server may still work on it."""
    with (
        stalling(answer) as (url, held),
        Client(url, "parts", timeout=0.3, retries=3) as client,
        pytest.raises(ClientError) as raised,
    ):
        client.status()
    assert raised.value.code == "DEADLINE_EXCEEDED"
    assert len(held) == 1


def test_a_grpc_client_reconnects_to_a_restarted_server():
    """It tries eight times in some seconds; gRPC by itself takes 43 s for as many."""
    grpc = pytest.importorskip("grpc")
    apis = pytest.importorskip("tensorflow_serving.apis.model_service_pb2_grpc")
    from tensorflow_serving.apis import get_model_status_pb2

    class Service(apis.ModelServiceServicer):
        def GetModelStatus(self, request, context):  # noqa: N802
            answer = get_model_status_pb2.GetModelStatusResponse()
            answer.model_version_status.add(version=3, state="AVAILABLE")
            return answer

    attempts = []

    def hang_up(listening):
        for _ in range(8):
            listening.accept()[0].close()
            attempts.append(time.monotonic())

    def version(client):
        with contextlib.suppress(ClientError):
            return list(client.status())

    port = kept_port()
    with socket.create_server(("127.0.0.1", port)) as listening:
        threading.Thread(target=hang_up, args=(listening,), daemon=True).start()
        client = Client(f"grpc://127.0.0.1:{port}", "parts", timeout=5, retries=0)
        until(lambda: version(client) is None and len(attempts) == 8)
    # On a slow machine some take longer; by itself gRPC waits 5 s at least before each of the last.
    assert min(np.diff(attempts[-4:])) < 5
    server = grpc.server(ThreadPoolExecutor(1))
    apis.add_ModelServiceServicer_to_server(Service(), server)
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    until(lambda: version(client) == [3])
    client.close()
    server.stop(None)


@pytest.mark.parametrize("interface", ["http", "grpc"])
def test_the_camera_example_scores_drops_or_counts_each_frame(
    server, pictures, tmp_path, monkeypatch, capsys, interface
):
    for number, picture in enumerate(pictures[:5]):
        (tmp_path / f"{number}.png").write_bytes(encoded(picture))
    (tmp_path / "broken.png").write_text("no image")  # the last of six
    url = server.url if interface == "http" else f"grpc://{server.grpc}"
    options = ["--url", url, "--model", "native", "--frames", tmp_path, "--fps", 2000]
    options += ["--queue", 2, "--workers", 1, "--seconds", 1.2]
    monkeypatch.setattr(sys, "argv", ["camera.py", *map(str, options)])
    runpy.run_path(str(ROOT / "examples" / "camera.py"), run_name="__main__")
    a_second, at_the_end = capsys.readouterr().out.splitlines()
    assert a_second.startswith("  1 s: ")
    numbers = re.search(
        r"([\d.]+) verdicts/s, p50 (\d+) ms, p99 (\d+) ms; (\d+) frames: (\d+) scored, "
        r"\d+ defective, (\d+) dropped, (\d+) INVALID_ARGUMENT$",
        at_the_end,
    )
    rate, p50, p99, taken, scored, dropped, refused = map(float, numbers.groups())
    assert taken == scored + dropped + refused == 2400
    assert min(rate, scored, dropped, refused) > 0
    assert p50 <= p99


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_examples_of_the_docs(server, pictures, expected, tmp_path):
    for name, picture in zip(("part", "other"), pictures[:2], strict=True):
        (tmp_path / f"{name}.png").write_bytes(encoded(picture))
    page = (ROOT / "docs" / "serving.md").read_text()
    answers = []
    for code in re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        code = code.replace("http://127.0.0.1:8501", server.url)
        code = code.replace("weave_twill_ganomaly", "native")
        done = subprocess.run(["bash", "-ec", code], cwd=tmp_path, capture_output=True, text=True)
        answers.append(done.stdout)
    one, two, served = answers
    assert json.loads(one)["predictions"][0]["score"] == pytest.approx(expected["score"][0], 1e-4)
    assert json.loads(two)["outputs"]["score"] == pytest.approx(expected["score"][:2], 1e-4)
    assert '"AVAILABLE"' in served
    assert '"signature_def"' in served
