"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tfgad.errors import UsageError

NO_SPACE = os.strerror(errno.ENOSPC)
FREE_SPACE = "free some, or name a place on another disk"  # the hint that goes with it


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file, with its folder; whoever reads meanwhile sees the old file or the new one.

    Args:
        path: where to.
        content: the whole content.

    Raises:
        UsageError: the path cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, because only within one file system is a replacement atomic.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's files are the owner's alone
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise unwritable("output", path, error) from error


def unwritable(
    argument: str,
    path: str | os.PathLike,
    error: Exception,
    hint: str = "name a file in a folder you can write",
) -> UsageError:
    """Returns what to tell the user of a file or folder that could not be written.

    Args:
        argument: the name that the user knows the path by.
        path: where to.
        error: an OSError, or TensorFlow's error in its place.
        hint: what to do; of a full disk, to free space.
    """
    reason = (
        getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
    )
    if is_full(error):
        reason, hint = NO_SPACE, FREE_SPACE
    return UsageError(argument, path, f"cannot be written ({reason})", hint)


def is_full(error: Exception) -> bool:
    """Returns whether an error says that a disk is full, or what a user may have of it.

    TensorFlow's errors and some of HDF5's have the system's words, but not its number.
    """
    of_system = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return of_system or NO_SPACE in str(error)


def printable(path: str | os.PathLike) -> str:
    """Returns a path as text that can be written: of bytes that are no UTF-8, their numbers."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes an indented JSON file; see `write_bytes`.

    Raises:
        UsageError: the path cannot be written.
        ValueError: the value holds NaN or infinity, which JSON does not know.
        TypeError: the value holds something else that JSON does not know.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_object(path: str | os.PathLike) -> dict[str, Any] | None:
    """Returns the object that a JSON file holds, or None if there is none that can be read."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def remove_parts(folder: Path, is_part: Callable[[Path], bool], last: str) -> None:
    """Removes what belongs to a folder, but not the folder, which may be `.`.

    Args:
        folder: if it is not there, nothing is done.
        is_part: whether a child belongs to it; others stay.
        last: the name of the child that goes last, so that one knows what a removal that was broken
            off has left.
    """
    parts = [path for path in folder.glob("*") if is_part(path)]
    for path in sorted(parts, key=lambda path: path.name == last):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def is_or_becomes(name: str, files: Iterable[str]) -> bool:
    """Whether a name is that of one of the files, or of what is left of it by a kill half-way."""
    return name in files or (name.startswith(".") and any(f".{file}" in name for file in files))


def _umask() -> int:
    """Returns the permissions that new files do not get; reading them means setting them."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
