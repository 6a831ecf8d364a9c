"""The versions of models in a folder.

They are in `DIR/<name>/<version>/saved_model.pb`, or for one model in
`DIR/<version>/saved_model.pb`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tfgad.serving.server.model_files import GRAPH_FILE

LARGEST_VERSION = 2**63 - 1  # TF Serving's


@dataclasses.dataclass
class Found:
    """The content of a folder of models.

    Attributes:
        models: name -> version number -> folder of the version.
        unreadable: names of models whose folders cannot be read.
        skipped: paths that were skipped, relative to the folder -> the reason.
    """

    models: dict[str, dict[int, Path]] = dataclasses.field(default_factory=dict)
    unreadable: set[str] = dataclasses.field(default_factory=set)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)


def find_versions(folder: Path) -> Found:
    """Returns the models of a folder; if it is the folder of one model, that model.

    Raises:
        OSError: the folder cannot be read.
    """
    found = Found()
    children = sorted(folder.iterdir())
    own = _versions(folder, children, found.skipped)
    if any(_has_graph(each) for each in own.values()):
        found.models[folder.resolve().name] = own
        return found
    found.skipped.clear()
    for each in children:
        if each.name.startswith("."):
            continue
        try:
            if not each.is_dir():
                continue
            # Colons end a name in the paths of the REST interface; unprintable characters break
            # logs and messages.
            if ":" in each.name or not each.name.isprintable():
                found.skipped[ascii(each.name)[1:-1]] = "the name has invalid characters"
                continue
            versions = _versions(each, sorted(each.iterdir()), found.skipped)
        except OSError as error:
            found.unreadable.add(each.name)
            found.skipped[each.name] = f"it cannot be read ({reason_of(error)})"
            continue
        if versions:
            found.models[each.name] = versions
    return found


def fingerprint(folder: Path) -> frozenset:
    """Returns a value that changes when a file of a version is changed, added or removed."""

    def of_file(path: Path) -> tuple:
        try:
            status = path.stat()
        except OSError as error:  # a dangling link, a broken disk
            return str(path), error.errno
        return str(path), status.st_mtime_ns, status.st_size

    try:
        return frozenset(map(of_file, [folder, *folder.rglob("*")]))
    except OSError as error:
        return frozenset([error.errno])


def reason_of(error: OSError) -> str:
    """Returns the reason of an error in a few words."""
    return error.strerror or str(error) or type(error).__name__


def _versions(folder: Path, children: list[Path], skipped: dict[str, str]) -> dict[int, Path]:
    """Returns the versions among a model's subfolders; adds invalid ones to `skipped`."""
    versions: dict[int, Path] = {}
    # If a number is written in two ways, the shorter one is used.
    for each in sorted(children, key=lambda child: len(child.name)):
        if not (each.name.isascii() and each.name.isdecimal()):
            continue
        number, path = int(each.name), f"{folder.name}/{each.name}"
        if number > LARGEST_VERSION:
            skipped[path] = f"version numbers above {LARGEST_VERSION} are not supported"
        elif number in versions:
            skipped[path] = f"version {number} is in {versions[number].name}"
        elif _has_graph(each, if_unreadable=True):  # loading it will report the reason
            versions[number] = each
        else:
            skipped[path] = f"it holds no {GRAPH_FILE}"
    return versions


def _has_graph(folder: Path, if_unreadable: bool = False) -> bool:
    """Returns whether a folder holds a graph, or `if_unreadable` if it cannot be read."""
    try:
        return (folder / GRAPH_FILE).is_file()
    except OSError:
        return if_unreadable
