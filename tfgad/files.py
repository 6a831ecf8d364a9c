"""Atomic writing of files, and messages about files."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfgad.errors import UsageError, reason_of

NO_SPACE = os.strerror(errno.ENOSPC)
FREE_SPACE = "free some, or name a path on another disk"  # the hint for NO_SPACE
JOINERS = "\u200c\u200d"  # of Persian and Indic scripts, and of composed emoji
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # of a cell, in spreadsheets
SHOWN = 3  # names that `summarize` shows; it counts the others
LONGEST_NAME = 255  # bytes of a file's name, on the usual file systems
# Characters of a file's name that its temporary file keeps: 160 bytes at most.
TEMPORARY_PREFIX = 40


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file atomically, and creates its folder.

    A concurrent reader sees either the old file or the new one.

    Args:
        path: the file.
        content: its new content.

    Raises:
        UsageError: the path cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder: replacing a file is atomic only within one file system.
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:TEMPORARY_PREFIX]}."
        )
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's files are readable by their owner only
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise unwritable("output", path, error) from error


def has_too_long_name(path: str | os.PathLike) -> bool:
    """Returns whether the last part of a path has more bytes than file systems allow."""
    return len(os.fsencode(os.path.basename(path))) > LONGEST_NAME


def unwritable(
    argument: str,
    path: str | os.PathLike,
    error: Exception,
    hint: str = "name a file in a folder you can write",
) -> UsageError:
    """Returns a UsageError for a file or folder that could not be written.

    Args:
        argument: the name of the path in the interface.
        path: the file or folder.
        error: an OSError, or the error that TensorFlow raises instead.
        hint: what to do, unless the disk is full.
    """
    reason = reason_of(error)
    if is_full(error):
        reason, hint = NO_SPACE, FREE_SPACE
    return UsageError(argument, path, f"cannot be written ({reason})", hint)


def is_full(error: Exception) -> bool:
    """Returns whether an error means that a disk or a user's quota is full.

    Errors of TensorFlow and some of HDF5 carry the system's message, but not its number.
    """
    of_system = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return of_system or NO_SPACE in str(error)


def printable(path: str | os.PathLike[str]) -> str:
    """Returns a path, or other text, as one line of valid Unicode that a terminal shows as it is.

    Line breaks, other characters that cannot be printed, and bytes that are not UTF-8 appear as
    escape sequences. Spaces of every kind stay, and the joiners of scripts and emoji.
    """
    text = os.fspath(path)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs" or character in JOINERS:
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, see os.fsdecode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def summarize(names: Sequence[str | Path], total: int | None = None) -> str:
    """Returns the number of files and the first names, such as `4 of 9 (a.png, b.png, ...)`.

    Args:
        names: the names, or paths whose last parts are shown.
        total: the number after "of"; None leaves it out.
    """
    first = (each.name if isinstance(each, Path) else each for each in names[:SHOWN])
    shown = [printable(each) for each in first]
    count = f"{len(names)} of {total}" if total else len(names)
    return f"{count} ({', '.join(shown)}{', ...' if len(names) > SHOWN else ''})"


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def csv_text(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Returns rows as CSV, under a line with the names of the columns.

    Text that a spreadsheet would take for a formula begins with `./`.

    Args:
        rows: column -> value of each, empty where it lacks a column.
        columns: their names, in order.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows({key: _no_formula(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _no_formula(value: object) -> object:
    """Returns the value of a cell, as a relative path if a spreadsheet would compute it."""
    if not isinstance(value, str) or len(value) < 2 or not value.startswith(FORMULA_STARTS):
        return value
    try:
        float(value)
    except ValueError:
        return f"./{value}"
    return value


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes an indented JSON file; see `write_bytes`.

    Raises:
        UsageError: the path cannot be written.
        ValueError: the value holds NaN or infinity, which JSON does not have.
        TypeError: the value holds a type that JSON does not have.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_object(path: str | os.PathLike) -> dict[str, Any] | None:
    """Returns the object in a JSON file, or None if the file cannot be read or holds no object."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_results(path: str | os.PathLike) -> dict[str, Any]:
    """Returns what a JSON file holds that a command adds to; `{}` if there is no file yet.

    Raises:
        UsageError: the file holds something else: it is not to be replaced.
    """
    if not Path(path).exists():
        return {}
    value = read_object(path)
    if value is None:
        hint = "give another file, or delete it"
        raise UsageError("results", printable(path), "cannot be read as a JSON object", hint)
    return value


def remove_parts(folder: Path, is_part: Callable[[Path], bool], last: str) -> None:
    """Removes parts of a folder, but not the folder itself, which may be `.`.

    Args:
        folder: the folder; it need not exist.
        is_part: returns whether to remove a child; the others stay.
        last: the name of the child to remove last. As long as it exists, an interrupted removal can
            be recognised and repeated.
    """
    parts = [path for path in folder.glob("*") if is_part(path)]
    for path in sorted(parts, key=lambda path: path.name == last):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def is_or_becomes(name: str, files: Iterable[str]) -> bool:
    """Returns whether a name is one of `files`, or that of a temporary file of one of them."""
    return name in files or (name.startswith(".") and any(f".{file}" in name for file in files))


def _umask() -> int:
    """Returns the permissions that new files do not get; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
