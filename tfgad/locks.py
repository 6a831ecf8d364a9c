"""Locks on open files and folders, which the system releases when the process ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def has_locks() -> bool:
    """Returns whether this system has file locks. A file system may have none all the same."""
    return fcntl is not None


def try_lock(descriptor: int) -> bool:
    """Locks an open file or folder until it is closed, also by the end of the process.

    Args:
        descriptor: of the file or folder.

    Returns:
        False if it is locked already, by another process or by another opening of it.

    Raises:
        OSError: the system or the file system has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has no file locks")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_still(path: Path, descriptor: int) -> bool:
    """Returns whether an open file is the one that a path names: it may have been removed."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
