"""WGAN-GP (Gulrajani et al. 2017): a critic that measures the distance from normal images."""

import keras
import numpy as np
import tensorflow as tf

from tfgad import losses
from tfgad.errors import UsageError
from tfgad.models.detector import Detector, batched, spread
from tfgad.models.error_maps import over_window

MEAN_IMAGES = 32_000  # normal images that the critic's mean is taken of, or all if there are fewer

# Uses of random numbers. Critic update t draws with CRITIC_LATENT + t and EPSILON + t.
GENERATOR_LATENT, CRITIC_LATENT, EPSILON = 0, 100, 200


@keras.saving.register_keras_serializable("tfgad")
class WGANGP(Detector):
    """Generator G and critic D. D alone judges: A_D(x) = E[D(normal)] - D(x).

    A training step is one iteration of algorithm 1: it takes `critic_steps` batches stacked into
    one, updates the critic on each, then the generator once.

    Args:
        critic_steps: n_critic of algorithm 1.
        penalty: λ, the weight of the gradient penalty.
        **kwargs: the networks `generator` and `critic` (without normalisation), and what
            `Detector` takes.
    """

    roles = {"critic": ("critic",), "generator": ("generator",)}
    scores = {"critic": ("critic",)}

    def __init__(self, *, critic_steps=5, penalty=10.0, score="critic", **kwargs):
        super().__init__(score=score, **kwargs)
        self.critic_steps, self.penalty = critic_steps, penalty
        self.latent_dim = self.generator.input_shape[-1]
        self.normal_logit = self.add_weight((), "zeros", trainable=False, name="normal_logit")

    @property
    def batches_a_step(self):
        """One batch for each update of the critic."""
        return self.critic_steps

    def train_step(self, images):
        """One iteration of algorithm 1 on `[critic_steps · B, h, w, C]`."""
        for t, x in enumerate(self._critic_batches(images)):
            critic_loss, penalty = self._update_critic(x, t)
        generator_loss = self._update_generator(tf.shape(x)[0])
        self.step.assign_add(1)
        return {"critic": critic_loss, "penalty": penalty, "generator": generator_loss}

    def _critic_batches(self, images):
        size = images.shape[0]
        if size is None or size % self.critic_steps:
            mend = (
                f"give a fixed multiple of critic_steps={self.critic_steps} (drop_remainder=True)"
            )
            raise UsageError("batch size", size, "cannot be shared among the critic's steps", mend)
        return tf.split(images, self.critic_steps)

    def _update_critic(self, x, t):
        size = tf.shape(x)[0]
        z = self.noise([size, self.latent_dim], CRITIC_LATENT + t)
        epsilon = self.noise([size, 1, 1, 1], EPSILON + t, uniform=True)
        generated = self.generator(z, training=True)
        with tf.GradientTape() as tape:
            loss = losses.wasserstein_critic_loss(self._logit(x), self._logit(generated))
            penalty = losses.gradient_penalty(self._logit, x, generated, epsilon)
            total = loss + self.penalty * penalty
        self.minimise("critic", tape, total)
        return loss, penalty

    def _update_generator(self, size):
        z = self.noise([size, self.latent_dim], GENERATOR_LATENT)
        with tf.GradientTape() as tape:
            loss = losses.wasserstein_generator_loss(self._logit(self.generator(z, training=True)))
        self.minimise("generator", tape, loss)
        return loss

    def _logit(self, x):
        return self.critic(x, training=True)["logit"]

    def errors(self, images):
        """A_D of each window, the same over all of it: the critic does not say where."""
        logit = self.critic(images, training=False)["logit"]
        return {"critic": over_window(self.normal_logit - logit, self.window)}

    def adapt(self, normals, size):
        """Takes the mean of D over normal images, and what `Detector.adapt` takes."""
        super().adapt(normals, size)
        self.normal_logit.assign(0.0)
        distances = [
            tf.reduce_mean(self.error_maps(images, ("critic",)), axis=[1, 2, 3]).numpy()
            for images in batched(spread(normals, size, MEAN_IMAGES))
        ]
        self.normal_logit.assign(-np.concatenate(distances).mean(dtype="float64"))

    def sample(self, count: int, seed: int = 0):
        """Draws images from the generator: `[count, h, w, C]` in [-1, 1]."""
        z = tf.random.stateless_normal([count, self.latent_dim], [seed, 0])
        return self.generator(z, training=False)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "critic_steps": self.critic_steps, "penalty": self.penalty}
