"""The table of a watched folder: a CSV file that a killed process leaves right.

The table is all that a watch keeps. Each image has one row, which is appended in one piece and
never changed. A version of a file is its path, size and time of modification: a file with other
content has another version, and gets a row of its own.

A process that is killed while it appends may leave a torn last row, without a line break at its
end. Opening the table cuts that row off; its image has no row then, and is scored again.
"""

from __future__ import annotations

import csv
import errno
import io
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tfgad.errors import UsageError, reason_of
from tfgad.files import unwritable
from tfgad.inference import results
from tfgad.locks import try_lock

COLUMNS = (*results.COLUMNS, "bytes", "modified_ns")
ANOTHER = "name another file"

log = logging.getLogger(__name__)


class Version(NamedTuple):
    """What a file's content is recognised by: its size, and when it was modified.

    Neither is compared with a clock, so that clocks may differ, or be set.
    """

    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Version:
        """Returns the version of a file, or of a link itself; raises OSError if it is gone."""
        found = os.lstat(path)
        return cls(found.st_size, found.st_mtime_ns)


class Seen(NamedTuple):
    """The last row of a file: which version it is about, and its verdict."""

    version: Version
    verdict: str


class Table:
    """The open table of a watch, which no other process can open.

    Args:
        path: the CSV file. It is made, with its folder, if it is not there.
        products: of the model; with several, the last column is the product.

    Attributes:
        seen: image, as `shown` names it -> its last row.

    Raises:
        UsageError: the file is another table, is damaged, in use, or cannot be written.
    """

    def __init__(self, path: Path, products: Sequence[str] = ()):
        self.path = path
        self._columns = (*COLUMNS, results.PRODUCT) if products else COLUMNS
        self._header = f"{','.join(self._columns)}\r\n".encode()
        self.seen: dict[str, Seen] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable("csv", path, error) from error
        try:
            lock(self._file.fileno(), "csv", path)
            content = path.read_bytes()
            self._length = len(self._whole_rows(content))
            if self._length < len(content):
                log.warning("%s: the last row was torn; its image is scored again", path)
                os.ftruncate(self._file.fileno(), self._length)
            self._read(content[: self._length])
            if not self._length:
                self._write(self._header)
        except BaseException:
            self._file.close()
            raise

    def append(self, row: Mapping[str, str], version: Version) -> None:
        """Appends a row of `tfgad.inference.results.row`, whose image is named by `shown`.

        Raises:
            UsageError: it cannot be written; the table is as it was before.
        """
        numbers = {"bytes": str(version.size), "modified_ns": str(version.modified_ns)}
        self._write(_line({**row, **numbers}, self._columns))
        self.seen[row["image"]] = Seen(version, sys.intern(row["verdict"]))

    def sync(self) -> None:
        """Waits until the rows are on the disk.

        Raises:
            UsageError: they cannot be written, or the file has been replaced or deleted meanwhile.
        """
        try:
            os.fsync(self._file.fileno())
            is_here = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            is_here = False
        except OSError as error:
            if error.errno != errno.EINVAL:  # a device, which keeps nothing
                raise unwritable("csv", self.path, error) from error
            is_here = True
        if not is_here:
            hint = "start again; move a table only while nothing is watched"
            raise UsageError("csv", self.path, "was replaced or deleted while in use", hint)

    def close(self) -> None:
        """Closes the file and releases its lock."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        """Appends a whole line or nothing."""
        rest = line
        try:
            while rest:  # on a disk that is nearly full a part may be written
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            if rest != line:
                os.ftruncate(self._file.fileno(), self._length)
            raise unwritable("csv", self.path, error) from error
        self._length += len(line)

    def _whole_rows(self, content: bytes) -> bytes:
        """Returns the content without a torn row at its end.

        Raises:
            UsageError: it is another table.
        """
        if content.startswith(self._header):
            return content[: content.rindex(b"\n") + 1]
        if self._header.startswith(content):
            return b""
        problem = f"is no table of `tfgad watch` with the columns {', '.join(self._columns)}"
        raise UsageError("csv", self.path, problem, ANOTHER)

    def _read(self, content: bytes) -> None:
        """Reads whole rows."""
        line = 1
        try:
            rows = csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True)
            for row in rows:
                line = rows.line_num
                version = Version(int(row["bytes"]), int(row["modified_ns"]))
                self.seen[row["image"]] = Seen(version, sys.intern(row["verdict"]))
        except (ValueError, TypeError, csv.Error) as error:
            problem = f"is damaged at or behind line {line}"
            raise UsageError("csv", self.path, problem, f"repair it, or {ANOTHER}") from error


def shown(path: str | os.PathLike[str]) -> str:
    """Returns a path as the table names it: one line of valid Unicode, different for each path.

    Line breaks, other characters that cannot be printed, bytes that are not UTF-8, and backslashes
    appear as Python's escape sequences.
    """
    text = os.fspath(path)
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        each if each.isprintable() and each != "\\" else each.encode("unicode_escape").decode()
        for each in text
    )


def lock(descriptor: int, argument: str, path: Path) -> None:
    """Locks an open file or folder until it is closed, also by the end of the process.

    Where the file system has no locks, a line says so.

    Raises:
        UsageError: another process has locked it.
    """
    try:
        is_free = try_lock(descriptor)
    except OSError as error:
        log.warning("%s: cannot be locked (%s); watch it only once", path, reason_of(error))
        return
    if not is_free:
        problem = "is in use by another `tfgad watch`"
        raise UsageError(argument, path, problem, "stop that one first")


def _line(row: Mapping[str, str], columns: Sequence[str]) -> bytes:
    """Returns a row as one line of CSV; a line break in a reason becomes a space.

    The product of a file that is not scored is empty.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerow(" ".join(row.get(name, "").split("\n")) for name in columns)
    return text.getvalue().encode()
