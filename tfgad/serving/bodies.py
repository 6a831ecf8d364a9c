"""Request bodies of HTTP: their announced size, and reading them within a time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

from starlette.requests import Request

MIN_RATE = 2**16  # bytes per second that a sender is expected to reach


def announced_size(headers: Mapping[str, str]) -> int:
    """Returns the `Content-Length` of a request; 0 if it has none."""
    size = headers.get("content-length", "0")
    return int(size) if size.isdecimal() else 0


async def timely(request: Request, timeout: float, rate: int = MIN_RATE) -> AsyncIterator[bytes]:
    """Yields the chunks of a request's body as they arrive.

    Args:
        request: the request.
        timeout: seconds that the body may take, in addition to its size divided by `rate`.
        rate: the least bytes per second.

    Raises:
        TimeoutError: the body did not arrive in time.
    """
    deadline = time.monotonic() + timeout
    stream = request.stream()
    while True:
        try:
            remaining = deadline - time.monotonic()
            chunk = await asyncio.wait_for(anext(stream), max(remaining, 0))
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:  # not the built-in TimeoutError before Python 3.11
            raise TimeoutError from None
        deadline += len(chunk) / rate
        yield chunk
