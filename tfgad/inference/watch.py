"""Images scored as they arrive in a folder and its sub-folders, each version of a file once.

A file is scored once its size and time of modification have stayed the same for a while, so that a
half-written one is not read. Each pass lists the whole folder, and what has no row in the table is
scored; so nothing is missed, whatever happened in between.

The order of work for an image is: its heat map, its row, the row on the disk, its move to the
folder of defective images. A process that is killed at any of these points does the rest when it is
started again.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfgad.data.image_files import SUFFIXES, ImageError
from tfgad.errors import UsageError, reason_of
from tfgad.files import unwritable
from tfgad.inference import results
from tfgad.inference.predictor import Predictor
from tfgad.inference.scoring import Verdict, regions_of, score_files
from tfgad.inference.watch_table import Table, Version, lock, shown
from tfgad.scores.verdicts import DEFECTIVE

CHUNK = 256  # images between two waits for the disk; about a batch of the smallest images
POLL = 0.5  # seconds between two passes of a folder of up to some 10,000 images
MAX_NAME = 200  # bytes of a file's name, of 255: those of its heat map and of its copy are longer

log = logging.getLogger(__name__)


class Folder:
    """A folder in which images arrive, which no other process watches.

    Links are not followed, so that nothing outside is read, and no loop is entered. They are
    logged, as is what is named like an image but is no file. Names that start with a dot are left
    out.

    Args:
        path: the folder.
        settle: seconds for which a file must not change.
        outputs: folders that are written to, which are left out if they are inside.

    Attributes:
        path: the folder, without links.
        settle: seconds for which a file must not change.
        pause: seconds to wait for before the next pass, so that passes take a fifth of the time at
            most.
        left: number of files without a row that the last pass found still changing, or that may not
            be read.

    Raises:
        UsageError: it is no folder, or another process watches it; or it is inside an output.
    """

    def __init__(self, path: Path, settle: float, outputs: Sequence[Path] = ()):
        self.path, self.settle, self.pause, self.left = path.resolve(), settle, POLL, 0
        self._left_out = {os.fspath(each.resolve()) for each in outputs}
        self._since: dict[Path, tuple[Version, float]] = {}  # files without a row
        self._problems: dict[str, str] = {}
        for output in outputs:
            if output.resolve() in (self.path, *self.path.parents):
                raise UsageError("folder", path, f"is inside {output}", "name folders apart")
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        except OSError as error:
            problem = f"cannot be read ({reason_of(error)})"
            raise UsageError("folder", path, problem, "name a folder to watch") from error
        try:
            lock(self._descriptor, "folder", path)
        except UsageError:
            self.close()
            raise

    def close(self) -> None:
        """Releases the lock."""
        os.close(self._descriptor)

    def files(self, table: Table) -> tuple[list[tuple[Path, Version]], list[tuple[Path, Version]]]:
        """Returns the files to score, the oldest first, and those that the table calls defective.

        What cannot be read is logged once for as long as that lasts.
        """
        arrived, defective, since = [], [], {}
        problems: dict[str, str] = {}
        now = time.monotonic()
        for name, version in self._scan(problems):
            seen = table.seen.get(shown(name))
            if seen and seen.version == version:
                if seen.verdict == DEFECTIVE:
                    defective.append((Path(name), version))
                continue
            path = Path(name)
            before, start = self._since.get(path, (None, now))
            since[path] = version, start if before == version else now
            if now - since[path][1] >= self.settle:
                if os.access(path, os.R_OK):  # a camera may give leave to read later
                    arrived.append((path, version))
                else:
                    problems[name] = f"cannot be read ({os.strerror(errno.EACCES)})"
        for name in sorted(problems.keys() - self._problems.keys()):
            log.warning("passed over: %s: %s", shown(name), problems[name])
        self._since, self._problems = since, problems
        self.pause = max(POLL, 4 * (time.monotonic() - now))
        self.left = len(since) - len(arrived)
        arrived.sort(key=lambda each: (each[1].modified_ns, each[0]))
        return arrived, defective

    def _scan(self, problems: dict[str, str]) -> Iterator[tuple[str, Version]]:
        """Yields the image files, and adds what is passed over to `problems`."""
        folders = [os.fspath(self.path)]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    listed = [each for each in entries if not each.name.startswith(".")]
            except OSError as error:
                problems[folder] = f"cannot be read ({reason_of(error)})"
                continue
            for entry in listed:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in self._left_out:
                            folders.append(entry.path)
                    elif problem := _problem(entry):
                        problems[entry.path] = problem
                    elif _is_named_like_image(entry):
                        yield entry.path, Version.of(entry.path)
                except FileNotFoundError:
                    pass  # renamed or deleted in this moment
                except OSError as error:
                    problems[entry.path] = f"cannot be read ({reason_of(error)})"


def _is_named_like_image(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in SUFFIXES


def _problem(entry: os.DirEntry[str]) -> str:
    """Returns why a link, or what is named like an image, is passed over; empty if it is not."""
    if entry.is_symlink():
        return "is a link" if _is_named_like_image(entry) or entry.is_dir() else ""
    if not _is_named_like_image(entry):
        return ""
    if not entry.is_file(follow_symlinks=False):
        return "is no file"
    too_long = len(os.fsencode(entry.name)) > MAX_NAME
    return f"has a name of more than {MAX_NAME} bytes" if too_long else ""


class Watch:
    """A watched folder with its model and its table.

    Args:
        predictor: the model.
        folder: where images arrive.
        table: the rows so far.
        stop: once it is set, no further image is scored.
        bad: folder that defective images are moved to; None leaves them where they are.
        maps: folder for a heat map of each image; None for none.
        **reading: `depth` and `max_pixels` of `tfgad.inference.scoring.score_files`.
    """

    def __init__(
        self,
        predictor: Predictor,
        folder: Folder,
        table: Table,
        stop: threading.Event,
        *,
        bad: Path | None = None,
        maps: Path | None = None,
        **reading: Any,
    ):
        self._predictor, self._folder, self._table, self._stop = predictor, folder, table, stop
        self._bad, self._maps, self._reading = bad, maps, reading

    def run(self, *, once: bool) -> Iterator[tuple[dict[str, str], Verdict | ImageError]]:
        """Yields row and result of each image once the row is written, until `stop` is set.

        The row is that of the table without the columns of the file's version.

        Args:
            once: end with the images that are there at present.

        Raises:
            UsageError: the table, a heat map or the folder of defective images cannot be written.
        """
        yield from self.arrived()
        while not self._stop.wait(self._folder.settle if once else self._folder.pause):
            yield from self.arrived()
            if once:
                break

    def arrived(self) -> Iterator[tuple[dict[str, str], Verdict | ImageError]]:
        """Yields what `run` does, of the images that have arrived and no longer change."""
        arrived, defective = self._folder.files(self._table)
        for path, version in defective:  # by a process that was killed before it moved them
            self._move(path, version)
        for start in range(0, len(arrived), CHUNK):
            chunk = dict(arrived[start : start + CHUNK])
            moves = []
            for result in score_files(self._predictor, chunk, **self._reading):
                version = chunk[result.path]
                if not _is_valid(result, version):
                    continue
                row = _row(result)
                if self._maps and isinstance(result, Verdict):
                    place = self._maps / result.path.relative_to(self._folder.path)
                    results.write_map(place.with_name(f"{place.name}.png"), result)
                self._table.append(row, version)
                if row["verdict"] == DEFECTIVE:
                    moves.append((result.path, version))
                yield row, result
                del result  # frees a large image before the next one is read
                if self._stop.is_set():
                    break
            self._table.sync()
            for path, version in moves:
                self._move(path, version)
            if self._stop.is_set():
                return

    def _move(self, path: Path, version: Version) -> None:
        """Moves a defective image to its place below `bad`, if there is such a folder.

        A file that has changed since it was scored stays.

        Raises:
            UsageError: that cannot be written.
        """
        if self._bad is None:
            return
        place = self._bad / path.relative_to(self._folder.path)
        try:
            if Version.of(path) != version:
                return
            if place.exists() and Version.of(place) != version:  # of an earlier file of this name
                place = place.with_stem(f"{place.stem}.{version.modified_ns}")
            place.parent.mkdir(parents=True, exist_ok=True)
            _move(path, place)
        except FileNotFoundError:
            log.warning("%s: is gone, and was not moved", shown(path))
        except OSError as error:
            hint = "name a folder you can write, and check that images may be moved to it"
            raise unwritable("bad", self._bad, error, hint) from error


def _row(result: Verdict | ImageError) -> dict[str, str]:
    """Returns the row of a result, without the columns of its version."""
    found = None if isinstance(result, ImageError) else regions_of(result)
    return {**results.row(result, found), "image": shown(result.path)}


def _is_valid(result: Verdict | ImageError, version: Version) -> bool:
    """Returns whether a result is about this version of its file, which may have changed."""
    try:
        return Version.of(result.path) == version
    except OSError as error:
        if isinstance(result, ImageError):
            log.warning("%s: is gone, and was not scored (%s)", shown(result.path), error.strerror)
            return False
        return True  # it was read before


def _move(path: Path, place: Path) -> None:
    """Moves a file, on another file system too; killed meanwhile, it can be moved again."""
    try:
        os.replace(path, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".moved-") as folder:
            copy = Path(folder) / "image"
            shutil.copy2(path, copy)
            with copy.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(copy, place)
        path.unlink()
