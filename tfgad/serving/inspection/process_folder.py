"""A folder of this process for the inspection page's files.

It goes with the process; where that was killed, the next one that starts removes it.
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

try:
    import fcntl
except ImportError:  # Windows: there what a killed process leaves stays until the system clears it
    fcntl = None

PREFIX, LOCK = "tfgad-page-", ".lock"
# A folder without a lock is one that is just being made, unless it is as old as this, in seconds.
UNLOCKED_AGE = 3600


@functools.cache
def process_folder() -> Path:
    """Returns the folder of this process; it is gradio's for uploads, too.

    Folders of processes that were killed go first.
    """
    parent = Path(tempfile.gettempdir()).resolve()
    remove_dead(parent)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # for its owner alone
        if _hold(folder):
            break
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # read when a component is made, and when asked
    return folder


def remove_dead(parent: Path) -> None:
    """Removes the folders that processes have left which ended without removing them."""
    if fcntl is None:
        return
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another's, or it has just gone
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
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _hold(folder: Path) -> bool:
    """Locks a new folder for as long as the process lives; False if another has removed it."""
    if fcntl is None:
        return True
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        return os.stat(folder / LOCK).st_ino == os.fstat(lock).st_ino
    except FileNotFoundError:
        os.close(lock)
        return False
