"""f-AnoGAN (Schlegl et al. 2019): a WGAN-GP, then an encoder that inverts its generator."""

import keras
import tensorflow as tf

from tfgad.core import losses
from tfgad.core.encoder_stage import EncoderStage
from tfgad.methods.wgan_gp import WGANGP
from tfgad.scores.error_maps import feature_errors, over_window, pixel_errors


@keras.saving.register_keras_serializable("tfgad")
class FAnoGAN(EncoderStage, WGANGP):
    """Generator G, critic D with features f, encoder E.

    Stage `gan` trains G and D as WGAN-GP does, stage `encoder` trains E (`EncoderStage` has its
    three losses). The score is how far an image is from what they make of it (eq. 6):

        A(x) = ‖x - G(E(x))‖² / n + κ ‖f(x) - f(G(E(x)))‖² / n_d

    Beside it: `latent`, ‖E(x) - E(G(E(x)))‖² / d; `latent_feature`, with the second term of A(x);
    `critic`, A_D of `WGAN`.

    Args:
        **kwargs: the networks `generator`, `critic` and `encoder`, and what `EncoderStage` and
            `WGANGP` take.
    """

    scores = {
        "residual": ("residual", "feature"),
        "latent": ("latent",),
        "latent_feature": ("latent", "feature"),
        "critic": ("critic",),
    }

    def __init__(self, *, score="residual", **kwargs):
        super().__init__(score=score, **kwargs)

    def reconstruction(self, images):
        """G(E(x))."""
        return self.generator(self.encoder(images, training=False), training=False)

    def errors(self, images):
        """Of pixels, of features f, of the latent code encoded again, and the critic's."""
        z = self.encoder(images, training=False)
        generated = self.generator(z, training=False)
        again = self.encoder(generated, training=False)
        seen = self.critic(images, training=False)
        features = feature_errors(seen["features"], self._f(generated), self.window)
        return {
            "residual": pixel_errors(images, generated),
            "latent": over_window(losses.mean_square(z, again), self.window),
            "feature": self.kappa * features[f"features_{len(features) - 1}"],
            **features,
            "critic": over_window(self.critic_error(seen), self.window),
            "code": tf.concat([z, again - z], axis=-1),
        }

    @property
    def code_dim(self):
        """The code, and how it changes when encoded again."""
        return 2 * self.generator.input_shape[-1]
