"""WGAN-GP (Gulrajani et al. 2017): WGAN with a penalty in the place of the clipped weights."""

import keras
import tensorflow as tf

from tfgad.core import losses
from tfgad.core.adversarial import EPSILON
from tfgad.methods.wgan import WGAN


@keras.saving.register_keras_serializable("tfgad")
class WGANGP(WGAN):
    """Generator G and critic D, whose slope is held at 1 between real and generated images.

    D minimizes E[D(G(z))] - E[D(x)] + λ·E[(‖∇D(x̂)‖ - 1)²], x̂ = εx + (1-ε)G(z) (eq. 3). D must
    not normalise over the batch: the penalty is an image's own (section 4).

    Args:
        penalty: λ.
        **kwargs: the networks `generator` and `critic`, and what `WGAN` takes.
    """

    def __init__(self, *, penalty=10.0, **kwargs):
        super().__init__(**kwargs)
        self.penalty = penalty

    def penalties(self, logit, x, generated, t):
        """E[(‖∇D(x̂)‖ - 1)²], and what `Adversarial` adds."""
        epsilon = self.noise([tf.shape(x)[0], 1, 1, 1], EPSILON + t, uniform=True)
        penalty = losses.gradient_penalty(logit, x, generated, epsilon)
        return {"penalty": (self.penalty, penalty), **super().penalties(logit, x, generated, t)}

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "penalty": self.penalty}
