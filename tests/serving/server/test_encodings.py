"""Compressed bodies."""

import asyncio
import gzip
import json
import math
import random
import time
import types
import zlib

import pytest

pytest.importorskip("starlette", reason="needs pip install 'tfgad[serve]'")

from starlette.requests import Request

from tfgad.serving.errors import ServingError
from tfgad.serving.server.encodings import MAX_MEMBERS, SLACK, decompress
from tfgad.serving.server.limits import Limits
from tfgad.serving.server.request_bodies import SMALL_CONTENT, BodyReader

TEXT = json.dumps({"instances": list(range(9999))}).encode()


def content(body, **options):
    return decompress(body, lambda size: None, lambda size: None, **options)


def flushed(parts):
    """Gzip of parts, with what zlib writes when it is flushed after each."""
    compressor = zlib.compressobj(wbits=31)
    pieces = [compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return b"".join(pieces) + compressor.flush()


def test_what_programs_write_is_read():
    noise = random.Random(1).randbytes(3 * 2**20)
    for data in (b"", b"{}", TEXT, noise, bytes(3 * 2**20)):
        for level in (0, 1, 9):
            assert content(gzip.compress(data, level)) == data
        assert content(gzip.compress(data) + bytes(100)) == data
        assert content(gzip.compress(data) * MAX_MEMBERS) == data * MAX_MEMBERS
    assert content(b"") == b""
    lines = [TEXT[i : i + 20] for i in range(0, len(TEXT), 20)]
    assert content(flushed(lines)) == TEXT


def test_a_truncated_or_damaged_body_is_invalid():
    whole = gzip.compress(TEXT)
    for body in (whole[:-1], whole[:5], whole + b"x", whole[:-8] + bytes(8), b"\0\0" + whole):
        with pytest.raises(ServingError, match="not valid gzip"):
            content(body)


def test_many_members_are_refused():
    with pytest.raises(ServingError, match="more than 16 gzip members"):
        content(gzip.compress(b"") * 100_000)


@pytest.mark.parametrize("part", [b"", b"a"])
def test_a_body_that_is_longer_than_its_content_is_refused(part):
    """It takes time without a content whose size could be checked."""
    body = (
        flushed([part] * 100_000) if part else gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * 10**6
    )
    sizes = []
    with pytest.raises(ServingError, match="twice as long as its content"):
        decompress(body, sizes.append, lambda size: None)
    assert len(sizes) < 2 + SLACK // 2**14


def test_the_time_is_checked_between_pieces():
    checks = iter([None, ServingError("DEADLINE_EXCEEDED", "late")])

    def check_time():
        if error := next(checks):
            raise error

    with pytest.raises(ServingError, match="late"):
        content(gzip.compress(bytes(5 * 2**20)), check_time=check_time)


GZIP = Request({"type": "http", "headers": [(b"content-encoding", b"gzip")]})


def test_small_bodies_do_not_wait_for_large_ones():
    reader, held = BodyReader(types.SimpleNamespace(limits=Limits())), []
    large = bytes(3 * SMALL_CONTENT)

    def read(data):
        return reader.decompressed(GZIP, gzip.compress(data), held.append, math.inf)

    async def scenario():
        async with reader._decompressing, reader._decompressing:  # all turns are taken
            assert await read(TEXT) == TEXT
            assert held == [len(TEXT)]
            waiting = asyncio.create_task(read(large))
            await asyncio.sleep(0.1)
            assert not waiting.done()
        assert await waiting == large
        assert sum(held) == len(TEXT) + len(large)

    asyncio.run(scenario())


def test_decompression_ends_at_the_deadline_of_the_request():
    reader = BodyReader(types.SimpleNamespace(limits=Limits(request_timeout=5.0)))
    late = reader.decompressed(GZIP, gzip.compress(TEXT), lambda size: None, time.monotonic() - 1)
    with pytest.raises(ServingError, match="timed out after 5 s") as raised:
        asyncio.run(late)
    assert raised.value.code == "DEADLINE_EXCEEDED"
