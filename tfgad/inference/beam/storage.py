"""Paths and files, local or of any file system that Beam knows."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from tfgad import files
from tfgad.data.image_files import ImageError
from tfgad.errors import UsageError, first_line, reason_of
from tfgad.inference import results

WILDCARDS = "*?["


def read(path: str) -> bytes:
    """Reads an image file.

    Raises:
        ImageError: it cannot be read.
    """
    if not is_remote(path) and os.path.exists(path) and not os.path.isfile(path):
        raise ImageError(path, "is no file")  # reading a pipe or a device might never end
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            return file.read()
    except Exception as error:  # each file system has its own
        raise ImageError(path, f"cannot be read ({reason_of(error)})") from error


def write(path: str, content: bytes) -> None:
    """Writes a file whole or not at all, also where a worker is started anew."""
    partial = partial_name(path)
    with FileSystems.create(partial, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(content)
    FileSystems.rename([partial], [path])


def delete(paths: Iterable[str]) -> None:
    """Deletes those files that exist; those that cannot be deleted stay."""
    with contextlib.suppress(BeamIOError, ValueError, OSError):
        FileSystems.delete([path for path in paths if FileSystems.exists(path)])


@contextlib.contextmanager
def local_copy(folder: str) -> Iterator[Path]:
    """Gives a local folder itself, or a temporary copy of a remote one."""
    if not is_remote(folder):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as copy:
        for found in _matched("model", f"{folder.rstrip('/')}/**"):
            place = Path(copy, found.path[len(folder.rstrip("/")) :].lstrip("/"))
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileSystems.open(found.path) as file, place.open("wb") as local:
                shutil.copyfileobj(file, local)
        yield Path(copy)


def find_images(images: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns files that exist, also those that local patterns match, and remote patterns.

    Raises:
        UsageError: one is neither.
    """
    found: list[str] = []
    patterns: list[str] = []
    for image in images:
        if is_remote(image):
            if not _matched("image", image, limit=1):
                raise UsageError("image", image, "matches no files", "check the pattern")
            patterns.append(image)
        elif _has_wildcard(image) and not os.path.exists(image):
            matched = sorted(glob.glob(image, recursive=True))
            matched = [path for path in matched if not os.path.isdir(path)]
            if not matched:
                raise UsageError("image", image, "matches no files", "check the pattern")
            found += matched
        else:
            found += map(str, results.find_images([Path(image)]))
    return found, patterns


def _matched(argument: str, pattern: str, limit: int | None = None) -> list[Any]:
    """Returns the metadata of the files that match a pattern."""
    try:
        (match,) = FileSystems.match([pattern], None if limit is None else [limit])
    except (ValueError, BeamIOError, OSError) as error:
        problem = f"cannot be looked up ({first_line(error)})"
        raise UsageError(argument, pattern, problem, "check the path") from error
    return match.metadata_list


def map_path(maps: str, root: str, name: str, suffix: str = ".png") -> str:
    """Returns the path of an image's map: no two images have the same."""
    inside = absolute(name)[len(root) :].lstrip("/")
    return f"{maps.rstrip('/')}/{inside}{suffix}"


def is_remote(path: str) -> bool:
    """Returns whether a path names a file system other than the local one."""
    return "://" in path


def _has_wildcard(path: str) -> bool:
    return any(sign in path for sign in WILDCARDS)


def fixed_part(pattern: str) -> str:
    """Returns the part of a pattern before the first folder or name with a wildcard."""
    before = itertools.takewhile(lambda part: not _has_wildcard(part), pattern.split("/"))
    return "/".join([*before, ""])


def common_folder(names: Iterable[str]) -> str:
    """Returns the folder that all paths lie in; empty if they have none in common."""
    parts = [absolute(name).split("/")[:-1] for name in names]
    alike = itertools.takewhile(lambda each: len(set(each)) == 1, zip(*parts, strict=False))
    return "/".join(each[0] for each in alike)


def absolute(path: str) -> str:
    """Returns a local path as an absolute one, with its last slash; a remote one as it is."""
    if is_remote(path):
        return path
    return os.path.abspath(path) + ("/" if path.endswith("/") else "")


def partial_name(path: str) -> str:
    """Returns a hidden, unique name beside a path, for a file that is not finished."""
    folder, slash, name = path.rpartition("/")
    stem, suffix = os.path.splitext(name)
    return f"{folder}{slash}.{stem[: files.TEMPORARY_PREFIX]}.{uuid.uuid4().hex}.partial{suffix}"
