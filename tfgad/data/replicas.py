"""Random numbers under `tf.distribute`: N replicas draw what one would draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def own_part(draw: Callable[..., tf.Tensor], shape: Any, seed: tf.Tensor) -> tf.Tensor:
    """Draws random numbers for the batch of all replicas; returns the part of this one.

    Args:
        draw: a stateless operation, called as `draw(shape, seed=seed)`.
        shape: of this replica's part, a sequence or a tensor; first the number of images, which is
            the same in all replicas.
        seed: two whole numbers, int64; the same in all replicas.

    Returns:
        A tensor of that shape.
    """
    replica = tf.distribute.get_replica_context()
    size = shape[0]
    start = replica.replica_id_in_sync_group * size
    whole = [replica.num_replicas_in_sync * size, *tf.unstack(shape[1:])]
    return draw(whole, seed=seed)[start : start + size]
