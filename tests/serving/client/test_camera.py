"""The queue of `examples/camera.py`; `test_client.py` runs it with a server."""

import runpy
from pathlib import Path

import pytest

from tfgad.errors import UsageError

CAMERA = str(Path(__file__).parents[3] / "examples" / "camera.py")


def test_a_full_queue_drops_the_oldest_frame():
    queue = runpy.run_path(CAMERA)["Queue"](size=3)
    for frame in range(10):
        queue.put(frame)
    queue.close()
    assert [queue.get()[1] for _ in range(3)] == [7, 8, 9]
    assert queue.get() is None
    assert (queue.taken, queue.dropped) == (10, 7)


def test_a_folder_without_frames_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no PNG or JPEG files"):
        runpy.run_path(CAMERA)["of_folder"](tmp_path)
