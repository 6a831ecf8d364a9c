"""Sessions of visitors, and whether their results are read."""

import shutil
from types import SimpleNamespace

import pytest

gradio = pytest.importorskip("gradio", reason="needs gradio: pip install 'tfgad[serve]'")

from tfgad.serving.inspection.handlers import Handlers  # noqa: E402
from tfgad.serving.inspection.layout import Layout  # noqa: E402
from tfgad.serving.inspection.sessions import Sessions  # noqa: E402
from tfgad.serving.inspection.uploads import Uploads  # noqa: E402

from .conftest import OWN_RATE  # noqa: E402


def test_scoring_ends_when_nobody_reads_the_results(models, paths):
    sessions = Sessions(stream_patience=0)
    with gradio.Blocks(analytics_enabled=False):
        page = Handlers(Layout(), models, Uploads(), sessions)
    path = shutil.copy(paths["good.png"], page.uploads.folder)
    visitor = SimpleNamespace(session_hash="one")
    sessions.join("one", "192.0.2.1")
    with sessions.read("one"):
        scoring = page.score([{"path": path}] * 3, "fabric", OWN_RATE, visitor)
        batch = next(scoring)[page.layout.batch]
        next(scoring)
    assert list(scoring)[1:] == []  # the reconstruction of the first image was in progress
    assert len(batch) == 2
    assert batch.bytes == 0


def test_a_session_that_nobody_reads_is_forgotten():
    sessions = Sessions(max_unread=1, stream_patience=0, session_patience=0)
    assert sessions.join("a", "192.0.2.1")
    assert not sessions.is_read("a")
    assert sessions.forget() == ["a"]
    assert not sessions.is_read("a")
    assert sessions.join("b", "192.0.2.1")
    with sessions.read("a") as is_known:
        assert not is_known
    with sessions.read("b") as is_known:
        assert is_known
        assert sessions.is_read("b")
        assert sessions.forget() == []
    assert sessions.forget() == ["b"]
    assert not sessions.is_read("b")
