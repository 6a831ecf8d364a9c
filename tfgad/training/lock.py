"""A lock on a folder, so that no two trainings, nor anything else, write into it at once.

The lock is on a file in the folder. The system releases it when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tfgad.errors import UsageError
from tfgad.locks import is_still, try_lock

log = logging.getLogger(__name__)

LOCK = ".lock"
POLL = 0.2  # seconds between two attempts


@contextlib.contextmanager
def locked(
    folder: Path,
    argument: str = "out",
    hint: str = "wait for it, or name another folder",
    patience: float = 0.0,
) -> Iterator[None]:
    """Holds the lock on a folder, which is made if it is not there.

    On leaving, the file of the lock is removed, and so are folders that were made for it and are
    still empty. A folder that cannot be written is not locked. Neither is one on a system or file
    system without locks: a warning says so.

    Args:
        folder: its path.
        argument: the name of the path in the interface.
        hint: what to do if another process holds the lock.
        patience: seconds to wait for it.

    Raises:
        UsageError: another process, or another place in this one, holds it.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    handle = _acquired(folder, argument, hint, patience)
    try:
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()  # before it is released: no other process holds it yet
            os.close(handle)
        for each in made:
            with contextlib.suppress(OSError):
                each.rmdir()


def _acquired(folder: Path, argument: str, hint: str, patience: float) -> int | None:
    """Returns the open, locked file; None where there can be none."""
    end = time.monotonic() + patience
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # whoever writes there will say why it cannot be done
            return None
        try:
            is_ours = try_lock(handle)
        except OSError as error:
            os.close(handle)
            (folder / LOCK).unlink(missing_ok=True)
            problem = "%s is not locked (%s): start no training into it meanwhile"
            log.warning(problem, folder, error.strerror)
            return None
        if is_ours and is_still(folder / LOCK, handle):
            return handle
        os.close(handle)
        if not is_ours and time.monotonic() < end:
            time.sleep(POLL)
        elif not is_ours:
            problem = "is being trained or written by another process"
            raise UsageError(argument, folder, problem, hint)
        # Its holder removed it in between: there may be a new one.
