"""Servers with a token, TLS, and other machines that can reach them."""

import contextlib
import http.client
import logging
import ssl

import pytest
import requests
from typer.testing import CliRunner

from tfgad.cli import main
from tfgad.errors import UsageError
from tfgad.serving.credentials import TOKEN_VARIABLE

from ..conftest import PATIENCE

for package in ("starlette", "tensorflow_serving"):
    pytest.importorskip(package, reason="needs pip install 'tfgad[serve]'")

import grpc  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402

from tfgad.serving import app  # noqa: E402
from tfgad.serving.app import build_server  # noqa: E402
from tfgad.serving.client import Client, ClientError  # noqa: E402
from tfgad.serving.server.access import SECURITY_HEADERS  # noqa: E402
from tfgad.serving.server.server import ServerOptions  # noqa: E402

pytestmark = pytest.mark.integration

TOKEN = "a-token-of-the-tests-0123456789"


@pytest.fixture(scope="module")
def locked(models_folder, load_once, certificates):
    """A server with token and TLS; it has the page if gradio is installed."""
    options = ServerOptions(rest_port=0, grpc_port=0, token=TOKEN, tls=certificates.tls)
    with build_server(models_folder / "native", options) as server:
        yield server


def get(server, path, certificates, **form):
    return requests.get(server.url + path, verify=certificates.authority, timeout=PATIENCE, **form)


def test_http_requires_the_token(locked, certificates):
    assert locked.url.startswith("https://127.0.0.1:")
    for path in ("/", "/v1/models/native", "/monitoring/prometheus/metrics", "/gradio_api/upload"):
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": "Basic eDp4"}):
            answer = get(locked, path, certificates, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == (
                'Bearer realm="tfgad", Basic realm="tfgad", charset="UTF-8"'
            )
    for path in ("/healthz", "/readyz"):
        assert get(locked, path, certificates).status_code == 200
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    answer = get(locked, "/v1/models/native", certificates, headers=bearer)
    assert answer.json()["model_version_status"]
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value
    with pytest.raises(requests.ConnectionError):
        requests.get(locked.url.replace("https", "http"), timeout=PATIENCE)


def test_a_browser_sends_the_token_as_a_password(locked, certificates):
    pytest.importorskip("gradio", reason="needs pip install 'tfgad[serve]'")
    assert locked.has_page
    answer = get(locked, "/", certificates, auth=("anybody", TOKEN))
    assert answer.status_code == 200
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    url = f"{locked.url}/gradio_api/upload"
    form = {"verify": certificates.authority, "timeout": PATIENCE}
    files = {"files": ("a.png", b"a")}
    assert requests.post(url, files=files, **form).status_code == 401
    form["auth"] = ("anybody", TOKEN)
    assert requests.post(url, files=files, **form).status_code == 200
    # A browser also sends the password with cross-site requests.
    foreign = {"Origin": "https://evil.example"}
    assert requests.post(url, files=files, headers=foreign, **form).status_code == 403
    foreign = {"Host": "evil.example"}
    assert requests.post(url, files=files, headers=foreign, **form).status_code == 403


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_the_client_sends_the_token_over_tls(
    locked, certificates, scheme, pictures, expected, monkeypatch, caplog
):
    address = locked.grpc_address if scheme == "grpcs" else locked.url.partition("://")[2]
    form = {"ca_certificate": certificates.authority, "timeout": PATIENCE, "retries": 0}
    with Client(f"{scheme}://{address}", "native", token=TOKEN, **form) as client:
        assert client.score(pictures[:2])["score"] == pytest.approx(expected["score"][:2], 1e-4)
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with Client(f"{scheme}://{address}", "native", **form) as client:
        assert client.status()
    for token in (None, "x" * 20):
        monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
        with (
            Client(f"{scheme}://{address}", "native", token=token, **form) as client,
            pytest.raises(ClientError, match="a token is required") as raised,
        ):
            client.score(pictures[:1])
        assert raised.value.code == "UNAUTHENTICATED"
    form.update(ca_certificate=None, timeout=5)  # the test authority is not a public one
    with (
        Client(f"{scheme}://{address}", "native", token=TOKEN, **form) as client,
        pytest.raises(ClientError) as raised,
    ):
        client.status()
    assert raised.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert TOKEN not in caplog.text + str(raised.value)


def test_two_tokens_are_refused(locked, certificates):
    right, wrong = f"Bearer {TOKEN}", f"Bearer {TOKEN}x"
    pairs = {(right,): True, (wrong, right): False, (right, wrong): False, (right, right): False}
    context = ssl.create_default_context(cafile=certificates.authority)
    for given, is_let_in in pairs.items():
        host = locked.url.partition("://")[2]
        connection = http.client.HTTPSConnection(host, timeout=PATIENCE, context=context)
        with contextlib.closing(connection):
            connection.putrequest("GET", "/v1/models/native")
            for each in given:
                connection.putheader("Authorization", each)
            connection.endheaders()
            assert connection.getresponse().status == (200 if is_let_in else 401)
    with secure_channel(locked, certificates) as channel:
        ask = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
        for given, is_let_in in pairs.items():
            with pytest.raises(grpc.RpcError) as raised:  # an empty request names no model
                ask(b"", timeout=PATIENCE, metadata=[("authorization", each) for each in given])
            is_refused = raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert is_refused is not is_let_in


def secure_channel(server, certificates):
    with open(certificates.authority, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    return grpc.secure_channel(server.grpc_address, credentials)


def test_health_by_grpc_needs_no_token(locked, certificates):
    with secure_channel(locked, certificates) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_an_exposed_server_is_logged_and_has_no_page(models_folder, caplog):
    options = ServerOptions(host="0.0.0.0", rest_port=0, grpc_port=0)
    caplog.set_level(logging.WARNING, "tfgad")
    with build_server(models_folder / "foreign", options) as server:
        assert not server.has_page
        (line,) = [each.getMessage() for each in caplog.records if "open to" in each.message]
        assert line == (
            "open to the network at 0.0.0.0: REST and gRPC, not the page (--page), without TLS "
            "(--tls-certificate, --tls-key) and without token (--token-file)"
        )
        port = server.url.rpartition(":")[2]
        for host, status in (("192.0.2.1", 200), ("evil.example", 403)):
            answer = requests.get(
                f"http://127.0.0.1:{port}/healthz", headers={"Host": host}, timeout=PATIENCE
            )
            assert answer.status_code == status
        assert "--allowed-host" in answer.json()["error"]


def test_a_requested_page_without_gradio_is_an_error(models_folder, monkeypatch):
    monkeypatch.setattr(app, "mount_page", lambda *_: None)
    options = ServerOptions(rest_port=0, grpc_port=0, page=True)
    with pytest.raises(UsageError, match=r"--page.*pip install 'tfgad\[serve\]'"):
        build_server(models_folder / "foreign", options).start()


def test_invalid_arguments_give_one_line(models_folder, certificates, tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    tls, folder = certificates.tls, str(models_folder / "foreign")
    ports = ["--port", "0", "--grpc-port", "0"]
    for options, words in (
        (["--tls-key", tls.key], "add --tls-certificate FILE"),
        (["--tls-certificate", tls.certificate], "add --tls-key FILE"),
        (["--tls-certificate", tls.key, "--tls-key", tls.key], "--tls-certificate"),
        (["--token-file", tmp_path / "none"], "cannot be read"),
        ([], TOKEN_VARIABLE),
    ):
        if options and "--token-file" not in options:
            options = [*options, "--token-file", valid_token(tmp_path)]
        arguments = ["serve", folder, *ports, *map(str, options)]
        result = CliRunner().invoke(main.app, arguments)
        assert result.exit_code == 2, result.output
        last = result.stderr.strip().splitlines()[-1]
        assert words in last
        assert "Traceback" not in result.stderr
    for url, form, words in (
        ("http://x", {"ca_certificate": certificates.authority}, "no certificate to verify"),
        ("https://x", {"ca_certificate": valid_token(tmp_path)}, "holds no certificate"),
        ("https://x", {"token": "two words are not one"}, "visible ASCII"),
    ):
        with pytest.raises(UsageError, match=words):
            Client(url, "m", **{"token": TOKEN, **form})


def valid_token(folder):
    path = folder / "token"
    path.write_text(TOKEN)
    return path
