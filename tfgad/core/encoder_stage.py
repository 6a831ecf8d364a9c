"""The second stage of a GAN that inverts its generator by an encoder (Schlegl et al. 2019)."""

import tensorflow as tf

from tfgad.core import losses
from tfgad.core.adversarial import Adversarial
from tfgad.errors import UsageError, nearest

ENCODER_LATENT = 300  # use of random numbers
VARIANTS = ("ziz", "izi", "izi_f")


class EncoderStage(Adversarial):
    """A GAN that trains its encoder E once G and D, with features f, are at rest.

    Stage `gan` is the GAN's own. Stage `encoder` trains E alone, by one of (section 2.2, n pixels,
    n_d features, d latent dimensions)

        ziz     ‖E(G(z)) - z‖² / d
        izi     ‖x - G(E(x))‖² / n
        izi_f   ‖x - G(E(x))‖² / n + κ ‖f(x) - f(G(E(x)))‖² / n_d

    Args:
        encoding: the variant.
        kappa: κ.
        **kwargs: the network `encoder`, and what the GAN takes.
    """

    roles = {**Adversarial.roles, "encoder": ("encoder",)}
    stages = ("gan", "encoder")
    reconstructs = True

    def __init__(self, *, encoding="izi_f", kappa=1.0, **kwargs):
        super().__init__(**kwargs)
        if encoding not in VARIANTS:
            hint = nearest(encoding, VARIANTS)
            raise UsageError("encoding", encoding, "is not a way to train the encoder", hint)
        self.encoding, self.kappa = encoding, kappa

    @property
    def batches_per_step(self):
        """The encoder takes one batch a step."""
        return super().batches_per_step if self.stage == "gan" else 1

    def train_step(self, data):
        """One step of the stage that `begin` turned to."""
        if self.stage == "gan":
            return super().train_step(data)
        with tf.GradientTape() as tape:
            loss = self._encoder_loss(data)
        self.minimize("encoder", tape, loss)
        self.step.assign_add(1)
        return {"encoder": loss}

    def _encoder_loss(self, x):
        if self.encoding == "ziz":
            z = self.noise([tf.shape(x)[0], self.latent_dim], ENCODER_LATENT)
            encoded = self.encoder(self.generator(z, training=False), training=True)
            return tf.reduce_mean(losses.mean_square(encoded, z))
        generated = self.generator(self.encoder(x, training=True), training=False)
        loss = losses.mean_square(x, generated)
        if self.encoding == "izi_f":
            loss += self.kappa * losses.mean_square(self._f(x)[-1], self._f(generated)[-1])
        return tf.reduce_mean(loss)

    def _f(self, x):
        return self.critic(x, training=False)["features"]

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "encoding": self.encoding, "kappa": self.kappa}
