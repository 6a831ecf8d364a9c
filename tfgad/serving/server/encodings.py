"""Compressed request bodies, as TF Serving takes them: gzip."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable

from tfgad.serving.errors import ServingError, invalid
from tfgad.serving.file_cost import MEBI


def is_gzip(encoding: str) -> bool:
    """Returns whether a Content-Encoding is gzip, rather than none.

    Raises:
        ServingError: it is another one.
    """
    if encoding.lower() not in ("", "identity", "gzip", "x-gzip"):  # RFC 9110, section 8.4.1
        problem = f"Content-Encoding {encoding[:40]!r} is not supported: use gzip, or none"
        raise ServingError("INVALID_ARGUMENT", problem, http_status=415)
    return "gzip" in encoding.lower()


def decompress(
    body: bytes, check_size: Callable[[int], None], hold: Callable[[int], None]
) -> bytes:
    """Decompresses a body piece by piece, since it may be a thousandth of its content's size.

    Args:
        body: the compressed body.
        check_size: called with the decompressed size so far; raises if that is too much.
        hold: called with the size of each piece; raises if that is too much.

    Raises:
        ServingError: the body is not valid gzip, or one of the functions raised it.
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
        raise invalid(f"the body is not valid gzip: {error}") from None
    return b"".join(parts)
