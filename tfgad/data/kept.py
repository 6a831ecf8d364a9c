"""Training images, decoded once and read at random places: in memory, or in a temporary file."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfgad.data.pixels import from_uint8, to_uint8
from tfgad.data.sampling import batched
from tfgad.data.stored import StoredRows
from tfgad.errors import UsageError

IN_MEMORY = 2**30  # bytes; more stay in the file, and the system caches what it has memory for


class KeptImages:
    """Images `[H, W, C]` by number, with the values of the stream that they are from.

    Images whose values are all grey levels of 8 bits are kept as those, in a quarter of the memory.

    Args:
        images: float32 `[H, W, C]` in [-1, 1], one at a time.
        count: how many there are.

    Raises:
        UsageError: the temporary folder has too little space; there are not `count` images.
    """

    def __init__(self, images: tf.data.Dataset, count: int):
        stored, are_levels = StoredRows(), True
        for batch in batched(images).as_numpy_iterator():
            levels = to_uint8(batch)
            if are_levels and not np.array_equal(from_uint8(levels), batch):
                stored, are_levels = _as_values(stored), False
            stored.append(levels if are_levels else batch)
            if len(stored) > count:
                break
        if len(stored) != count:
            hint = "leave the files alone while they are loaded, and start again"
            problem = f"were read, {count} were expected"
            raise UsageError("training images", len(stored), problem, hint)
        rows = stored.mapped()
        self._tensor = tf.constant(rows) if rows.nbytes <= IN_MEMORY else None
        self._rows = rows if self._tensor is None else None  # else the file stays
        self._greys = tf.constant(from_uint8(np.arange(256)))

    def read(self, number: tf.Tensor) -> tf.Tensor:
        """Returns images as they are kept, as uint8 levels or float32.

        Args:
            number: of one image or several, int64 `[...]`.

        Returns:
            The images, `[..., H, W, C]`.
        """
        if self._tensor is not None:
            return tf.gather(self._tensor, number)
        assert self._rows is not None
        images = tf.numpy_function(self._rows.__getitem__, [number], self._rows.dtype)
        return tf.ensure_shape(images, [*number.shape, *self._rows.shape[1:]])

    def values(self, images: tf.Tensor) -> tf.Tensor:
        """Returns what `read` did, or parts of it, as float32 in [-1, 1], to the last bit."""
        if images.dtype != tf.uint8:
            return images
        return tf.gather(self._greys, tf.cast(images, tf.int32))


def _as_values(levels: StoredRows) -> StoredRows:
    """Returns rows of grey levels as rows of float32 in [-1, 1]."""
    values = StoredRows()
    for number in range(len(levels)):
        values.append(from_uint8(levels[[number]]))
    return values
