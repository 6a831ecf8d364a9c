"""Tokens and TLS files of servers and clients, checked before a connection is opened."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import logging
import os
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path

from tfgad.errors import UsageError

TOKEN_VARIABLE = "TFGAD_TOKEN"
# 16 random base64 characters are 96 bits, which cannot be guessed by sending requests.
MIN_TOKEN_LENGTH = 16
TOKEN_HINT = "make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Tls:
    """The TLS certificate and key of a server.

    Attributes:
        certificate: PEM file of the certificate chain, without the root.
        key: PEM file of its private key, without a passphrase.
    """

    certificate: Path
    key: Path

    def check(self) -> None:
        """Checks that certificate and key can be read and belong together.

        Raises:
            UsageError: they do not.
        """
        read_file(self.certificate, "--tls-certificate")
        read_file(self.key, "--tls-key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a password function OpenSSL would prompt at the terminal.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            if reason == "KEY_VALUES_MISMATCH":
                problem, hint = "does not belong to the certificate", "name the certificate's key"
                raise UsageError("--tls-key", self.key, problem, hint) from error
            no_certificate = not _has_certificate(self.certificate)
            option = "--tls-certificate" if no_certificate else "--tls-key"
            path = self.certificate if no_certificate else self.key
            problem = f"cannot be used ({reason.replace('_', ' ').lower()})"
            hint = "name a PEM file without a passphrase"
            raise UsageError(option, path, problem, hint) from error


def read_file(path: Path, option: str) -> bytes:
    """Returns the content of a file that an option names.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise UsageError(option, path, problem, "name a readable file") from error


def read_token(path: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns the token of a file, else of the environment, else None.

    Logs a warning if every user of the machine can read the file.

    Raises:
        UsageError: the token cannot be used.
    """
    if path is not None:
        text = read_file(path, "--token-file").decode("latin-1").strip()
        token = check_token("--token-file", path, text)
        if os.name == "posix" and path.stat().st_mode & stat.S_IROTH:
            log.warning("--token-file %s: every user can read it; run: chmod 600 %s", path, path)
        return token
    variable = environment.get(TOKEN_VARIABLE)
    if variable is None:
        return None
    return check_token(TOKEN_VARIABLE, "...", variable)  # a message must not quote the token


def check_token(argument: str, shown: object, token: str) -> str:
    """Returns a token after checking that a header can carry it.

    Args:
        argument: the argument that it comes from, for the message.
        shown: what the message quotes instead of the token.
        token: the token.

    Raises:
        UsageError: it is too short, or has characters that are not visible ASCII.
    """
    if len(token) < MIN_TOKEN_LENGTH:
        problem = f"has {len(token)} characters, fewer than {MIN_TOKEN_LENGTH}"
        raise UsageError(argument, shown, problem, TOKEN_HINT)
    if not all("!" <= each <= "~" for each in token):
        problem = "has characters that are not visible ASCII"
        raise UsageError(argument, shown, problem, TOKEN_HINT)
    return token


def check_authority(path: Path) -> None:
    """Checks that a client's CA file holds certificates.

    Raises:
        UsageError: it does not.
    """
    read_file(path, "ca_certificate")
    if not _has_certificate(path):
        raise UsageError("ca_certificate", path, "holds no certificate", "name a PEM file")


class Secret:
    """A token that is compared in constant time."""

    def __init__(self, token: str):
        self._digest = _digest(token)

    def matches(self, token: str | None) -> bool:
        """Returns whether `token` is this token."""
        return token is not None and hmac.compare_digest(_digest(token), self._digest)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _has_certificate(path: Path) -> bool:
    """Returns whether a PEM file holds a certificate."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True
