"""Who may ask: hosts, sites, token and TLS, of REST, gRPC and page."""

import contextlib
import dataclasses
import http.client
import logging
import ssl

import pytest
import requests
from typer.testing import CliRunner

from tfgad.cli import main
from tfgad.errors import UsageError
from tfgad.serving.credentials import TOKEN_VARIABLE, Secret, Tls, read_token

from .conftest import PATIENCE

for package in ("starlette", "tensorflow_serving"):
    pytest.importorskip(package, reason="needs pip install 'tfgad[serve]'")

import grpc  # noqa: E402

from tfgad.serving.client.client import Client, ClientError  # noqa: E402
from tfgad.serving.server.access import (  # noqa: E402
    SECURITY_HEADERS,
    Hosts,
    is_cross_site,
    is_loopback,
    token_of,
)
from tfgad.serving.server.server import Server, ServerOptions  # noqa: E402

TOKEN = "a-token-of-the-tests-0123456789"


def test_a_host_is_known_by_name_or_address(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Loom7")
    local = Hosts("127.0.0.1", is_local=True, allowed=["inspect.example"])
    opened = Hosts("0.0.0.0", is_local=False)
    for host in ("localhost", "LOCALHOST:8501", "localhost.:1", "127.0.0.1:8501", "[::1]:80"):
        assert local.know(host)
        assert opened.know(host)
    for host in ("evil.example", "localhost.evil.example", "a@localhost", "localhost/", "", ":80"):
        assert not local.know(host)
        assert not opened.know(host)
    for host in ("[", "[::1", "127.0.0.1.evil.example", "user:x@127.0.0.1", "localhost#"):
        assert not opened.know(host)
    no_ports = ("localhost:80:evil.example", "127.0.0.1:99999", "localhost:0", "localhost:٣")
    for host in (*no_ports, "[::1%25evil.example]", "[::1]evil.example", "[::1]:80:80", "::1"):
        assert not local.know(host)
        assert not opened.know(host)
    assert local.know("127.0.0.1:65535")
    assert local.know("inspect.example:443")
    assert not opened.know("inspect.example")
    # The machine may be reached by addresses that it does not know itself.
    for host in ("192.0.2.7:8501", "[2001:db8::1]:8501", "loom7"):
        assert opened.know(host)
        assert not local.know(host)


@pytest.mark.parametrize(
    ("method", "headers", "refused"),
    [
        ("POST", {}, False),  # no browser's
        ("POST", {"sec-fetch-site": "same-origin", "origin": "null"}, False),
        ("POST", {"sec-fetch-site": "none"}, False),
        ("POST", {"sec-fetch-site": "cross-site"}, True),
        ("POST", {"sec-fetch-site": "same-site"}, True),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, True),
        ("DELETE", {"sec-fetch-site": "cross-site"}, True),
        ("POST", {"origin": "http://localhost:8501"}, False),
        ("POST", {"origin": "https://localhost:8501"}, False),
        ("PUT", {"origin": "http://localhost:9000"}, True),
        ("GET", {"origin": "http://evil.example"}, True),
        ("POST", {"origin": "null"}, True),
    ],
)
def test_a_request_of_another_site_is_known_as_one(method, headers, refused):
    assert is_cross_site(method, {"host": "localhost:8501", **headers}) is refused


def test_a_token_is_read_from_a_header():
    assert token_of("Bearer abc") == token_of("bearer  abc ") == "abc"
    assert token_of("Basic dXNlcjphOmI=") == "a:b"  # of any user
    for wrong in ("", "abc", "Basic", "Basic ???", "Basic dXNlcg==", "Basic /w==", "Digest abc"):
        assert token_of(wrong) is None
    secret = Secret(TOKEN)
    assert secret.is_shown_by(TOKEN)
    assert not any(secret.is_shown_by(each) for each in (None, "", TOKEN[:-1], TOKEN + "x", "é"))
    assert TOKEN not in repr(ServerOptions(token=TOKEN))


def test_a_token_comes_from_file_or_environment(tmp_path, caplog):
    file = tmp_path / "token"
    file.write_text(f" {TOKEN}\n")
    file.chmod(0o644)
    assert read_token(file, {TOKEN_VARIABLE: "x" * 20}) == TOKEN
    assert read_token(None, {TOKEN_VARIABLE: "x" * 20}) == "x" * 20
    assert read_token(None, {}) is None
    assert "every user can read it; run: chmod 600" in caplog.text
    caplog.clear()
    file.chmod(0o600)
    assert read_token(file, {}) == TOKEN
    assert not caplog.text
    for content in ("", "short", "two words are not it", "ä" * 20):
        file.write_text(content)
        with pytest.raises(UsageError, match="--token-file"):
            read_token(file, {})
        with pytest.raises(UsageError, match=TOKEN_VARIABLE) as told:
            read_token(None, {TOKEN_VARIABLE: content})
        assert not content or content not in str(told.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_token(tmp_path, {})


def test_what_reaches_its_own_machine_only():
    assert all(is_loopback(each) for each in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"))
    assert not any(is_loopback(each) for each in ("0.0.0.0", "::", "192.0.2.1", "fe80::1%eth0"))


# TLS


@dataclasses.dataclass
class Certificates:
    """Files of an authority, and of a server's certificate and key."""

    authority: str
    tls: Tls


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    trustme = pytest.importorskip("trustme", reason="needs pip install 'tfgad[test]'")
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(folder / "certificate.pem"), append=True)
    tls = Tls(folder / "certificate.pem", folder / "key.pem")
    return Certificates(str(folder / "authority.pem"), tls)


def test_certificate_and_key_are_checked(certificates, tmp_path):
    trustme = pytest.importorskip("trustme")
    certificates.tls.check()
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(other))
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    certificate, key = certificates.tls.certificate, certificates.tls.key
    for tls, problem in (
        (Tls(certificate, other), "--tls-key .*does not belong to the certificate"),
        (Tls(certificate, garbage), "--tls-key .*cannot be used"),
        (Tls(garbage, key), "--tls-certificate .*cannot be used"),
        (Tls(tmp_path / "none", key), "--tls-certificate .*cannot be read"),
        (Tls(certificate, tmp_path), "--tls-key .*cannot be read"),
        (Tls(certificate, encrypted(key, tmp_path)), "--tls-key .*cannot be used"),
    ):
        with pytest.raises(UsageError, match=problem):
            tls.check()


def encrypted(key, folder):
    """The key with a passphrase, which nobody may be asked for."""
    from cryptography.hazmat.primitives import serialization

    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    path = folder / "encrypted.pem"
    path.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return path


# Servers


@pytest.fixture(scope="module")
def locked(models_folder, certificates):
    """A server with token and TLS; it has the page if gradio is installed."""
    options = ServerOptions(rest_port=0, grpc_port=0, token=TOKEN, tls=certificates.tls)
    with Server(models_folder / "as_is", options) as server:
        yield server


def get(server, path, certificates, **form):
    return requests.get(server.url + path, verify=certificates.authority, timeout=PATIENCE, **form)


def test_http_asks_for_the_token(locked, certificates):
    assert locked.url.startswith("https://127.0.0.1:")
    for path in ("/", "/v1/models/as_is", "/monitoring/prometheus/metrics", "/gradio_api/upload"):
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": "Basic eDp4"}):
            answer = get(locked, path, certificates, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == (
                'Bearer realm="tfgad", Basic realm="tfgad", charset="UTF-8"'
            )
    for path in ("/healthz", "/readyz"):
        assert get(locked, path, certificates).status_code == 200
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    answer = get(locked, "/v1/models/as_is", certificates, headers=bearer)
    assert answer.json()["model_version_status"]
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value
    with pytest.raises(requests.ConnectionError):
        requests.get(locked.url.replace("https", "http"), timeout=PATIENCE)


def test_a_browser_shows_the_token_as_a_password(locked, certificates):
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
    # A browser that knows the password sends it with what other sites ask it to, as well.
    foreign = {"Origin": "https://evil.example"}
    assert requests.post(url, files=files, headers=foreign, **form).status_code == 403
    foreign = {"Host": "evil.example"}
    assert requests.post(url, files=files, headers=foreign, **form).status_code == 403


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_the_client_shows_the_token_over_tls(
    locked, certificates, scheme, pictures, expected, monkeypatch, caplog
):
    address = locked.grpc_address if scheme == "grpcs" else locked.url.partition("://")[2]
    form = {"ca_certificate": certificates.authority, "timeout": PATIENCE, "retries": 0}
    with Client(f"{scheme}://{address}", "as_is", token=TOKEN, **form) as client:
        assert client.score(pictures[:2])["score"] == pytest.approx(expected["score"][:2], 1e-4)
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with Client(f"{scheme}://{address}", "as_is", **form) as client:
        assert client.status()
    for token in (None, "x" * 20):
        monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
        with (
            Client(f"{scheme}://{address}", "as_is", token=token, **form) as client,
            pytest.raises(ClientError, match="a token is needed") as told,
        ):
            client.score(pictures[:1])
        assert told.value.code == "UNAUTHENTICATED"
    form.update(ca_certificate=None, timeout=5)  # an authority of its own is not the world's
    with (
        Client(f"{scheme}://{address}", "as_is", token=TOKEN, **form) as client,
        pytest.raises(ClientError) as told,
    ):
        client.status()
    assert told.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert TOKEN not in caplog.text + str(told.value)


def test_a_token_stands_once(locked, certificates):
    right, wrong = f"Bearer {TOKEN}", f"Bearer {TOKEN}x"
    pairs = {(right,): True, (wrong, right): False, (right, wrong): False, (right, right): False}
    context = ssl.create_default_context(cafile=certificates.authority)
    for given, is_let_in in pairs.items():
        host = locked.url.partition("://")[2]
        connection = http.client.HTTPSConnection(host, timeout=PATIENCE, context=context)
        with contextlib.closing(connection):
            connection.putrequest("GET", "/v1/models/as_is")
            for each in given:
                connection.putheader("Authorization", each)
            connection.endheaders()
            assert connection.getresponse().status == (200 if is_let_in else 401)
    with secure_channel(locked, certificates) as channel:
        ask = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
        for given, is_let_in in pairs.items():
            with pytest.raises(grpc.RpcError) as told:  # an empty request names no model
                ask(b"", timeout=PATIENCE, metadata=[("authorization", each) for each in given])
            is_refused = told.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert is_refused is not is_let_in


def secure_channel(server, certificates):
    with open(certificates.authority, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    return grpc.secure_channel(server.grpc_address, credentials)


def test_health_by_grpc_needs_no_token(locked, certificates):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with secure_channel(locked, certificates) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_what_others_reach_is_said_in_a_line_and_has_no_page(models_folder, caplog):
    options = ServerOptions(host="0.0.0.0", rest_port=0, grpc_port=0)
    caplog.set_level(logging.WARNING, "tfgad")
    with Server(models_folder / "as_is", options) as server:
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


def test_a_page_that_is_asked_for_is_there_or_its_lack_is_told(models_folder, monkeypatch):
    monkeypatch.setattr("tfgad.serving.server.server.mount_page", lambda *_: False)
    options = ServerOptions(rest_port=0, grpc_port=0, page=True)
    with pytest.raises(UsageError, match=r"--page.*pip install 'tfgad\[serve\]'"):
        Server(models_folder / "as_is", options).start()


def test_mistakes_are_told_in_one_line(models_folder, certificates, tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    tls, folder = certificates.tls, str(models_folder / "as_is")
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
        ("http://x", {"ca_certificate": certificates.authority}, "no certificate to check"),
        ("https://x", {"ca_certificate": valid_token(tmp_path)}, "holds no certificate"),
        ("https://x", {"token": "two words are not one"}, "visible ASCII"),
    ):
        with pytest.raises(UsageError, match=words):
            Client(url, "m", **{"token": TOKEN, **form})


def valid_token(folder):
    path = folder / "token"
    path.write_text(TOKEN)
    return path
