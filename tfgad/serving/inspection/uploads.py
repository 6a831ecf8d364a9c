"""The files that visitors of the inspection page give: bounded, and gone with their visitor."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import ipaddress
import re
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tfgad.serving.inspection.inspection import MOST_BYTES, check_file
from tfgad.serving.inspection.process_folder import process_folder
from tfgad.serving.server.bodies import SLOWEST, announced_size, timely


@dataclasses.dataclass(frozen=True)
class UploadLimits:
    """What visitors may leave on the disk; times are in seconds.

    Attributes:
        total: bytes of all files together. The largest batch, 134 megapixels, has 0.8 GB in
            colour of 16 bits.
        address: bytes of all files that come from one network address; see `network_of`.
        file: bytes of one file; a larger one is not even taken in.
        files: of one request; gradio's page sends as many at once.
        timeout: for a body to arrive, beside what its size takes at `rate`.
        rate: bytes per second that a visitor's line has at least.
        age: of files that nobody has had scored since; a reloaded page gives them up at once.
        unclaimed: age of files that no event has named: gradio's page does so as they have come.
    """

    total: int = 2 * 2**30
    address: int = 2**30
    file: int = 4 * MOST_BYTES
    files: int = 1000
    timeout: float = 30.0
    rate: int = SLOWEST
    age: float = 24 * 3600
    unclaimed: float = 600.0


LATE = "the body did not arrive in time"
ENTRY_BYTES = 4096  # what a file takes of the disk beside its content: folder and entry
# Of a part of a form. A browser sends two; the name of a file has 255 bytes, three times as many
# where each is written as %XX.
PART_HEADERS, PART_HEADER_BYTES = 8, 4096
NAME_BYTES = 200  # of a file's name on the disk; file systems take 255


class UploadError(Exception):
    """An upload that is refused.

    Attributes:
        status: of the HTTP answer.
    """

    def __init__(self, status: int, message: str):
        self.status = status
        super().__init__(message)


@dataclasses.dataclass
class _Upload:
    """A file on the disk, or on its way there."""

    address: str
    used: float
    bytes: int = ENTRY_BYTES
    visitor: str | None = None
    whole: bool = False
    named: bool = False


class Uploads:
    """The files of one page's visitors.

    Attributes:
        folder: where they are; examples and tables of the page are beside them.
    """

    def __init__(self, limits: UploadLimits | None = None):
        self._limits = limits or UploadLimits()
        self.folder = Path(tempfile.mkdtemp(dir=process_folder()))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._uploads: dict[Path, _Upload] = {}
        self._held: collections.Counter[str] = collections.Counter()  # bytes by address
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What all files take of the disk."""
        with self._lock:
            return self._held.total()

    @property
    def patience(self) -> tuple[float, int]:
        """The seconds and bytes per second that `timely` waits for a body with."""
        return self._limits.timeout, self._limits.rate

    def check(self, path: str) -> None:
        """Checks that a path that a visitor names is a file of this page; see `check_file`.

        From then on it is kept for long: the event that names it may wait for others.

        Raises:
            ImageError: it is none.
        """
        check_file(Path(path), self.folder)
        with self._lock:
            upload = self._uploads.get(Path(path))
            if upload is not None:
                upload.named = True

    async def answer(self, request: Request) -> Response:
        """Takes in the files of a form and answers with their paths, as gradio's page expects."""
        self.sweep()
        parts = _Parts(self, network_of(request))
        try:
            return JSONResponse([str(path) for path in await self._receive(request, parts)])
        except UploadError as error:
            status, message = error.status, str(error)
        except TimeoutError:
            status, message = 408, LATE
        except FormParserError as error:
            status, message = 400, f"the form cannot be read: {error}"
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            status, message = 507, "the server's disk is full"
        except ClientDisconnect:
            status, message = 400, "the connection was closed"  # which nobody reads
        finally:
            parts.drop_unless_whole()
        headers = {"connection": "close"} if status == 408 else None
        return PlainTextResponse(message, status, headers)

    async def _receive(self, request: Request, parts: _Parts) -> list[Path]:
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UploadError(400, "no form with files")
        with self._lock:
            self._check_quota(announced_size(request.headers), parts.address)
        parser = MultipartParser(
            options[b"boundary"],
            parts.callbacks(),
            max_header_count=PART_HEADERS,
            max_header_size=PART_HEADER_BYTES,
        )
        async for chunk in timely(request, *self.patience):
            await run_in_threadpool(parser.write, chunk)
        if not parts.ended:
            raise UploadError(400, "the form is not whole")
        return parts.keep()

    def claim(self, visitor: str | None, paths: Iterable[str]) -> None:
        """Notes that files are a visitor's, whose others go.

        Args:
            visitor: the visitor's session; None for nobody's.
            paths: those that are of no upload, such as examples, are passed over.
        """
        if visitor is None:
            return
        kept = {Path(path) for path in paths}
        with self._lock:
            for path, upload in self._uploads.items():
                if path in kept:
                    upload.visitor, upload.used = visitor, time.time()
            gone = [p for p, each in self._uploads.items() if each.visitor == visitor]
        self._remove(path for path in gone if path not in kept)

    def leave(self, visitor: str | None) -> None:
        """Removes a visitor's files."""
        self.claim(visitor, ())

    def sweep(self) -> None:
        """Removes the files that are too old."""
        now = time.time()

        def is_old(upload: _Upload) -> bool:
            age = self._limits.age if upload.named or upload.visitor else self._limits.unclaimed
            return upload.whole and upload.used < now - age

        with self._lock:
            old = [path for path, upload in self._uploads.items() if is_old(upload)]
        self._remove(old)

    def _start(self, path: Path, address: str) -> None:
        """Counts a file that is about to be written."""
        with self._lock:
            self._hold(ENTRY_BYTES, address)
            self._uploads[path] = _Upload(address, time.time())

    def _grow(self, path: Path, size: int) -> None:
        """Counts further bytes of a file."""
        with self._lock:
            upload = self._uploads[path]
            if upload.bytes - ENTRY_BYTES + size > self._limits.file:
                raise UploadError(413, f"a file is larger than {_mebi(self._limits.file)}")
            self._hold(size, upload.address)
            upload.bytes += size

    def _keep(self, paths: Iterable[Path]) -> None:
        with self._lock:
            for path in paths:
                upload = self._uploads[path]
                upload.whole, upload.used = True, time.time()

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            shutil.rmtree(path.parent, ignore_errors=True)
            with self._lock:
                upload = self._uploads.pop(path, None)
                if upload is not None:
                    self._held[upload.address] -= upload.bytes
                    self._held += collections.Counter()  # forgets addresses that hold nothing

    def _hold(self, size: int, address: str) -> None:
        self._check_quota(size, address)
        self._held[address] += size

    def _check_quota(self, size: int, address: str) -> None:
        """Raises UploadError if so many bytes more would be too many; the lock is held."""
        if self._held.total() + size > self._limits.total:
            limit = _mebi(self._limits.total)
            problem = f"the uploads of all visitors take {limit} at most: try again later"
            raise UploadError(413, problem)
        if self._held[address] + size > self._limits.address:
            limit = _mebi(self._limits.address)
            problem = f"your uploads take {limit} at most: reload the page, and give fewer"
            raise UploadError(413, problem)


class _Parts:
    """The files of one request, as the parser of its form finds them."""

    def __init__(self, uploads: Uploads, address: str):
        self._uploads, self.address = uploads, address
        self._paths: list[Path] = []
        self._file = None
        self._name, self._value, self._disposition = b"", b"", b""
        self.ended = self._kept = False

    def callbacks(self) -> dict:
        """Returns what the parser calls."""
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
        """Returns the files' paths; from now on they stay."""
        self._uploads._keep(self._paths)
        self._kept = True
        return self._paths

    def drop_unless_whole(self) -> None:
        """Removes what has come of a request that failed."""
        with contextlib.suppress(OSError):  # a full disk, which has been told
            self._close()
        if not self._kept:
            self._uploads._remove(self._paths)

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
        if len(self._paths) == self._uploads._limits.files:
            raise UploadError(413, f"more than {self._uploads._limits.files} files at once")
        # A folder of its own, whose name nobody can guess, so that the file keeps its name.
        folder = self._uploads.folder / secrets.token_hex(16)
        path = folder / file_name(options[b"filename"].decode("utf-8", "replace"))
        self._uploads._start(path, self.address)
        self._paths.append(path)
        folder.mkdir(mode=0o700)
        self._file = path.open("xb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        self._uploads._grow(self._paths[-1], end - start)
        self._file.write(memoryview(data)[start:end])

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _end(self) -> None:
        self.ended = True


def network_of(request: Request) -> str:
    """Returns whose a request is: an address, or of IPv6 the /64 that one subscriber has whole."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host


def file_name(given: str) -> str:
    """Returns a name that a file can have in a folder of its own, as close to the given as can be.

    Hidden files are refused by gradio, other than visible characters confuse who reads the table,
    and file systems take 255 bytes.
    """
    name = re.split(r"[/\\]", given)[-1]
    name = "".join(each for each in name if each.isprintable()).lstrip(".").strip()
    stem, dot, ending = name.rpartition(".")
    stem, ending = (stem, ending[:16]) if dot else (ending, "")
    stem = stem[:NAME_BYTES]  # no character has less than a byte
    while len(f"{stem}{dot}{ending}".encode()) > NAME_BYTES:
        stem = stem[:-1]
    return f"{stem}{dot}{ending}" if stem else "unnamed"


def _mebi(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
