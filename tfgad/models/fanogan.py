"""f-AnoGAN (Schlegl et al. 2019): a WGAN-GP, then an encoder that inverts its generator."""

import keras
import tensorflow as tf

from tfgad import losses
from tfgad.errors import UsageError, nearest
from tfgad.models.error_maps import feature_errors, over_window, pixel_errors
from tfgad.models.wgan_gp import WGANGP

ENCODER_LATENT = 300  # use of random numbers
VARIANTS = ("ziz", "izi", "izi_f")


@keras.saving.register_keras_serializable("tfgad")
class FAnoGAN(WGANGP):
    """Generator G, critic D with features f, encoder E.

    Stage `gan` trains G and D as WGAN-GP does. Stage `encoder` trains E alone, by one of (section
    2.2, n pixels, n_d features, d latent dimensions)

        ziz     ‖E(G(z)) - z‖² / d
        izi     ‖x - G(E(x))‖² / n
        izi_f   ‖x - G(E(x))‖² / n + κ ‖f(x) - f(G(E(x)))‖² / n_d

    Args:
        encoding: the variant.
        kappa: κ.
        **kwargs: the networks `generator`, `critic` and `encoder`, and what `WGANGP` takes.
    """

    roles = {**WGANGP.roles, "encoder": ("encoder",)}
    stages = ("gan", "encoder")
    scores = {
        "residual": ("residual", "feature"),  # eq. 6: the paper's, the loss of izi_f
        "latent": ("latent",),
        "latent_feature": ("latent", "feature"),
        "critic": ("critic",),
    }
    reconstructs = True

    def __init__(self, *, encoding="izi_f", kappa=1.0, score="residual", **kwargs):
        super().__init__(score=score, **kwargs)
        if encoding not in VARIANTS:
            mend = nearest(encoding, VARIANTS)
            raise UsageError("encoding", encoding, "is not a way to train the encoder", mend)
        self.encoding, self.kappa = encoding, kappa

    @property
    def batches_a_step(self):
        """The encoder takes one batch a step."""
        return super().batches_a_step if self.stage == "gan" else 1

    def train_step(self, images):
        """One step of the stage that `begin` turned to."""
        if self.stage == "gan":
            return super().train_step(images)
        with tf.GradientTape() as tape:
            loss = self._encoder_loss(images)
        self.minimise("encoder", tape, loss)
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

    def reconstruction(self, images):
        """G(E(x))."""
        return self.generator(self.encoder(images, training=False), training=False)

    def errors(self, images):
        """Of pixels, of features f, of the latent code encoded again, and the critic's."""
        z = self.encoder(images, training=False)
        generated = self.generator(z, training=False)
        again = self.encoder(generated, training=False)
        features = feature_errors(self._f(images), self._f(generated), self.window)
        return {
            "residual": pixel_errors(images, generated),
            "latent": over_window(losses.mean_square(z, again), self.window),
            "feature": self.kappa * features[f"features_{len(features) - 1}"],
            **features,
            **super().errors(images),
        }

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "encoding": self.encoding, "kappa": self.kappa}
