"""Images of a test set in a temporary file: they are decoded once, and not all in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfgad.errors import UsageError


class StoredRows:
    """Arrays of one shape and type, one after another, read back by their places.

    The file is in the system's folder for temporary files, and is gone with the object, even if
    the process is killed.
    """

    def __init__(self):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._form: np.ndarray | None = None
        self._count = 0

    def append(self, rows: np.ndarray) -> None:
        """Writes `[N, ...]` behind what is there.

        Raises:
            UsageError: there is no space for them.
        """
        if self._form is None:
            self._form = np.empty(rows.shape[1:], rows.dtype)
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(rows))
            self._file.flush()
        except OSError as error:
            problem = f"cannot hold the test images ({error.strerror or error})"
            hint = "free space there, or set TMPDIR to a folder that has some"
            raise UsageError("temporary folder", tempfile.gettempdir(), problem, hint) from error
        self._count += len(rows)

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows together: `(N, ...)`."""
        return (self._count, *self._form.shape)

    def __getitem__(self, places) -> np.ndarray:
        """Reads the rows at places, a slice or an array of them: `[N, ...]`.

        Raises:
            EOFError: the file has been cut.
        """
        numbers = np.arange(self._count)[places]
        rows = np.empty((len(numbers), *self.shape[1:]), self._form.dtype)
        for number, row in zip(numbers, rows, strict=True):
            self._file.seek(int(number) * self._form.nbytes)
            if self._file.readinto(row) != row.nbytes:
                raise EOFError(f"row {number} of {self._count} is not whole in the temporary file")
        return rows


def stored(batches: Iterable[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Returns the columns of a test set by name: arrays of all rows, but of `image` `StoredRows`.

    Args:
        batches: some rows each, with the same columns.
    """
    images, rows = StoredRows(), []
    for batch in batches:
        images.append(batch["image"])
        rows.append({name: column for name, column in batch.items() if name != "image"})
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return {"image": images, **columns}
