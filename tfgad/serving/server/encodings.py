"""Bodies that come compressed, as TF Serving takes them: by gzip."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable

from tfgad.serving.server.errors import ServingError, invalid
from tfgad.serving.server.limits import MEBI


def is_gzip(encoding: str) -> bool:
    """Returns whether a Content-Encoding is gzip; raises for any but gzip and identity.

    Raises:
        ServingError: it is another.
    """
    if encoding.lower() not in ("", "identity", "gzip", "x-gzip"):  # RFC 9110, section 8.4.1
        problem = f"Content-Encoding {encoding[:40]!r} is not supported: use gzip, or none"
        raise ServingError("INVALID_ARGUMENT", problem, http_status=415)
    return "gzip" in encoding.lower()


def decompress(
    body: bytes, check_size: Callable[[int], None], hold: Callable[[int], None]
) -> bytes:
    """Decompresses a body piece by piece: a thousandth of a body's size may stand for all of it.

    Args:
        body: as it came.
        check_size: is told the size so far after each piece, and raises if that is too much.
        hold: is told the size of each piece; likewise.

    Raises:
        ServingError: the body is no gzip, or is cut off; or what the functions raise.
    """
    parts, size = [], 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            while part := file.read(MEBI):
                size += len(part)
                check_size(size)
                hold(len(part))
                parts.append(part)
    except (OSError, EOFError, zlib.error) as error:
        raise invalid(f"the body is no whole gzip: {error}") from None
    return b"".join(parts)
