"""The precision of the networks: bfloat16 while they are trained, float32 when they score.

A bfloat16 has eight bits, so that the last bit of an input may move a number by 0.4 %. Python and
an exported model scaled pixels by other operations, and differed in such bits. Of tiny models of
every method scored by bfloat16 networks, the two differed by up to 3 % of the largest score, and
AnoGAN's, whose search goes on from what was rounded, by 60 %. In float32 they differed by 1e-5.
"""

import contextlib
import threading

import keras

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # of the training, by Keras's names

_thread = threading.local()


@contextlib.contextmanager
def scoring():
    """Has networks compute in float32 within it, in this thread, after `score_in_float32`."""
    before = _is_scoring()
    _thread.scores = True
    try:
        yield
    finally:
        _thread.scores = before


def _is_scoring() -> bool:
    return getattr(_thread, "scores", False)


def score_in_float32(network: keras.Layer) -> None:
    """Has a layer in mixed precision, and all layers in it, compute in float32 within `scoring`.

    Keras makes plain policies again of what a file says, so this is for a loaded one, too.
    """
    if network.dtype_policy.name == POLICIES["bfloat16"]:
        network.dtype_policy = TrainedInBfloat16(POLICIES["bfloat16"])
    for layer in getattr(network, "layers", ()):  # of a network, some of which hold others
        score_in_float32(layer)


@keras.saving.register_keras_serializable("tfgad")
class TrainedInBfloat16(keras.DTypePolicy):
    """Keras's `mixed_bfloat16`, but float32 within `scoring`: weights are float32 in both."""

    @property
    def compute_dtype(self):
        """What a layer computes in now."""
        return self.variable_dtype if _is_scoring() else super().compute_dtype
