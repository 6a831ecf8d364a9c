"""The folder of models: its versions are found, loaded and retired without a restart.

    DIR/<name>/<version>/saved_model.pb      or, for one model,      DIR/<version>/saved_model.pb

As TF Serving does by default, of each model only the version with the highest number is served. A
new one is loaded and warmed up first; then requests go to it, those that wait for the old one are
still answered by that, and it is unloaded. One that cannot be loaded is reported, and the highest
that can be is served meanwhile; it is tried again when one of its files changes. What is no model,
or cannot be read, is passed over and said once; a model in service stays while that is so.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from tfgad.inference.predictor import SavedModelPredictor
from tfgad.serving.server.batching import Batching, ClosedError
from tfgad.serving.server.errors import ServingError
from tfgad.serving.server.servable import GRAPH_FILE, Servable

log = logging.getLogger(__name__)

LARGEST_VERSION = 2**63 - 1  # TF Serving's


@dataclasses.dataclass
class Found:
    """What a folder of models holds.

    Attributes:
        models: name -> number of a version -> its folder.
        unreadable: names of models whose versions cannot be told.
        skipped: what was passed over, relative to the folder, and why.
    """

    models: dict[str, dict[int, Path]] = dataclasses.field(default_factory=dict)
    unreadable: set[str] = dataclasses.field(default_factory=set)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class State:
    """Of a version, as `GetModelStatus` reports it.

    Attributes:
        state: `START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`.
        code: of the error that ended it, or `OK`.
        message: of that error, or empty.
    """

    state: str
    code: str = "OK"
    message: str = ""


class Repository:
    """The models of a folder.

    It is read by any thread, and changed by the one that calls `poll`.

    Args:
        folder: see the module.
        batching: how requests share runs.
        on_batch: called with model, signature and rows of each run.
    """

    def __init__(
        self,
        folder: Path,
        batching: Batching | None = None,
        on_batch: Callable[[str, str, int], None] = lambda *_: None,
    ):
        self._folder, self._batching, self._on_batch = folder, batching or Batching(), on_batch
        self._serving: dict[str, Servable] = {}  # replaced, never changed: readers need no lock
        self._states: dict[str, dict[int, State]] = {}
        self._failed: dict[Path, frozenset] = {}  # folder -> stamp of what failed
        self._lock = threading.Lock()  # of the states
        self._unloading: list[threading.Thread] = []
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._skipped: dict[str, str] = {}  # replaced, never changed
        self._problem = ""  # why the folder cannot be looked through

    def names(self) -> list[str]:
        """Returns the names of the models that have a version in service."""
        return sorted(self._serving)

    def is_ready(self) -> bool:
        """Returns whether every model that was found has a version in service."""
        with self._lock:
            known = {name for name, states in self._states.items() if _wanted(states)}
        return bool(known) and known <= self._serving.keys()

    def find(self, name: str, number: int | None = None) -> Servable:
        """Returns the version in service.

        Raises:
            ServingError: NOT_FOUND, in TF Serving's words: there is no such model, or another
                version is in service.
        """
        servable = self._serving.get(name)
        if servable is None or number not in (None, servable.number):
            asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {asked}")
        return servable

    def states(self, name: str, number: int | None = None) -> dict[int, State]:
        """Returns the states of a model's versions, the highest first.

        Raises:
            ServingError: NOT_FOUND, in TF Serving's words.
        """
        with self._lock:
            known = dict(sorted(self._states.get(name, {}).items(), reverse=True))
        if number is not None:
            if number not in known:
                raise ServingError("NOT_FOUND", f"Could not find version {number} of model {name}")
            return {number: known[number]}
        if not known:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {name}")
        return known

    def judge(self, name: str) -> SavedModelPredictor:
        """Returns what judges images of any size, by the version in service.

        Raises:
            ServingError: NOT_FOUND, there is no such model.
            UsageError: the model is no detector of tfgad's.
        """
        while True:
            try:
                return self.find(name).judge
            except ClosedError:  # it was retired meanwhile: another is in service, or none
                continue

    def queued_rows(self, name: str) -> int:
        """Returns how many rows wait for a run of a model; 0 for one that is not there."""
        servable = self._serving.get(name)
        return servable.queued_rows if servable else 0

    def failures(self) -> list[str]:
        """Returns why versions cannot be loaded, and what was passed over; a line each."""
        with self._lock:
            failed = [
                f"{name} version {number}: {state.message}"
                for name, states in sorted(self._states.items())
                for number, state in sorted(states.items())
                if state.code != "OK"
            ]
        skipped = [f"{what}: {why}" for what, why in sorted(self._skipped.items())]
        return [*([self._problem] if self._problem else []), *failed, *skipped]

    def version(self, name: str) -> int:
        """Returns the number of the version in service; 0 for a model that is not there."""
        servable = self._serving.get(name)
        return servable.number if servable else 0

    def watch(self, seconds: float) -> None:
        """Looks for new versions from now on, in a thread of its own."""

        def keep_looking():
            while not self._stop.wait(seconds):
                try:
                    self.poll()
                except Exception as error:  # the watcher must outlive whatever a file system does
                    self._say_problem(f"the folder of models: {error!r}", error)

        self._watcher = threading.Thread(target=keep_looking, daemon=True, name="versions")
        self._watcher.start()

    def close(self) -> None:
        """Stops looking, and unloads all once the requests that wait are answered."""
        self._stop.set()
        if self._watcher:
            self._watcher.join()
        serving, self._serving = self._serving, {}
        for servable in serving.values():
            self._unload(servable)
        for thread in self._unloading:
            thread.join()

    def poll(self) -> None:
        """Looks once, and brings what is served up to what the folder holds."""
        try:
            found = find_versions(self._folder)
        except OSError as error:
            self._say_problem(f"the folder of models cannot be read ({_reason(error)})")
            return
        self._problem = ""
        for what, why in found.skipped.items():
            if self._skipped.get(what) != why:
                log.warning("%s is passed over: %s", what, why)
        self._skipped = found.skipped
        for name, versions in found.models.items():
            self._bring_up(name, versions)
        for name in self._serving.keys() - found.models.keys() - found.unreadable:
            self._switch(name, None)
        self._forget_missing(found)

    def _say_problem(self, problem: str, error: Exception | None = None) -> None:
        """Says once that the folder cannot be looked through."""
        if problem != self._problem:
            log.warning("%s; what is loaded is kept", problem, exc_info=error)
        self._problem = problem

    def _bring_up(self, name: str, versions: dict[int, Path]) -> None:
        """Serves the highest version of a model that can be loaded."""
        current = self._serving.get(name)
        for number in sorted(versions, reverse=True):
            if current and current.number == number:
                return
            servable = self._load(name, number, versions[number])
            if servable:
                self._switch(name, servable)
                return
        if current:  # its folder is gone, and no other can be loaded
            self._switch(name, None)

    def _load(self, name: str, number: int, folder: Path) -> Servable | None:
        stamp = _stamp(folder)
        if self._failed.get(folder) == stamp:
            return None
        self._set_state(name, number, State("LOADING"))
        try:
            return Servable(
                name,
                number,
                folder,
                self._batching,
                lambda signature, rows: self._on_batch(name, signature, rows),
            )
        except Exception as error:  # on damaged files TensorFlow raises almost anything
            self._failed[folder] = stamp
            reason = " ".join(str(getattr(error, "message", error)).split()) or repr(error)
            log.warning("%s version %d cannot be loaded: %s", name, number, reason)
            # The folder is the server's own business.
            reason = reason.replace(str(folder), f"{name}/{number}")
            self._set_state(name, number, State("END", "UNKNOWN", reason))
            return None

    def _switch(self, name: str, new: Servable | None) -> None:
        """Sends requests to another version, or to none, and unloads the one before."""
        old = self._serving.get(name)
        others = {each: servable for each, servable in self._serving.items() if each != name}
        if new:
            self._set_state(name, new.number, State("AVAILABLE"))
            others[name] = new
        self._serving = others
        log.info("%s: version %s in service", name, new.number if new else "none")
        if old:
            self._unload(old)

    def _unload(self, old: Servable) -> None:
        """Unloads a version in a thread, since its last requests may take long."""
        self._set_state(old.name, old.number, State("UNLOADING"))

        def unload():
            old.close()
            _collect()
            self._set_state(old.name, old.number, State("END"))

        self._unloading = [each for each in self._unloading if each.is_alive()]
        self._unloading.append(threading.Thread(target=unload, daemon=True, name="unloading"))
        self._unloading[-1].start()

    def _set_state(self, name: str, number: int, state: State) -> None:
        with self._lock:
            self._states.setdefault(name, {})[number] = state

    def _forget_missing(self, found: Found) -> None:
        """Drops failures whose folder is gone: they are no longer wanted."""
        with self._lock:
            for name in self._states.keys() - found.unreadable:
                states, there = self._states[name], found.models.get(name, {})
                for number, state in list(states.items()):
                    if state.state == "END" and number not in there:
                        del states[number]
            self._states = {name: states for name, states in self._states.items() if states}
        folders = {folder for versions in found.models.values() for folder in versions.values()}
        self._failed = {each: stamp for each, stamp in self._failed.items() if each in folders}


def find_versions(folder: Path) -> Found:
    """Returns the models of a folder, or its one model, named after it.

    Raises:
        OSError: the folder cannot be read.
    """
    found = Found()
    children = sorted(folder.iterdir())
    own = _versions(folder, children, found.skipped)
    if any(_holds_graph(each) for each in own.values()):
        found.models[folder.resolve().name] = own
        return found
    found.skipped.clear()
    for each in children:
        if each.name.startswith("."):
            continue
        try:
            if not each.is_dir():
                continue
            # The two characters end a name in a path of the REST interface; others can be printed
            # neither in a log nor in a message.
            if ":" in each.name or not each.name.isprintable():
                found.skipped[ascii(each.name)[1:-1]] = "models have no such names"
                continue
            versions = _versions(each, sorted(each.iterdir()), found.skipped)
        except OSError as error:
            found.unreadable.add(each.name)
            found.skipped[each.name] = f"it cannot be read ({_reason(error)})"
            continue
        if versions:
            found.models[each.name] = versions
    return found


def _versions(folder: Path, children: list[Path], skipped: dict[str, str]) -> dict[int, Path]:
    """Returns the versions among the children of a model's folder, and notes what is none."""
    versions: dict[int, Path] = {}
    # Of numbers that are written in two ways, the shorter counts.
    for each in sorted(children, key=lambda child: len(child.name)):
        if not (each.name.isascii() and each.name.isdecimal()):
            continue
        number, what = int(each.name), f"{folder.name}/{each.name}"
        if number > LARGEST_VERSION:
            skipped[what] = f"no version has a number above {LARGEST_VERSION}"
        elif number in versions:
            skipped[what] = f"version {number} is in {versions[number].name}"
        elif _holds_graph(each, unreadable=True):  # loading it will say why
            versions[number] = each
        else:
            skipped[what] = f"it holds no {GRAPH_FILE}"
    return versions


def _holds_graph(folder: Path, unreadable: bool = False) -> bool:
    """Returns whether a folder holds a graph, or `unreadable` where that cannot be told."""
    try:
        return (folder / GRAPH_FILE).is_file()
    except OSError:
        return unreadable


def _stamp(folder: Path) -> frozenset:
    """Returns what changes when a file of a version does, or when another is added."""

    def stamp(path: Path) -> tuple:
        try:
            status = path.stat()
        except OSError as error:  # a link that leads nowhere, a broken disk
            return str(path), error.errno
        return str(path), status.st_mtime_ns, status.st_size

    try:
        return frozenset(map(stamp, [folder, *folder.rglob("*")]))
    except OSError as error:
        return frozenset([error.errno])


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _collect() -> None:
    """Frees what was unloaded: graphs are cycles, and `tfgad serve` froze those it began with."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()


def _wanted(states: dict[int, State]) -> bool:
    """Returns whether a model is in the folder, as far as its states tell."""
    return any(state.state != "END" or state.code != "OK" for state in states.values())
