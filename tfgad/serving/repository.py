"""The folder of models: its versions are found, loaded and retired without a restart.

    DIR/<name>/<version>/saved_model.pb      or, for one model,      DIR/<version>/saved_model.pb

As TF Serving does by default, of each model only the version with the highest number is served. A
new one is loaded and warmed up first; then requests go to it, those that wait for the old one are
still answered by that, and it is unloaded. One that cannot be loaded is reported, and the highest
that can be is served meanwhile; it is tried again when one of its files changes.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from tfgad.scoring import SavedModelJudge
from tfgad.serving.batching import Batching
from tfgad.serving.errors import ServingError
from tfgad.serving.servable import GRAPH_FILE, Servable

log = logging.getLogger(__name__)

Found = dict[str, dict[int, Path]]  # name -> number -> folder


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
        self._reachable = True

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

    def judge(self, name: str) -> SavedModelJudge:
        """Returns what judges images of any size, by the version in service.

        Raises:
            ServingError: NOT_FOUND, there is no such model.
            UsageError: the model is no detector of tfgad's.
        """
        return self.find(name).judge

    def queued_rows(self, name: str) -> int:
        """Returns how many rows wait for a run of a model; 0 for one that is not there."""
        servable = self._serving.get(name)
        return servable.queued_rows if servable else 0

    def failures(self) -> list[str]:
        """Returns why versions cannot be loaded, a line each."""
        with self._lock:
            return [
                f"{name} version {number}: {state.message}"
                for name, states in sorted(self._states.items())
                for number, state in sorted(states.items())
                if state.code != "OK"
            ]

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
                except Exception:  # the watcher must outlive whatever a file system does
                    log.exception("the folder of models could not be looked through")

        self._watcher = threading.Thread(target=keep_looking, daemon=True, name="versions")
        self._watcher.start()

    def close(self) -> None:
        """Stops looking, and unloads all once the requests that wait are answered."""
        self._stop.set()
        if self._watcher:
            self._watcher.join()
        for servable in self._serving.values():
            self._unload(servable)
        self._serving = {}
        for thread in self._unloading:
            thread.join()

    def poll(self) -> None:
        """Looks once, and brings what is served up to what the folder holds."""
        try:
            found = find_versions(self._folder)
        except OSError as error:
            if self._reachable:
                log.warning("%s cannot be read (%s); what is loaded is kept", self._folder, error)
            self._reachable = False
            return
        self._reachable = True
        for name, versions in found.items():
            self._bring_up(name, versions)
        for name in self._serving.keys() - found.keys():
            self._switch(name, None)
        self._forget_missing(found)

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
            for name, states in self._states.items():
                for number, state in list(states.items()):
                    if state.state == "END" and number not in found.get(name, {}):
                        del states[number]
            self._states = {name: states for name, states in self._states.items() if states}
        folders = {folder for versions in found.values() for folder in versions.values()}
        self._failed = {each: stamp for each, stamp in self._failed.items() if each in folders}


def find_versions(folder: Path) -> Found:
    """Returns the models of a folder, or its one model, named after it.

    Raises:
        OSError: the folder cannot be read.
    """
    own = _versions(folder)
    if own:
        return {folder.resolve().name: own}
    found = {}
    for each in sorted(folder.iterdir()):
        # The two characters end a name in a path of the REST interface.
        if each.name.startswith(".") or ":" in each.name or not each.is_dir():
            continue
        versions = _versions(each)
        if versions:
            found[each.name] = versions
    return found


def _versions(folder: Path) -> dict[int, Path]:
    return {
        int(each.name): each
        for each in folder.iterdir()
        if each.name.isascii() and each.name.isdecimal() and (each / GRAPH_FILE).is_file()
    }


def _stamp(folder: Path) -> frozenset:
    """Returns what changes when a file of a version does, or when another is added."""
    files = [each for each in folder.rglob("*") if each.is_file()]
    return frozenset((str(each), each.stat().st_mtime_ns, each.stat().st_size) for each in files)


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
