"""Precision of the networks: bfloat16 in training if asked for, float32 in scoring.

bfloat16 has eight significant bits, so the last bit of an input may change a number by 0.4 %.
Python and exported models scale pixels by different operations, whose results differ in that bit.
With tiny models of every method in bfloat16, the scores of the two differed by up to 3 % of the
largest score, and by 60 % for AnoGAN, whose search accumulates rounding. In float32 they differed
by 1e-5.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import keras

# Keras's policies by the names of the setting `precision`; `AUTO` stands for one of them.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
AUTO = "auto"

_thread = threading.local()


@contextlib.contextmanager
def scoring() -> Iterator[None]:
    """Context in which networks compute in float32, in this thread; see `score_in_float32`."""
    before = _is_scoring()
    _thread.scores = True
    try:
        yield
    finally:
        _thread.scores = before


def _is_scoring() -> bool:
    return getattr(_thread, "scores", False)


def score_in_float32(network: keras.Layer) -> None:
    """Makes a layer in mixed precision, and all its sublayers, compute in float32 within `scoring`.

    Call it on loaded networks too: Keras restores its own policy from a file.
    """
    if network.dtype_policy.name == POLICIES["bfloat16"]:
        network.dtype_policy = TrainedInBfloat16(POLICIES["bfloat16"])
    for layer in getattr(network, "layers", ()):  # networks may be nested
        score_in_float32(layer)


@keras.saving.register_keras_serializable("tfgad")
class TrainedInBfloat16(keras.DTypePolicy):
    """Keras's `mixed_bfloat16`, with float32 computations within `scoring`; weights are float32."""

    @property
    def compute_dtype(self) -> str:
        """The data type that a layer computes in now."""
        return self.variable_dtype if _is_scoring() else super().compute_dtype
