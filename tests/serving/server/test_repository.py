"""The version in service when the folder changes, with fake loaded models."""

import errno
import gc
import shutil
import weakref
from pathlib import Path

import pytest

from tfgad.serving.errors import ServingError
from tfgad.serving.server import repository
from tfgad.serving.server.batching import ClosedError
from tfgad.serving.server.repository import Repository, State
from tfgad.serving.server.version_folders import find_versions

END = State("END")
COLLECT = repository._collect


class Graph:
    """A reference cycle, like the graphs of a model."""

    def __init__(self):
        self.itself = self


class FakeServable:
    """Loads a folder unless it holds a file `broken`."""

    def __init__(self, name, number, folder, batching, on_batch):
        (folder / "saved_model.pb").stat()
        if (folder / "broken").exists():
            raise ValueError(f"no graph in {folder}")
        self.name, self.number, self.closed = name, number, False
        self.graph = Graph()

    @property
    def predictor(self):
        if self.closed:
            raise ClosedError
        return f"predictor of version {self.number}"

    def close(self):
        self.closed, self.graph = True, None


@pytest.fixture
def write(tmp_path):
    """A function that writes versions of models, such as `parts/1`."""

    def write_versions(*names, broken=False):
        for name in names:
            folder = tmp_path / name
            folder.mkdir(parents=True)
            (folder / "saved_model.pb").touch()
            if broken:
                (folder / "broken").touch()

    return write_versions


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The models of the folder, with fakes for loaded versions."""
    monkeypatch.setattr(repository, "Servable", FakeServable)
    monkeypatch.setattr(repository, "_collect", lambda: None)  # it takes seconds in a large process
    models = Repository(tmp_path)
    yield models
    models.close()


def settled(models):
    """Polls, waits until retired versions are unloaded, and polls again."""
    models.poll()
    for thread in models._unloading:
        thread.join()
    models.poll()


def test_models_and_versions_of_a_folder(tmp_path, write):
    write("parts/1", "parts/12", "parts/latest", "parts/.partial-x", "rolls/3", "a:b/1", ".x/1")
    (tmp_path / "parts" / "7").mkdir()  # without a model
    (tmp_path / "notes.txt").touch()
    found = find_versions(tmp_path)
    assert {name: sorted(versions) for name, versions in found.models.items()} == {
        "parts": [1, 12],
        "rolls": [3],
    }
    assert found.models["parts"][12] == tmp_path / "parts" / "12"
    assert found.skipped == {
        "a:b": "the name has invalid characters",
        "parts/7": "it holds no saved_model.pb",
    }
    assert find_versions(tmp_path / "rolls").models == {"rolls": {3: tmp_path / "rolls" / "3"}}


def test_invalid_versions_are_skipped_with_a_reason(tmp_path, write):
    large = "9" * 20
    write(f"parts/{large}", "parts/01", "parts/1", "parts/0", f"parts/{2**63 - 1}")
    write("od\nd/1", "x\udcff/1")
    (tmp_path / "parts" / "3").touch()  # no folder
    (tmp_path / "parts" / "4" / "saved_model.pb").mkdir(parents=True)
    (tmp_path / "parts" / "5").symlink_to("5")
    (tmp_path / "loop").symlink_to("loop")
    found = find_versions(tmp_path)
    assert {name: sorted(versions) for name, versions in found.models.items()} == {
        "parts": [0, 1, 2**63 - 1]
    }
    assert found.models["parts"][1].name == "1"
    assert found.skipped == {
        f"parts/{large}": f"version numbers above {2**63 - 1} are not supported",
        "parts/01": "version 1 is in 1",
        **{f"parts/{i}": "it holds no saved_model.pb" for i in (3, 4, 5)},
        r"od\nd": "the name has invalid characters",
        r"x\udcff": "the name has invalid characters",
    }


def test_a_retired_version_gives_the_predictor_of_its_successor(models, write, monkeypatch):
    write("parts/1")
    settled(models)
    old, find = models.find("parts"), models.find
    write("parts/2")
    settled(models)
    assert old.closed
    found = iter([old])  # found by a request before version 2 was loaded
    monkeypatch.setattr(models, "find", lambda name: next(found, None) or find(name))
    assert models.predictor("parts") == "predictor of version 2"


@pytest.fixture
def refuse(monkeypatch):
    """A function that makes a folder unreadable, also to root."""
    refused = set()

    def patched(method, looks_below):
        def call(path, *args, **kwargs):
            if (path.parent if looks_below else path) in refused:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return method(path, *args, **kwargs)

        return call

    monkeypatch.setattr(Path, "iterdir", patched(Path.iterdir, looks_below=False))
    monkeypatch.setattr(Path, "stat", patched(Path.stat, looks_below=True))
    return refused.add


def test_an_unreadable_folder_is_skipped_and_logged_once(models, write, tmp_path, refuse, caplog):
    write("parts/1", "lost+found/1")
    refuse(tmp_path / "lost+found")
    settled(models)
    assert models.names() == ["parts"]
    assert models.is_ready()
    assert models.failures() == ["lost+found: it cannot be read (Permission denied)"]
    assert caplog.text.count("lost+found is skipped") == 1
    write("parts/2")
    settled(models)
    assert models.find("parts").number == 2


def test_a_model_in_service_stays_while_its_folder_is_unreadable(models, write, tmp_path, refuse):
    write("parts/1", "rolls/1")
    settled(models)
    refuse(tmp_path / "rolls")
    write("parts/2")
    settled(models)
    assert models.find("parts").number == 2
    assert models.find("rolls").number == 1
    assert models.states("rolls") == {1: State("AVAILABLE")}


def test_an_unreadable_version_does_not_affect_others(models, write, tmp_path, refuse):
    write("parts/1", "parts/2", "rolls/1")
    refuse(tmp_path / "parts" / "2")
    settled(models)
    assert models.find("parts").number == 1
    state = models.states("parts", 2)[2]
    assert (state.state, state.code) == ("END", "UNKNOWN")
    assert "Permission denied" in state.message
    write("rolls/2")
    settled(models)
    assert models.find("rolls").number == 2


def test_a_numbered_folder_that_is_unreadable_does_not_hide_the_models(write, tmp_path, refuse):
    write("parts/1")
    (tmp_path / "2024").mkdir()
    refuse(tmp_path / "2024")
    found = find_versions(tmp_path)
    assert list(found.models) == ["parts"]
    assert found.skipped == {"2024": "it cannot be read (Permission denied)"}


def test_a_folder_that_vanishes_while_it_loads_is_a_failure(models, write, tmp_path, monkeypatch):
    write("parts/1", "parts/2")

    class Vanishing(FakeServable):
        def __init__(self, name, number, folder, *others):
            if number == 2:
                shutil.rmtree(folder)
                (folder / "saved_model.pb").read_bytes()
            super().__init__(name, number, folder, *others)

    monkeypatch.setattr(repository, "Servable", Vanishing)
    models.poll()
    assert models.find("parts").number == 1
    assert models.states("parts", 2)[2].code == "UNKNOWN"


def test_the_highest_version_is_served_and_no_other(models, write):
    write("parts/9", "parts/10")
    settled(models)
    assert models.names() == ["parts"]
    assert models.find("parts").number == models.find("parts", 10).number == 10
    for number, asked in ((9, "Specific(parts, 9)"), (0, "Specific(parts, 0)")):
        with pytest.raises(ServingError) as raised:
            models.find("parts", number)
        assert raised.value.code == "NOT_FOUND"
        assert raised.value.message == f"Servable not found for request: {asked}"


def test_a_new_version_replaces_the_old(models, write):
    write("parts/1")
    settled(models)
    old = models.find("parts")
    write("parts/2")
    settled(models)
    assert models.find("parts").number == 2
    assert old.closed
    assert models.states("parts") == {2: State("AVAILABLE"), 1: END}
    assert list(models.states("parts")) == [2, 1]


@pytest.mark.slow
def test_an_unloaded_version_is_freed(models, write, monkeypatch):
    monkeypatch.setattr(repository, "_collect", COLLECT)
    write("parts/1")
    settled(models)
    gc.freeze()  # as `tfgad serve` does after its start
    try:
        old = weakref.ref(models.find("parts").graph)
        write("parts/2")
        settled(models)
        assert old() is None
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_a_broken_version_leaves_the_old_in_service(models, write, tmp_path):
    write("parts/1")
    settled(models)
    write("parts/2", broken=True)
    settled(models)
    settled(models)  # it is not loaded again
    assert models.find("parts").number == 1
    assert models.is_ready()
    state = models.states("parts", 2)[2]
    assert (state.state, state.code) == ("END", "UNKNOWN")
    assert state.message == "no graph in parts/2"  # without the path of the folder


def test_a_broken_version_is_tried_again_when_it_changes(models, write, tmp_path):
    write("parts/1")
    write("parts/2", broken=True)
    settled(models)
    assert models.find("parts").number == 1
    (tmp_path / "parts" / "2" / "broken").unlink()
    settled(models)
    assert models.find("parts").number == 2


def test_a_removed_version_is_replaced_by_the_next_lower(models, write, tmp_path):
    write("parts/1", "parts/2")
    settled(models)
    (tmp_path / "parts" / "2").rename(tmp_path / "two")
    settled(models)
    assert models.find("parts").number == 1
    assert 2 not in models.states("parts")


def test_a_model_comes_and_goes(models, write, tmp_path):
    settled(models)
    assert models.names() == []
    assert not models.is_ready()
    write("parts/1", "rolls/1")
    settled(models)
    assert models.names() == ["parts", "rolls"]
    old = models.find("rolls")
    (tmp_path / "rolls").rename(tmp_path / ".gone")
    settled(models)
    assert models.names() == ["parts"]
    assert old.closed
    assert models.is_ready()
    with pytest.raises(ServingError, match=r"Latest\(rolls\)"):
        models.find("rolls")
    with pytest.raises(ServingError, match="any versions of model rolls"):
        models.states("rolls")


def test_models_are_kept_while_the_folder_cannot_be_read(models, write, monkeypatch, caplog):
    write("parts/1")
    settled(models)

    def unreachable(folder):
        raise OSError("no such device")

    monkeypatch.setattr(repository, "find_versions", unreachable)
    settled(models)
    assert models.find("parts").number == 1
    assert caplog.text.count("cannot be read (no such device)") == 1
    assert models.failures() == ["the folder of models cannot be read (no such device)"]


def test_the_server_is_not_ready_while_a_model_is_missing(models, write):
    write("parts/1")
    write("rolls/1", broken=True)
    settled(models)
    assert models.names() == ["parts"]
    assert not models.is_ready()
    assert models.failures() == ["rolls version 1: no graph in rolls/1"]


def test_closing_unloads_all(models, write):
    write("parts/1", "rolls/1")
    settled(models)
    loaded = [models.find("parts"), models.find("rolls")]
    models.close()
    assert all(each.closed for each in loaded)
    assert models.names() == []
