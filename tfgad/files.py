"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tfgad.errors import UsageError


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
        problem = f"cannot be written ({error.strerror or error})"
        raise UsageError(
            "output", path, problem, "name a file in a folder you can write"
        ) from error


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
