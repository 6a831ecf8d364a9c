"""Temporary storage of images on disk: decoded once, and never all in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfgad.errors import UsageError


class StoredRows:
    """Rows of one shape and type in a temporary file, read by index like an array.

    The file is in the system's temporary folder. It disappears with the object, even if the process
    is killed.
    """

    def __init__(self) -> None:
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        except OSError as error:
            problem = f"there is none that can be written ({error.strerror or error})"
            hint = "set TMPDIR to a folder"
            raise UsageError(
                "temporary folder", os.environ.get("TMPDIR", ""), problem, hint
            ) from error
        self._count = 0
        self._row = np.empty(0)  # shape and type of a row, known from the first ones on

    def append(self, rows: np.ndarray) -> None:
        """Appends rows `[N, ...]`.

        Raises:
            UsageError: the disk is full.
        """
        if not self._count:
            self._row = np.empty(rows.shape[1:], rows.dtype)
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(rows).data)
            self._file.flush()
        except OSError as error:
            problem = f"cannot hold the images ({error.strerror or error})"
            hint = "free space there, or set TMPDIR to a folder that has some"
            raise UsageError("temporary folder", tempfile.gettempdir(), problem, hint) from error
        self._count += len(rows)

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together, `(N, ...)`."""
        return (self._count, *self._row.shape)

    def mapped(self) -> np.ndarray:
        """Returns all rows, read-only, without reading them: the file is mapped into memory.

        The array stays when this object is gone. Threads may read it at once. There is at least
        one row.
        """
        return np.memmap(self._file, self._row.dtype, "r", shape=self.shape)

    def __getitem__(self, index: int | slice | np.ndarray | list[int]) -> np.ndarray:
        """Reads the row of an index, `[...]`, or those of a slice or of several: `[N, ...]`.

        Raises:
            IndexError: there is no such row.
            EOFError: the file has been truncated.
        """
        places = np.arange(self._count)[index]
        numbers = np.atleast_1d(places)
        rows = np.empty((len(numbers), *self.shape[1:]), self._row.dtype)
        for number, row in zip(numbers, rows, strict=True):
            self._file.seek(int(number) * self._row.nbytes)
            if self._file.readinto(row) != row.nbytes:
                raise EOFError(f"row {number} of {self._count} is incomplete in the temporary file")
        return rows if np.ndim(places) else rows[0]


def stored(batches: Iterable[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Collects the batches of a test set.

    Args:
        batches: dicts with the same keys, `image` and others.

    Returns:
        `image` as `StoredRows`, the other columns as arrays of all rows.
    """
    images, rows = StoredRows(), []
    for batch in batches:
        images.append(batch["image"])
        rows.append({name: column for name, column in batch.items() if name != "image"})
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return {"image": images, **columns}
