"""Upload forms: the parts of one request, as the multipart parser finds them."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

from python_multipart.multipart import parse_options_header

NAME_BYTES = 200  # of a file's name on the disk; file systems allow 255


class UploadError(Exception):
    """An upload that is refused.

    Attributes:
        status: status of the HTTP answer.
    """

    def __init__(self, status: int, message: str):
        self.status = status
        super().__init__(message)


class Store(Protocol):
    """The files on the disk, as a form needs them; see `Uploads`."""

    folder: Path
    max_files: int

    def start(self, path: Path, address: str) -> None:
        """Counts a file that is about to be written."""

    def grow(self, path: Path, size: int) -> None:
        """Counts further bytes of a file."""

    def keep(self, paths: Iterable[Path]) -> None:
        """Marks files as complete."""

    def remove(self, paths: Iterable[Path]) -> None:
        """Removes files."""


class UploadForm:
    """The files of one request.

    Args:
        store: where they are written.
        address: network address that they come from.

    Attributes:
        address: network address that they come from.
        ended: whether the form is complete.
    """

    def __init__(self, store: Store, address: str):
        self._store, self.address = store, address
        self._paths: list[Path] = []
        self._file: BinaryIO | None = None
        self._name, self._value, self._disposition = b"", b"", b""
        self.ended = self._kept = False

    def callbacks(self) -> dict[str, Callable]:
        """Returns the callbacks of the parser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_to_name,
            "on_header_value": self._add_to_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._write,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    def keep(self) -> list[Path]:
        """Keeps the files; returns their paths."""
        self._store.keep(self._paths)
        self._kept = True
        return self._paths

    def remove_unless_kept(self) -> None:
        """Removes the files of a request that failed."""
        with contextlib.suppress(OSError):  # a full disk, which was reported already
            self._close()
        if not self._kept:
            self._store.remove(self._paths)

    def _begin(self) -> None:
        self._disposition = b""

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != b"files" or b"filename" not in options:
            raise UploadError(400, "the form holds something other than files")
        if len(self._paths) == self._store.max_files:
            raise UploadError(413, f"more than {self._store.max_files} files at once")
        # Each file has its own folder with a random name, so that it can keep its own name.
        folder = self._store.folder / secrets.token_hex(16)
        path = folder / file_name(options[b"filename"].decode("utf-8", "replace"))
        self._store.start(path, self.address)
        self._paths.append(path)
        folder.mkdir(mode=0o700)
        self._file = path.open("xb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            raise UploadError(400, "the form holds data outside its files")
        self._store.grow(self._paths[-1], end - start)
        self._file.write(memoryview(data)[start:end])

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _end(self) -> None:
        self.ended = True


def file_name(given: str) -> str:
    """Returns a valid file name that is as close as possible to the given one.

    Gradio refuses hidden files, unprintable characters would confuse a reader of the table, and
    file systems limit the length.
    """
    name = re.split(r"[/\\]", given)[-1]
    name = "".join(each for each in name if each.isprintable()).lstrip(".").strip()
    stem, dot, ending = name.rpartition(".")
    stem, ending = (stem, ending[:16]) if dot else (ending, "")
    stem = stem[:NAME_BYTES]  # a character has at least one byte
    while len(f"{stem}{dot}{ending}".encode()) > NAME_BYTES:
        stem = stem[:-1]
    return f"{stem}{dot}{ending}" if stem else "unnamed"
