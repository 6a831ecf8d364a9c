"""The uploaded files of the inspection page: limited, and removed when their visitor leaves."""

from __future__ import annotations

import collections
import dataclasses
import errno
import ipaddress
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

from tfgad.serving.bodies import MIN_RATE, announced_size, timely
from tfgad.serving.inspection.file_checks import MAX_BYTES, check_file
from tfgad.serving.inspection.process_folder import process_folder
from tfgad.serving.inspection.upload_form import UploadError, UploadForm


@dataclasses.dataclass(frozen=True)
class UploadLimits:
    """Limits of the files that visitors upload. Times are in seconds.

    Attributes:
        total: bytes of all files together. The largest batch, 134 megapixels, has 0.8 GB in
            colour of 16 bits.
        address: bytes of all files that come from one network address; see `network_of`.
        file: bytes of one file.
        files: files of one request; gradio's page sends as many at once.
        timeout: for a body to arrive, in addition to its size divided by `rate`.
        rate: the least bytes per second of a visitor's connection.
        age: after which files are removed that nobody has scored since; a reload of the page
            removes them at once.
        unclaimed: the same for files that no event has named; gradio's page names them as soon as
            they are uploaded.
    """

    total: int = 2 * 2**30
    address: int = 2**30
    file: int = 4 * MAX_BYTES
    files: int = 1000
    timeout: float = 30.0
    rate: int = MIN_RATE
    age: float = 24 * 3600
    unclaimed: float = 600.0


LATE = "the body did not arrive in time"
ENTRY_BYTES = 4096  # disk space of a file besides its content: folder and directory entry
# Headers of a part of a form. A browser sends two. The name of a file has up to 255 bytes, and
# three times as many if each is escaped as %XX.
PART_HEADERS, PART_HEADER_BYTES = 8, 4096


@dataclasses.dataclass
class _Upload:
    """A file on the disk, complete or not.

    Attributes:
        address: network address that it comes from.
        used: when it was last used, in seconds of the clock.
        bytes: disk space.
        visitor: session of the visitor who scores it; None for nobody.
        whole: whether it is complete.
        named: whether an event has named it.
    """

    address: str
    used: float
    bytes: int = ENTRY_BYTES
    visitor: str | None = None
    whole: bool = False
    named: bool = False


class Uploads:
    """The files of one page's visitors.

    Args:
        limits: limits; the defaults if not given.

    Attributes:
        folder: folder of the files, and of the page's examples and tables.
        max_files: limit of the files of one request.
    """

    def __init__(self, limits: UploadLimits | None = None):
        self._limits = limits or UploadLimits()
        self.max_files = self._limits.files
        self.folder = Path(tempfile.mkdtemp(dir=process_folder()))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._uploads: dict[Path, _Upload] = {}
        self._held: collections.Counter[str] = collections.Counter()  # bytes by address
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Disk space of all files."""
        with self._lock:
            return self._held.total()

    @property
    def patience(self) -> tuple[float, int]:
        """The timeout and rate of `timely` for a request's body."""
        return self._limits.timeout, self._limits.rate

    def check(self, path: str) -> None:
        """Checks that a path that a visitor names is a file of this page; see `check_file`.

        The file is kept for long from then on, since the event that names it may be queued.

        Raises:
            ImageError: it is not.
        """
        check_file(Path(path), self.folder)
        with self._lock:
            upload = self._uploads.get(Path(path))
            if upload is not None:
                upload.named = True

    async def answer(self, request: Request) -> Response:
        """Stores the files of a form; answers with their paths, as gradio's page expects."""
        self.sweep()
        form = UploadForm(self, network_of(request))
        try:
            return JSONResponse([str(path) for path in await self._receive(request, form)])
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
            status, message = 400, "the connection was closed"  # nobody will read this
        finally:
            form.remove_unless_kept()
        headers = {"connection": "close"} if status == 408 else None
        return PlainTextResponse(message, status, headers)

    async def _receive(self, request: Request, form: UploadForm) -> list[Path]:
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UploadError(400, "the request is no form with files")
        with self._lock:
            self._check_quota(announced_size(request.headers), form.address)
        parser = MultipartParser(
            options[b"boundary"],
            form.callbacks(),  # type: ignore[arg-type]
            max_header_count=PART_HEADERS,
            max_header_size=PART_HEADER_BYTES,
        )
        async for chunk in timely(request, *self.patience):
            await run_in_threadpool(parser.write, chunk)
        if not form.ended:
            raise UploadError(400, "the form is incomplete")
        return form.keep()

    def claim(self, visitor: str | None, paths: Iterable[str]) -> None:
        """Assigns files to a visitor, and removes the visitor's other files.

        Args:
            visitor: session of the visitor; None for nobody.
            paths: files; those that are not uploads, such as examples, are ignored.
        """
        if visitor is None:
            return
        kept = {Path(path) for path in paths}
        with self._lock:
            for path, upload in self._uploads.items():
                if path in kept:
                    upload.visitor, upload.used = visitor, time.time()
            own = [p for p, each in self._uploads.items() if each.visitor == visitor]
        self.remove(path for path in own if path not in kept)

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
        self.remove(old)

    def start(self, path: Path, address: str) -> None:
        """Counts a file that is about to be written.

        Raises:
            UploadError: there are too many bytes.
        """
        with self._lock:
            self._hold(ENTRY_BYTES, address)
            self._uploads[path] = _Upload(address, time.time())

    def grow(self, path: Path, size: int) -> None:
        """Counts further bytes of a file.

        Raises:
            UploadError: there are too many bytes.
        """
        with self._lock:
            upload = self._uploads[path]
            if upload.bytes - ENTRY_BYTES + size > self._limits.file:
                raise UploadError(413, f"a file is larger than {_mebi(self._limits.file)}")
            self._hold(size, upload.address)
            upload.bytes += size

    def keep(self, paths: Iterable[Path]) -> None:
        """Marks files as complete."""
        with self._lock:
            for path in paths:
                upload = self._uploads[path]
                upload.whole, upload.used = True, time.time()

    def remove(self, paths: Iterable[Path]) -> None:
        """Removes files."""
        for path in paths:
            shutil.rmtree(path.parent, ignore_errors=True)
            with self._lock:
                upload = self._uploads.pop(path, None)
                if upload is not None:
                    self._held[upload.address] -= upload.bytes
                    self._held += collections.Counter()  # drops addresses without bytes

    def _hold(self, size: int, address: str) -> None:
        self._check_quota(size, address)
        self._held[address] += size

    def _check_quota(self, size: int, address: str) -> None:
        """Raises UploadError if there is no room for further bytes; the lock must be held."""
        if self._held.total() + size > self._limits.total:
            limit = _mebi(self._limits.total)
            problem = f"the uploads of all visitors may take {limit}: try again later"
            raise UploadError(413, problem)
        if self._held[address] + size > self._limits.address:
            limit = _mebi(self._limits.address)
            problem = f"your uploads may take {limit}: reload the page, and upload fewer files"
            raise UploadError(413, problem)


def network_of(request: Request) -> str:
    """Returns the network of a client: its IPv4 address, or the /64 network of its IPv6 address."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host


def _mebi(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
