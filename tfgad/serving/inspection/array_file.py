"""Arrays in a temporary file, so that they take no memory."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from typing import NamedTuple

import numpy as np


class ArrayRef(NamedTuple):
    """The position of an array in an `ArrayFile`, with its dtype and shape."""

    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]


class ArrayFile:
    """A file of arrays, with one file descriptor, until it is closed.

    The file has no name, so that it disappears with the process however that ends.

    Attributes:
        bytes: size of the file.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._lock = threading.Lock()
        self.bytes = 0

    def write(self, array: np.ndarray) -> ArrayRef | None:
        """Appends an array; returns its position, or None if the file is closed."""
        with self._lock:
            if self._file.closed:
                return None
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(array).data)
            self._file.flush()  # so that a full disk is reported here, not at the next array
            self.bytes = self._file.tell()
            return ArrayRef(offset, array.dtype, array.shape)

    def read(self, ref: ArrayRef | None) -> np.ndarray | None:
        """Returns an array; None if the file is closed, or was when the array was written."""
        with self._lock:
            if ref is None or self._file.closed:
                return None
            self._file.seek(ref.offset)
            content = self._file.read(math.prod(ref.shape) * ref.dtype.itemsize)
            return np.frombuffer(content, ref.dtype).reshape(ref.shape)

    def close(self) -> None:
        """Closes the file, which frees its disk space."""
        with self._lock:
            self._file.close()
            self.bytes = 0
