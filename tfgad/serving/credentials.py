"""Token and TLS files of a server and its clients: read, and checked before anything is opened."""

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
# 16 random characters of base 64 are 96 bits: out of reach of guessing by requests.
SHORTEST_TOKEN = 16
TOKEN_HINT = "make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Tls:
    """What a server shows its clients.

    Attributes:
        certificate: PEM file of the certificate, and of those between it and its root.
        key: PEM file of its private key, without a passphrase.
    """

    certificate: Path
    key: Path

    def check(self) -> None:
        """Checks that certificate and key can be read and belong together.

        Raises:
            UsageError: they do not.
        """
        content(self.certificate, "--tls-certificate")
        content(self.key, "--tls-key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a password OpenSSL would ask for one at the terminal.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            if reason == "KEY_VALUES_MISMATCH":
                problem, hint = "does not belong to the certificate", "name the certificate's key"
                raise UsageError("--tls-key", self.key, problem, hint) from error
            at_fault = _is_unreadable(self.certificate)
            option = "--tls-certificate" if at_fault else "--tls-key"
            path = self.certificate if at_fault else self.key
            problem = f"cannot be used ({reason.replace('_', ' ').lower()})"
            raise UsageError(option, path, problem, "name a PEM file without passphrase") from error


def content(path: Path, option: str) -> bytes:
    """Returns the bytes of a file that the user named.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise UsageError(option, path, problem, "name a file you can read") from error


def read_token(path: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns the token that a file holds, else the one in the environment; None without either.

    A file that every user of the machine can read is warned of.

    Raises:
        UsageError: it is none that can be used.
    """
    if path is not None:
        text = content(path, "--token-file").decode("latin-1").strip()
        token = check_token("--token-file", path, text)
        if os.name == "posix" and path.stat().st_mode & stat.S_IROTH:
            log.warning("--token-file %s: every user can read it; run: chmod 600 %s", path, path)
        return token
    token = environment.get(TOKEN_VARIABLE)
    if token is None:
        return None
    return check_token(TOKEN_VARIABLE, "...", token)  # what it holds is not said


def check_token(argument: str, shown: object, token: str) -> str:
    """Returns a token that can stand in a header.

    Args:
        argument: where it comes from, for the message.
        shown: what the message says in place of the token.
        token: the token.

    Raises:
        UsageError: it is too short, or holds other than visible ASCII characters.
    """
    if len(token) < SHORTEST_TOKEN:
        problem = f"holds {len(token)} characters, fewer than {SHORTEST_TOKEN}"
        raise UsageError(argument, shown, problem, TOKEN_HINT)
    if not all("!" <= each <= "~" for each in token):
        problem = "holds other than visible ASCII characters"
        raise UsageError(argument, shown, problem, TOKEN_HINT)
    return token


def check_authority(path: Path) -> None:
    """Checks that a client's file holds certificates to check a server's against.

    Raises:
        UsageError: it does not.
    """
    content(path, "ca_certificate")
    if _is_unreadable(path):
        raise UsageError("ca_certificate", path, "holds no certificate", "name a PEM file")


class Secret:
    """A token that can be compared, in a time that does not depend on what is given."""

    def __init__(self, token: str):
        self._digest = _digest(token)

    def is_shown_by(self, token: str | None) -> bool:
        """Returns whether it is this token."""
        return token is not None and hmac.compare_digest(_digest(token), self._digest)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _is_unreadable(certificate: Path) -> bool:
    """Returns whether a file holds no certificate."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except ssl.SSLError:
        return True
    return False
