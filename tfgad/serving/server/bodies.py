"""The bodies of HTTP requests: what they announce, and as they come, in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

from starlette.requests import Request

SLOWEST = 2**16  # bytes per second that a sender's line has at least


def announced_size(headers: Mapping[str, str]) -> int:
    """Returns the bytes that a request says will come; 0 if it does not say."""
    size = headers.get("content-length", "0")
    return int(size) if size.isdecimal() else 0


async def timely(request: Request, timeout: float, rate: int = SLOWEST) -> AsyncIterator[bytes]:
    """Yields a request's body as it comes.

    Args:
        request: whose.
        timeout: seconds that it may take, beside those of its size.
        rate: bytes per second that it comes at least with.

    Raises:
        TimeoutError: it does not come.
    """
    deadline = time.monotonic() + timeout
    stream = request.stream()
    while True:
        try:
            remaining = deadline - time.monotonic()
            chunk = await asyncio.wait_for(stream.__anext__(), max(remaining, 0))
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:  # which is no TimeoutError before Python 3.11
            raise TimeoutError from None
        deadline += len(chunk) / rate
        yield chunk
