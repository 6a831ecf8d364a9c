"""Base of the layers whose weights are statistics of normal images."""

from __future__ import annotations

from typing import Any

import keras


class StatisticsLayer(keras.layers.Layer):
    """A layer in float32 that is not trained: `adapt` sets its weights.

    Args:
        name: of the layer.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, name: str, **kwargs: Any):
        super().__init__(name=name, **{"dtype": "float32", "trainable": False, **kwargs})

    def _statistic(
        self, name: str, shape: tuple[int, ...], initializer: str | keras.Initializer
    ) -> keras.Variable:
        """Adds a weight."""
        return self.add_weight(shape, initializer, name=name, trainable=False, dtype="float32")
