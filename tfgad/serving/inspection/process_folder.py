"""A folder of this process for the files of the inspection page.

It is removed when the process ends. If the process was killed, the next one to start removes it;
without file locks, on Windows, it remains until the system removes it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
import time
from pathlib import Path

from tfgad.locks import has_locks, is_still, try_lock

PREFIX, LOCK = "tfgad-page-", ".lock"
# Seconds after which a folder without a lock is abandoned; before, it is just being created.
UNLOCKED_AGE = 3600


@functools.cache
def process_folder() -> Path:
    """Returns the folder of this process, which is also gradio's folder of uploads.

    Folders of killed processes are removed first.
    """
    parent = Path(tempfile.gettempdir()).resolve()
    remove_dead(parent)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # private to its owner
        if _lock(folder):
            break
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # gradio reads it for each component and request
    return folder


def remove_dead(parent: Path) -> None:
    """Removes the folders of processes that ended without removing them."""
    if not has_locks():
        return
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or just removed
            status = folder.lstat()
            if not folder.is_dir() or folder.is_symlink() or status.st_uid != os.getuid():
                continue
            try:
                lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            except FileNotFoundError:
                if time.time() - status.st_mtime > UNLOCKED_AGE:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                if try_lock(lock):  # its process does not live
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _lock(folder: Path) -> bool:
    """Locks a new folder for the life of the process; False if another process removes it."""
    if not has_locks():
        return True
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if try_lock(lock) and is_still(folder / LOCK, lock):
        return True
    os.close(lock)
    return False
