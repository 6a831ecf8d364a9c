"""The folder of a process is removed, also if the process is killed."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tfgad.locks import has_locks
from tfgad.serving.inspection import process_folder as module

SCRIPT = """
import sys
from tfgad.serving.inspection.process_folder import process_folder
(process_folder() / "file.png").write_bytes(b"x")
print(process_folder(), flush=True)
sys.stdin.read()
"""


def process_in(folder):
    """Returns a process that has a folder of uploads, and that folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    return process, Path(process.stdout.readline().strip())


@pytest.mark.integration
@pytest.mark.skipif(not has_locks(), reason="needs locks of POSIX")
def test_the_next_process_removes_the_folder_of_a_killed_one(tmp_path):
    killed, left = process_in(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    young, old = (tmp_path / f"{module.PREFIX}{name}" for name in ("young", "old"))
    young.mkdir()  # of a process that is about to lock it
    old.mkdir()
    os.utime(old, (time.time() - 2 * module.UNLOCKED_AGE,) * 2)
    (tmp_path / f"{module.PREFIX}link").symlink_to(tmp_path)
    (tmp_path / "tfgad-other").mkdir()
    assert (left / "file.png").is_file()
    living, used = process_in(tmp_path)
    assert not left.exists()
    assert not old.exists()
    assert young.exists()
    module.remove_dead(tmp_path)
    assert (used / "file.png").is_file()
    living.communicate("")  # ends it normally
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "tfgad-other",
        f"{module.PREFIX}link",
        f"{module.PREFIX}young",
    ]


def test_the_folder_is_private():
    folder = module.process_folder()
    assert folder.stat().st_mode & 0o077 == 0
    assert folder.parent == Path(tempfile.gettempdir()).resolve()
    assert os.environ["GRADIO_TEMP_DIR"] == str(folder)  # gradio looks for visitors' files there
