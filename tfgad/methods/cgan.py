"""Conditional GAN (Mirza, Osindero 2014), its discriminator by projection (Miyato, Koyama 2018)."""

import keras
import numpy as np
import tensorflow as tf

from tfgad.errors import UsageError
from tfgad.methods.gan import GAN
from tfgad.networks import precision


@keras.saving.register_keras_serializable("tfgad")
class CGAN(GAN):
    """Generator G(z, y) and discriminator D(x, y), given the class y of an image.

    The objective is `GAN`'s, of D(x, y) and D(G(z, y), y) (Mirza, Osindero, eq. 2). Generated
    images take the labels of the batch that they stand against: real and generated ones then have
    the same classes, so that D cannot tell them apart by how often a class occurs, and G learns
    p(x | y) whatever p(y) is.

    An image is normal if it looks real as some class: the score is 1 - max_y D(x, y).

    Args:
        **kwargs: the networks `generator`, of codes and labels, and `critic`, whose `logits`
            `[B, K]` are of all K classes (`networks/conditional.py`), and what `GAN` takes.
    """

    labelled = True

    @property
    def classes(self) -> int:
        """K, how many classes there are."""
        return self.critic.output["logits"].shape[-1]

    def _generated(self, z, y):
        return self.generator([z, y], training=True)

    def _logit(self, x, y):
        return tf.gather(self.critic(x, training=True)["logits"], y, batch_dims=1)

    def critic_error(self, seen):
        """1 - max_y D(x, y)."""
        return tf.sigmoid(-tf.reduce_max(seen["logits"], axis=-1))

    @precision.scoring()
    def generate(self, labels, seed: int = 0):
        """Draws an image of each label: `[B, h, w, C]` in [-1, 1].

        Args:
            labels: whole numbers from 0 to `classes - 1`, `[B]`.
            seed: of the latent codes.

        Raises:
            UsageError: a label that no class has.
        """
        y = np.asarray(labels, "int32")
        if y.size and not 0 <= y.min() <= y.max() < self.classes:
            wrong = y.min() if y.min() < 0 else y.max()
            raise UsageError("label", wrong, "no class has", f"give 0 to {self.classes - 1}")
        z = tf.random.stateless_normal([len(y), self.latent_dim], [seed, 0])
        return self.generator([z, tf.constant(y)], training=False)

    def sample(self, count: int, seed: int = 0):
        """Draws images of all classes in turn: `[count, h, w, C]` in [-1, 1]."""
        return self.generate(np.arange(count) % self.classes, seed)
