"""WGAN (Arjovsky et al. 2017): a critic that measures the distance from normal images."""

import keras
import numpy as np
import tensorflow as tf

from tfgad.core import losses
from tfgad.core.adversarial import Adversarial
from tfgad.data.sampling import batched, drawn

MEAN_IMAGES = 32_000  # at most, drawn at random, that the critic's mean is taken of


@keras.saving.register_keras_serializable("tfgad")
class WGAN(Adversarial):
    """Generator G and critic D. D alone judges: A_D(x) = E[D(normal)] - D(x).

    D maximises E[D(x)] - E[D(G(z))] (eq. 3). That is a Wasserstein distance as long as D's slope
    is bounded; algorithm 1 clips D's weights, by the constraint that its layers carry
    (`networks.layers.Clip`).

    Args:
        **kwargs: the networks `generator` and `critic`, and what `Adversarial` takes.
    """

    def __init__(self, *, d_steps=5, **kwargs):
        super().__init__(d_steps=d_steps, **kwargs)
        self.normal_logit = self.add_weight((), "zeros", trainable=False, name="normal_logit")

    def critic_loss(self, real, fake):
        """E[D(G(z))] - E[D(x)]."""
        return losses.wasserstein_critic_loss(real, fake)

    def generator_loss(self, fake):
        """-E[D(G(z))]."""
        return losses.wasserstein_generator_loss(fake)

    def critic_error(self, seen):
        """A_D(x)."""
        return self.normal_logit - seen["logit"]

    def adapt(self, normals, size):
        """Takes the mean of D over normal images, and what `Detector.adapt` takes."""
        super().adapt(normals, size)
        self.normal_logit.assign(0.0)
        some = drawn(normals, size, MEAN_IMAGES, self.seed)
        distances = [
            tf.reduce_mean(self.error_maps(images, ("critic",)), axis=[1, 2, 3]).numpy()
            for images in batched(some)
        ]
        self.normal_logit.assign(-np.concatenate(distances).mean(dtype="float64"))
