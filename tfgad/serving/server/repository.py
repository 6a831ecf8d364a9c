"""The models of a folder: versions are found, loaded and retired while the server runs.

As TF Serving does by default, only the version with the highest number of each model is served. A
new version is loaded and warmed up first. Then requests go to it, the old version answers those
that already wait for it, and it is unloaded. A version that cannot be loaded is reported, and the
highest one that can be loaded is served instead; loading is tried again when one of its files
changes. Folders that are no models, or cannot be read, are skipped and reported once; a model in
service stays in service meanwhile. For the layout of the folder see `version_folders.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from tfgad.inference.predictor import SavedModelPredictor
from tfgad.scores.drift import advice
from tfgad.serving.errors import ServingError
from tfgad.serving.server.batching import Batching, ClosedError
from tfgad.serving.server.score_watch import ScoreWatch
from tfgad.serving.server.servable import Servable
from tfgad.serving.server.version_folders import Found, find_versions, fingerprint, reason_of

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class State:
    """The state of a version, as `GetModelStatus` reports it.

    Attributes:
        state: `START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`.
        code: code of the error that ended it, or `OK`.
        message: message of that error, or empty.
    """

    state: str
    code: str = "OK"
    message: str = ""


class Repository:
    """The models of a folder.

    Any thread may read it; only the thread that calls `poll` changes it.

    Args:
        folder: folder of the models.
        batching: settings of batching.
        on_batch: called with model, signature and number of rows of each run.
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
        self._failed: dict[Path, frozenset] = {}  # folder -> its fingerprint when loading failed
        self._lock = threading.Lock()  # of the states
        self._unloading: list[threading.Thread] = []
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._skipped: dict[str, str] = {}  # replaced, never changed
        self._problem = ""  # why the folder cannot be read

    def names(self) -> list[str]:
        """Returns the names of the models that have a version in service."""
        return sorted(self._serving)

    def is_ready(self) -> bool:
        """Returns whether every model of the folder has a version in service."""
        with self._lock:
            known = {name for name, states in self._states.items() if _is_present(states)}
        return bool(known) and known <= self._serving.keys()

    def find(self, name: str, number: int | None = None) -> Servable:
        """Returns the version in service.

        Args:
            name: name of the model.
            number: number of the version; None for any.

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

        Args:
            name: name of the model.
            number: number of the version; None for all.

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

    def predictor(self, name: str) -> SavedModelPredictor:
        """Returns a predictor for images of any size, by the version in service.

        Raises:
            ServingError: NOT_FOUND, there is no such model.
            UsageError: the model has no valid metadata of tfgad.
        """
        while True:
            try:
                return self.find(name).predictor
            except ClosedError:  # it was just retired: look for its successor
                continue

    def queued_rows(self, name: str) -> int:
        """Returns the number of rows that wait for a model; 0 for an unknown model."""
        servable = self._serving.get(name)
        return servable.queued_rows if servable else 0

    def scores(self, name: str) -> ScoreWatch | None:
        """Returns the scores of the version in service; None for an unknown or foreign model."""
        servable = self._serving.get(name)
        return servable.scores if servable else None

    def drift(self, name: str) -> str:
        """Returns in words how the images of requests have drifted; empty if they have not."""
        scores = self.scores(name)
        return advice(scores.drifts, "the last") if scores else ""

    def failures(self) -> list[str]:
        """Returns one line for each version that cannot be loaded and each skipped path."""
        with self._lock:
            failed = [
                f"{name} version {number}: {state.message}"
                for name, states in sorted(self._states.items())
                for number, state in sorted(states.items())
                if state.code != "OK"
            ]
        skipped = [f"{path}: {reason}" for path, reason in sorted(self._skipped.items())]
        return [*([self._problem] if self._problem else []), *failed, *skipped]

    def version(self, name: str) -> int:
        """Returns the number of the version in service; 0 for an unknown model."""
        servable = self._serving.get(name)
        return servable.number if servable else 0

    def watch(self, seconds: float) -> None:
        """Polls the folder from now on, in a thread.

        Args:
            seconds: between two polls.
        """

        def keep_polling() -> None:
            while not self._stop.wait(seconds):
                try:
                    self.poll()
                except Exception as error:  # the thread must survive any error of a file system
                    self._report(f"the folder of models: {error!r}", error)

        self._watcher = threading.Thread(target=keep_polling, daemon=True, name="versions")
        self._watcher.start()

    def close(self) -> None:
        """Stops polling, answers the queued requests, and unloads all models."""
        self._stop.set()
        if self._watcher:
            self._watcher.join()
        serving, self._serving = self._serving, {}
        for servable in serving.values():
            self._unload(servable)
        for thread in self._unloading:
            thread.join()

    def poll(self) -> None:
        """Reads the folder once, and loads and retires versions accordingly."""
        try:
            found = find_versions(self._folder)
        except OSError as error:
            self._report(f"the folder of models cannot be read ({reason_of(error)})")
            return
        self._problem = ""
        for path, reason in found.skipped.items():
            if self._skipped.get(path) != reason:
                log.warning("%s is skipped: %s", path, reason)
        self._skipped = found.skipped
        for name, versions in found.models.items():
            self._update(name, versions)
        for name in self._serving.keys() - found.models.keys() - found.unreadable:
            self._switch(name, None)
        self._forget_missing(found)

    def _report(self, problem: str, error: Exception | None = None) -> None:
        """Logs once that the folder cannot be read."""
        if problem != self._problem:
            log.warning("%s; the loaded models stay in service", problem, exc_info=error)
        self._problem = problem

    def _update(self, name: str, versions: dict[int, Path]) -> None:
        """Serves the highest version of a model that can be loaded."""
        current = self._serving.get(name)
        for number in sorted(versions, reverse=True):
            if current and current.number == number:
                return
            servable = self._load(name, number, versions[number])
            if servable:
                self._switch(name, servable)
                return
        if current:  # its folder was removed, and no other version can be loaded
            self._switch(name, None)

    def _load(self, name: str, number: int, folder: Path) -> Servable | None:
        """Loads a version; None if that fails, or failed before with the same files."""
        files = fingerprint(folder)
        if self._failed.get(folder) == files:
            return None
        self._set_state(name, number, State("LOADING"))
        try:
            on_batch = functools.partial(self._on_batch, name)
            return Servable(name, number, folder, self._batching, on_batch)
        except Exception as error:  # TensorFlow raises almost anything for damaged files
            self._failed[folder] = files
            reason = " ".join(str(getattr(error, "message", error)).split()) or repr(error)
            log.warning("%s version %d cannot be loaded: %s", name, number, reason)
            # Clients must not learn the path of the folder.
            reason = reason.replace(str(folder), f"{name}/{number}")
            self._set_state(name, number, State("END", "UNKNOWN", reason))
            return None

    def _switch(self, name: str, new: Servable | None) -> None:
        """Sends requests to another version, or to none, and unloads the old one."""
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

        def unload() -> None:
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
        """Drops states and failures of versions whose folders were removed."""
        with self._lock:
            for name in self._states.keys() - found.unreadable:
                states, present = self._states[name], found.models.get(name, {})
                for number, state in list(states.items()):
                    if state.state == "END" and number not in present:
                        del states[number]
            self._states = {name: states for name, states in self._states.items() if states}
        folders = {folder for versions in found.models.values() for folder in versions.values()}
        self._failed = {each: files for each, files in self._failed.items() if each in folders}


def _collect() -> None:
    """Frees an unloaded model.

    Graphs are reference cycles, and `tfgad serve` excludes those of its start from collection.
    """
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()


def _is_present(states: dict[int, State]) -> bool:
    """Returns whether a model is in the folder, by the states of its versions."""
    return any(state.state != "END" or state.code != "OK" for state in states.values())
