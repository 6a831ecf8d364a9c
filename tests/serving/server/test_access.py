"""Access control: host names, cross-site requests, tokens and certificates."""

import pytest

from tfgad.errors import UsageError
from tfgad.serving.credentials import TOKEN_VARIABLE, Secret, Tls, read_token

for package in ("starlette", "tensorflow_serving"):
    pytest.importorskip(package, reason="needs pip install 'tfgad[serve]'")

from tfgad.serving.server.access import (  # noqa: E402
    Hosts,
    is_cross_site,
    is_loopback,
    token_of,
)
from tfgad.serving.server.server import ServerOptions  # noqa: E402

TOKEN = "a-token-of-the-tests-0123456789"


def test_hosts_match_names_and_addresses(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Loom7")
    local = Hosts("127.0.0.1", is_local=True, allowed=["inspect.example"])
    opened = Hosts("0.0.0.0", is_local=False)
    for host in ("localhost", "LOCALHOST:8501", "localhost.:1", "127.0.0.1:8501", "[::1]:80"):
        assert local.match(host)
        assert opened.match(host)
    for host in ("evil.example", "localhost.evil.example", "a@localhost", "localhost/", "", ":80"):
        assert not local.match(host)
        assert not opened.match(host)
    for host in ("[", "[::1", "127.0.0.1.evil.example", "user:x@127.0.0.1", "localhost#"):
        assert not opened.match(host)
    no_ports = ("localhost:80:evil.example", "127.0.0.1:99999", "localhost:0", "localhost:٣")
    for host in (*no_ports, "[::1%25evil.example]", "[::1]evil.example", "[::1]:80:80", "::1"):
        assert not local.match(host)
        assert not opened.match(host)
    assert local.match("127.0.0.1:65535")
    assert local.match("inspect.example:443")
    assert not opened.match("inspect.example")
    # A machine may have addresses that it does not know.
    for host in ("192.0.2.7:8501", "[2001:db8::1]:8501", "loom7"):
        assert opened.match(host)
        assert not local.match(host)


@pytest.mark.parametrize(
    ("method", "headers", "refused"),
    [
        ("POST", {}, False),  # not a browser
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
def test_cross_site_requests_are_detected(method, headers, refused):
    assert is_cross_site(method, {"host": "localhost:8501", **headers}) is refused


def test_a_token_is_read_from_a_header():
    assert token_of("Bearer abc") == token_of("bearer  abc ") == "abc"
    assert token_of("Basic dXNlcjphOmI=") == "a:b"  # of any user
    for wrong in ("", "abc", "Basic", "Basic ???", "Basic dXNlcg==", "Basic /w==", "Digest abc"):
        assert token_of(wrong) is None
    secret = Secret(TOKEN)
    assert secret.matches(TOKEN)
    assert not any(secret.matches(each) for each in (None, "", TOKEN[:-1], TOKEN + "x", "é"))
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
        with pytest.raises(UsageError, match=TOKEN_VARIABLE) as raised:
            read_token(None, {TOKEN_VARIABLE: content})
        assert not content or content not in str(raised.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_token(tmp_path, {})


def test_loopback_addresses():
    assert all(is_loopback(each) for each in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"))
    assert not any(is_loopback(each) for each in ("0.0.0.0", "::", "192.0.2.1", "fe80::1%eth0"))


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
    """The key with a passphrase, which must not be prompted for."""
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
