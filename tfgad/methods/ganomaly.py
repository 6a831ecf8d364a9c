"""GANomaly (Akcay et al., ACCV 2018): encode, decode, encode again, and compare the two codes.

An autoencoder G = (G_E, G_D), a second encoder E and a discriminator D with features f. G and E
minimize (eq. 1 to 4)

    L_adv = ‖f(x) - f(G(x))‖²      L_con = ‖x - G(x)‖₁      L_enc = ‖G_E(x) - E(G(x))‖²
    L     = w_adv L_adv + w_con L_con + w_enc L_enc,  w = 1, 50, 1

while D learns to tell x from G(x). The anomaly score is the distance of the two codes (eq. 5):

    A(x) = ‖G_E(x) - E(G(x))‖₁

The map comes from the reconstruction G(x).

Differences: each norm is a mean over its elements, as in the authors' code; the paper writes L_adv
and L_enc without the square, the code has it. The authors' code scores by the mean square of the
codes' difference, the paper by the L1 norm, which is followed here.

Read beside it: `core/losses.py`; `networks/convolutional.py`. For the score also
`scores/error_maps.py`.
"""

from __future__ import annotations

from typing import Annotated, Any

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.detector import features_of
from tfgad.core.settings import BatchSize, Score, Stride, Window
from tfgad.networks import convolutional
from tfgad.networks.layers import Adam
from tfgad.scores.error_maps import feature_errors, pixel_errors


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of GANomaly; `tfgad list ganomaly` prints them."""

    window: Window = 32
    # On weave:twill codes of 16, 32 and 64 numbers give the paper's score an AUROC of 0.84, 0.96
    # and 0.999.
    latent_dim: Annotated[int, Field(ge=1, description="length of the latent code z")] = 64
    width: Annotated[int, Field(ge=1, description="channels of the encoders' first layer")] = 32
    batch_size: BatchSize = 64
    steps: Annotated[int, Field(ge=1, description="training steps, one update of G, E and D")] = (
        1500
    )
    learning_rate: Annotated[float, Field(gt=0, description="of both Adam optimizers")] = 2e-4
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.5
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.999
    adversarial_weight: Annotated[float, Field(ge=0, description="w_adv")] = 1.0
    contextual_weight: Annotated[float, Field(ge=0, description="w_con")] = 50.0
    encoder_weight: Annotated[float, Field(ge=0, description="w_enc")] = 1.0
    r1: Annotated[
        float, Field(ge=0, description="weight of the R1 penalty on D, which then has no BN")
    ] = 0.0
    score: Score = "auto"
    stride: Stride = 16


# Section 4: images of 32x32, z of 100, Adam at 2e-4, weights 1, 50, 1; batch and width of the
# authors' code, 15 epochs of about 50,000 images.
PAPER = Config(window=0, latent_dim=100, width=64, steps=12_000, score="latent", stride=8)


@register(
    "ganomaly",
    "encode, decode, encode again; the one to start with (Akcay et al. 2018)",
    Config,
    PAPER,
)
class GANomaly(Detector):
    """Autoencoder (G_E, G_D), second encoder E and discriminator D.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    scores = {"latent": ("latent",), "residual": ("residual",)}

    def __init__(self, config: Config, image_shape: tuple[int, int, int], **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        latent_dim, width = config.latent_dim, config.width
        self.encoder = convolutional.encoder(image_shape, latent_dim, width)
        self.decoder = convolutional.generator(image_shape, latent_dim, width, name="decoder")
        self.second_encoder = convolutional.encoder(
            image_shape, latent_dim, width, name="second_encoder"
        )
        # R1 is a penalty per image. Batch normalisation would mix the images of a batch in its
        # gradient (Gulrajani et al. 2017, section 4).
        self.critic = convolutional.critic(image_shape, width, normalise=not config.r1)
        self.terms = (("residual",), features_of(self.critic), ("latent",))
        self.code_dim = 2 * latent_dim

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam for G and E, one for D."""
        config = self.config
        return {
            "generator": Adam(config.learning_rate, config.beta_1, config.beta_2),
            "critic": Adam(config.learning_rate, config.beta_1, config.beta_2),
        }

    def networks_of(self, role: str) -> list[keras.Model]:
        """G_E, G_D and E are trained together."""
        generator = [self.encoder, self.decoder, self.second_encoder]
        return generator if role == "generator" else [self.critic]

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One update of G and E and one of D on float32 `[B, h, w, C]` in [-1, 1].

        Neither update changes what the loss of the other was computed from, so one forward pass
        serves both.
        """
        x, config = images, self.config
        with tf.GradientTape(persistent=True) as tape:
            z = self.encoder(x, training=True)
            generated = self.decoder(z, training=True)
            again = self.second_encoder(generated, training=True)
            real, fake = self.critic(x, training=True), self.critic(generated, training=True)

            adversarial = losses.mean_square(real["features"][-1], fake["features"][-1])
            contextual = losses.mean_absolute(x, generated)
            encoder = losses.mean_square(z, again)
            generator_loss = tf.reduce_mean(
                config.adversarial_weight * adversarial
                + config.contextual_weight * contextual
                + config.encoder_weight * encoder
            )
            critic_loss = losses.discriminator_loss(real["logit"], fake["logit"])
            total = critic_loss
            if config.r1:
                r1 = losses.r1_penalty(self.logit, x)
                total += config.r1 * r1
        self.minimize("generator", generator_loss, tape)
        self.minimize("critic", total, tape)

        logs = {
            "adversarial": tf.reduce_mean(adversarial),
            "contextual": tf.reduce_mean(contextual),
            "encoder": tf.reduce_mean(encoder),
            "critic": critic_loss,
        }
        return {**logs, "r1": r1} if config.r1 else logs

    def logit(self, images: tf.Tensor) -> tf.Tensor:
        """The logit of D(x) in training, `[B]`."""
        return self.critic(images, training=True)["logit"]

    def reconstruction(self, images: tf.Tensor) -> tf.Tensor:
        """G(x) = G_D(G_E(x))."""
        return self.decoder(self.encoder(images, training=False), training=False)

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Errors of the code when encoded again, of pixels, and of the features f.

        `latent` is A(x), a mean over the code. `code` is z = G_E(x), and how it changes when
        encoded again.
        """
        z = self.encoder(images, training=False)
        generated = self.decoder(z, training=False)
        again = self.second_encoder(generated, training=False)
        f_x = self.critic(images, training=False)["features"]
        f_generated = self.critic(generated, training=False)["features"]
        return {
            "latent": losses.mean_absolute(z, again),
            "residual": pixel_errors(images, generated),
            **feature_errors(f_x, f_generated, self.window),
            "code": tf.concat([z, again - z], axis=-1),
        }
