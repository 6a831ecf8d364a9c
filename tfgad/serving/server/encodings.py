"""Compressed request bodies, as TF Serving takes them: gzip."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np

from tfgad.serving.errors import ServingError, invalid
from tfgad.serving.file_cost import INPUT_STEP, MEBI

GZIP = 31  # zlib's number for a gzip member with the largest window
# Members of a body, which are concatenated files. Most programs write one.
MAX_MEMBERS = 16
# Gzip stores what it cannot compress in a few bytes more, and a program that flushes after each
# line adds five bytes each time. Empty members and blocks take time, and have no content whose size
# could be checked: 2 MiB took 1.8 s.
MAX_EXPANSION, SLACK = 2, 2**16


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
    body: bytes,
    check_size: Callable[[int], None],
    hold: Callable[[int], None],
    check_time: Callable[[], None] = lambda: None,
) -> bytes:
    """Decompresses a body piece by piece, since it may be a thousandth of its content's size.

    Args:
        body: the compressed body.
        check_size: called with the decompressed size so far; raises if that is too much.
        hold: called with the size of each piece; raises if that is too much.
        check_time: called before each piece; raises if it is too late.

    Raises:
        ServingError: the body is not valid gzip, is more than twice as long as its content,
            or one of the functions raised it.
    """
    parts, size = [], 0
    try:
        for part, taken in _pieces(memoryview(body)):
            check_time()
            size += len(part)
            check_size(size)
            hold(len(part))
            parts.append(part)
            if taken > MAX_EXPANSION * size + SLACK:
                raise invalid("the compressed body is more than twice as long as its content")
    except zlib.error as error:
        raise invalid(f"the body is not valid gzip: {error}") from None
    return b"".join(parts)


def _pieces(body: memoryview) -> Iterator[tuple[bytes, int]]:
    """Yields the pieces of the content, and how many bytes of the body they took so far."""
    members, taken = 0, 0
    while np.any(body[taken:]):  # zeros may pad the end
        members += 1
        if members > MAX_MEMBERS:
            raise invalid(f"the body has more than {MAX_MEMBERS} gzip members")
        decompressor = zlib.decompressobj(GZIP)
        while not decompressor.eof:
            step = body[taken : taken + INPUT_STEP]
            part = decompressor.decompress(step, MEBI)
            if not step and not part:
                raise zlib.error("it ends before its end is marked")
            is_end = decompressor.eof
            left = decompressor.unused_data if is_end else decompressor.unconsumed_tail
            taken += len(step) - len(left)
            yield part, taken
