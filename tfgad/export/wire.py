"""The part of protobuf's wire format that is written by hand.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

LENGTH_DELIMITED = 2  # the wire type of messages, strings, bytes and packed numbers


def field(number: int, content: bytes) -> bytes:
    """Returns a field of a message: its number, the length of its content, and the content."""
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Returns a number as bytes of seven bits each, the lowest first; all but the last have 128."""
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
