"""Data sets of tensorflow-datasets: prepared on this machine, or downloaded."""

from __future__ import annotations

import http.client
import logging
import os
import pathlib
import threading
import urllib.error
import urllib.request
from typing import Any

from tfgad.errors import UsageError, first_line

log = logging.getLogger(__name__)

# A reachable host answers within a fraction of a second; the whole answer may take 5 s.
PROBE_SECONDS = 2.0


def prepared_folder(name: str) -> pathlib.Path | None:
    """Returns the folder of a set that has been prepared before, or None.

    It is looked for in the folder that the environment variable `TFDS_DATA_DIR` names, or in
    `~/tensorflow_datasets`. Of several versions it is the latest.

    Args:
        name: of the set, such as `"mnist"`, of a set and its configuration, `"eurosat/rgb"`, or
            with a version, `"mnist:3.0.1"`.

    Raises:
        UsageError: the folder cannot be read.
    """
    name, _, version = name.partition(":")
    folders = [path.parent for path in _found(f"{name}/{version or '*'}/dataset_info.json")]
    return max(folders, key=lambda path: _version(path.name), default=None)


def prepared_configurations(name: str) -> list[str]:
    """Returns the configurations of a set that have been prepared before, as `"eurosat/rgb"`.

    Raises:
        UsageError: the folder cannot be read.
    """
    found = _found(f"{name}/*/*/dataset_info.json")
    return sorted({f"{name}/{path.parent.parent.name}" for path in found})


def opened(folder: pathlib.Path) -> Any:
    """Returns the builder of a prepared set.

    Raises:
        UsageError: its description is broken.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # a broken description may raise any
        problem = f"is broken ({first_line(error)})"
        raise UsageError("data folder", folder, problem, "prepare it again") from error


def downloaded(name: str, host: str, hint: str) -> Any:
    """Returns the builder of a set that is downloaded and prepared.

    Args:
        name: of the set.
        host: an address from which it comes. Without a network tensorflow-datasets would try for
            minutes; so this is asked first.
        hint: what to do if it does not answer.

    Raises:
        UsageError: the host does not answer, there is no such set, or the download fails.
    """
    if not answers(host):
        problem = "is not on this machine, and its download host does not answer"
        raise UsageError("data set", name, problem, hint)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except Exception as error:  # a wrong name or configuration has several types
        problem = f"is no data set of tensorflow-datasets ({first_line(error)})"
        hint = "see tensorflow.org/datasets/catalog for the names"
        raise UsageError("data set", name, problem, hint) from error
    try:
        builder.download_and_prepare()
    except Exception as error:  # a wrong checksum and a damaged archive are of type Exception
        problem = f"cannot be downloaded ({first_line(error)})"
        raise UsageError("data set", name, problem, "try again") from error
    return builder


def answers(url: str) -> bool:
    """Returns whether a host answers at all; proxy settings are used.

    The request runs in a thread of its own because a name look-up has no timeout.
    """
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
            answered.set()
        except urllib.error.HTTPError:  # an error is an answer, too
            answered.set()
        except (OSError, ValueError, http.client.HTTPException) as error:  # or a wrong proxy
            log.debug("%s: %s", url, error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()


def _found(pattern: str) -> list[pathlib.Path]:
    """Returns the files in the folder of prepared sets that fit a pattern."""
    given = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    try:
        return list(pathlib.Path(given).expanduser().glob(pattern))
    except (OSError, RuntimeError, ValueError) as error:  # unreadable; no such user; no pattern
        problem = f"cannot be searched for {pattern} ({first_line(error)})"
        hint = "name the folder of prepared data sets"
        raise UsageError("TFDS_DATA_DIR", given, problem, hint) from error


def _version(name: str) -> tuple[int, ...]:
    """Returns a version such as `"3.0.1"` as numbers; another name is lower than any version."""
    parts = name.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
