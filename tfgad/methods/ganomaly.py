"""GANomaly (Akcay et al., ACCV 2018): encode, decode, encode again, and compare the two codes.

An autoencoder G = (G_E, G_D), a second encoder E and a discriminator D with features f. G and E
minimize (eq. 1 to 4)

    L_adv = ‖f(x) - f(G(x))‖²      L_con = ‖x - G(x)‖₁      L_enc = ‖G_E(x) - E(G(x))‖²
    L     = w_adv L_adv + w_con L_con + w_enc L_enc,  w = 1, 50, 1

while D learns to tell x from G(x). The anomaly score is the distance of the two codes (eq. 5):

    A(x) = ‖G_E(x) - E(G(x))‖₁

It is one number per window; maps within a window come from the reconstruction G(x), by the scores
`residual`, `cues` and `density` (`scores/`). By default (`score=auto`) a model scores by one of the
last two; `ganomaly/paper` and `score=latent` score by A(x).

`ganomaly` has small DCGAN-like networks. `ganomaly/paper` has those of the authors' public code
(`lib/networks.py`): convolutions alone, no biases, N(0, 0.02) weights, PyTorch's constants of batch
normalisation and Adam; and D starts anew when its loss falls below 1e-5. Where the two differ:

- norms are means over elements, as in the code: 1, 50, 1 are the weights of means;
- L_adv and L_enc are squared in the code, which is followed, not in the paper;
- the paper scores by the L1 norm (eq. 5), which is followed as the definition, the code by the
  mean square; and the code in training mode, where an image's score depends on its batch;
- D's averages of batch normalisation move once for real and once for generated images per step, in
  the code twice for each.

Read beside it: `core/losses.py`; the file of `networks/` that the setting `networks` names. For the
score also `scores/error_maps.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.detector import features_of
from tfgad.core.settings import BatchSize, LatentDim, Score, StepCount, Stride, Width, Window
from tfgad.networks import convolutional, fully_convolutional
from tfgad.networks.layers import Adam
from tfgad.scores.error_maps import feature_errors, pixel_errors


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of GANomaly; `tfgad list ganomaly` prints them."""

    window: Window = 32
    networks: Annotated[
        Literal["convolutional", "fully_convolutional"],
        Field(description="convolutions and dense layers, or the authors' without any dense layer"),
    ] = "convolutional"
    # On weave:twill codes of 16, 32 and 64 numbers give the paper's score an AUROC of 0.84, 0.96
    # and 0.999.
    latent_dim: LatentDim = 64
    width: Annotated[Width, Field(description="channels of the encoders' first layer")] = 32
    batch_size: BatchSize = 64
    steps: Annotated[StepCount, Field(description="training steps, one update of each")] = 1500
    learning_rate: Annotated[float, Field(gt=0, description="of both Adam optimizers")] = 2e-4
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.5
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.999
    epsilon: Annotated[float, Field(gt=0, description="ε of both Adam optimizers")] = 1e-7
    adversarial_weight: Annotated[float, Field(ge=0, description="w_adv")] = 1.0
    contextual_weight: Annotated[float, Field(ge=0, description="w_con")] = 50.0
    encoder_weight: Annotated[float, Field(ge=0, description="w_enc")] = 1.0
    r1: Annotated[
        float, Field(ge=0, description="weight of the R1 penalty on D, which then has no BN")
    ] = 0.0
    reinitialize_below: Annotated[
        float, Field(ge=0, description="loss of D below which its weights start anew; 0: never")
    ] = 0.0
    score: Score = "auto"
    stride: Stride = 16


# The authors' options.py: images of 32x32, nz, ngf, batchsize, lr, beta1, weights 1, 50, 1 (section
# 4) and 15 epochs, of about 50,000 images. ε of PyTorch's Adam; optimize_params of lib/model.py.
PAPER = Config(
    window=0,
    networks="fully_convolutional",
    latent_dim=100,
    width=64,
    steps=12_000,
    epsilon=1e-8,
    reinitialize_below=1e-5,
    score="latent",
    stride=8,
)

NETWORKS = {"convolutional": convolutional, "fully_convolutional": fully_convolutional}


@register(
    "ganomaly",
    "encode, decode, encode again; start with it (Akcay et al. 2018)",
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
        latent_dim, width, networks = config.latent_dim, config.width, NETWORKS[config.networks]
        self.encoder = networks.encoder(image_shape, latent_dim, width)
        self.decoder = networks.generator(image_shape, latent_dim, width, name="decoder")
        self.second_encoder = networks.encoder(image_shape, latent_dim, width, "second_encoder")
        # R1 is a penalty per image, which batch normalisation would mix (Gulrajani et al. 2017).
        self.critic = networks.critic(image_shape, width, normalise=not config.r1)
        self.terms = (("residual",), features_of(self.critic), ("latent",))
        self.code_dim = 2 * latent_dim

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam for G and E, one for D."""
        config = self.config
        constants = config.learning_rate, config.beta_1, config.beta_2, config.epsilon
        return {"generator": Adam(*constants), "critic": Adam(*constants)}

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
        if config.reinitialize_below:
            self.reinitialize_critic(critic_loss)

        logs = {
            "adversarial": tf.reduce_mean(adversarial),
            "contextual": tf.reduce_mean(contextual),
            "encoder": tf.reduce_mean(encoder),
            "critic": critic_loss,
        }
        return {**logs, "r1": r1} if config.r1 else logs

    def reinitialize_critic(self, critic_loss: tf.Tensor) -> None:
        """Gives D new initial weights if its loss is too small; Adam's averages stay."""
        loss = tf.distribute.get_replica_context().all_reduce("mean", critic_loss)
        needed = loss < self.config.reinitialize_below
        seed = tf.stack([tf.cast(self.seed, tf.int64), tf.cast(self.step, tf.int64)])
        initial = fully_convolutional.initial_weights(self.critic, seed)
        for weight, value in zip(self.critic.trainable_weights, initial, strict=True):
            weight.assign(tf.where(needed, value, weight))

    def logit(self, images: tf.Tensor) -> tf.Tensor:
        """The logit of D(x) in training, `[B]`."""
        return self.critic(images, training=True)["logit"]

    def reconstruction(self, images: tf.Tensor) -> tf.Tensor:
        """G(x) = G_D(G_E(x))."""
        return self.decoder(self.encoder(images, training=False), training=False)

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Errors of the code when encoded again, of pixels, and of the features f.

        `latent` is A(x), a mean; `code` is z = G_E(x), and how it changes when encoded again.
        """
        return self.errors_and_reconstruction(images)[0]

    def errors_and_reconstruction(
        self, images: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """`errors`, and G(x) from the same pass."""
        z = self.encoder(images, training=False)
        generated = self.decoder(z, training=False)
        again = self.second_encoder(generated, training=False)
        f_x = self.critic(images, training=False)["features"]
        f_generated = self.critic(generated, training=False)["features"]
        errors = {
            "latent": losses.mean_absolute(z, again),
            "residual": pixel_errors(images, generated),
            **feature_errors(f_x, f_generated, self.window),
            "code": tf.concat([z, again - z], axis=-1),
        }
        return errors, generated
