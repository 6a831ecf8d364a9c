"""f-AnoGAN (Schlegl et al., Medical Image Analysis 54, 2019): a WGAN-GP, and an encoder into it.

First a WGAN-GP is trained on normal images (`wgan_gp.py`). Then G and D, with features f, are
fixed, and an encoder E learns to invert G, by one of (section 2.2; n pixels, n_d features, d latent
dimensions)

    ziz     L = ‖E(G(z)) - z‖² / d          izi     L = ‖x - G(E(x))‖² / n
    izi_f   L = ‖x - G(E(x))‖² / n + κ ‖f(x) - f(G(E(x)))‖² / n_d

The anomaly score A(x) is the loss of `izi_f` (eq. 6), whichever E was trained by. By default
(`score=auto`) a model scores by `density` or `cues` (`scores/`), which read more than its two
terms; `fanogan/paper` and `score=residual` score by A(x). Other scores that the paper compares:
`latent`, ‖E(x) - E(G(E(x)))‖² / d; `latent_feature`, that with the second term of A(x); `critic`,
A_D of `wgan_gp.py`.

`fanogan` has small DCGAN-like networks, and Adam trains E. `fanogan/paper` is the authors' public
code (`wgangp_64x64.py`, `z_encoding_izif.py`): WGAN-GP's residual networks for 64x64, an encoder
like D but with batch normalisation, f the output of D's last block, and TensorFlow 1's RMSprop
(decay 0.9, ε = 1e-10, averages that start at 1). κ = 1 and the 1/d of `latent` are the code's. It
trains the GAN for 7 epochs of a data set that is not public, `fanogan/paper` for 100,000 steps. The
code mirrors half of the training images, and moves the averages of G's batch normalisation in
updates of G alone; here no image is mirrored, and they move in all updates.

Read beside it: `wgan_gp.py`, the GAN; `core/losses.py`; the file of `networks/` that the setting
`networks` names. For the score also `scores/error_maps.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.batches import mean_logit, sample
from tfgad.core.detector import features_of
from tfgad.core.settings import (
    BatchSize,
    LatentDim,
    Score,
    Stride,
    TwoStages,
    Updates,
    Width,
    Window,
)
from tfgad.methods import wgan_gp
from tfgad.methods.wgan_gp import Networks
from tfgad.networks.layers import Adam, RMSprop
from tfgad.scores.error_maps import feature_errors, pixel_errors


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of f-AnoGAN; `tfgad list fanogan` prints them."""

    window: Window = 32
    networks: Networks = "convolutional"
    latent_dim: LatentDim = 64
    width: Annotated[Width, Field(description="channels of D's and E's first layer")] = 32
    batch_size: BatchSize = 64
    steps: Annotated[TwoStages, Field(description="steps of the GAN and of E")] = (600, 1500)
    learning_rate: Annotated[float, Field(gt=0, description="of the GAN's Adam optimizers")] = 1e-4
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of the GAN's Adam optimizers")] = 0.0
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of the GAN's Adam optimizers")] = 0.9
    epsilon: Annotated[float, Field(gt=0, description="ε of the GAN's Adam optimizers")] = 1e-7
    d_steps: Annotated[Updates, Field(description="updates of D per step")] = 5
    g_steps: Annotated[Updates, Field(description="updates of G per step")] = 1
    penalty: Annotated[float, Field(ge=0, description="λ of the gradient penalty")] = 10.0
    r1: Annotated[float, Field(ge=0, description="weight of the R1 penalty; 0 leaves it out")] = 0.0
    encoding: Annotated[Literal["ziz", "izi", "izi_f"], Field(description="loss of E")] = "izi_f"
    kappa: Annotated[float, Field(ge=0, description="κ, weight of the feature term")] = 1.0
    encoder_optimizer: Annotated[
        Literal["adam", "rmsprop", "adagrad"], Field(description="optimizer of E")
    ] = "adam"
    encoder_learning_rate: Annotated[float, Field(gt=0, description="of E's optimizer")] = 2e-4
    encoder_epsilon: Annotated[float, Field(gt=0, description="ε of E's optimizer")] = 1e-7
    score: Score = "auto"
    stride: Stride = 16

    def gan(self) -> wgan_gp.Config:
        """Returns the settings of the GAN."""
        return wgan_gp.Config(
            networks=self.networks,
            latent_dim=self.latent_dim,
            width=self.width,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            d_steps=self.d_steps,
            g_steps=self.g_steps,
            penalty=self.penalty,
            r1=self.r1,
        )


# Section 2.2 and the authors' code; ε of TensorFlow's AdamOptimizer and RMSPropOptimizer.
PAPER = Config(
    window=64,
    networks="resnet",
    latent_dim=128,
    width=64,
    steps=(100_000, 50_000),
    epsilon=1e-8,
    encoder_optimizer="rmsprop",
    encoder_learning_rate=5e-5,
    encoder_epsilon=1e-10,
    score="residual",
    stride=32,
)

OPTIMIZERS = {"adam": Adam, "rmsprop": RMSprop, "adagrad": keras.optimizers.Adagrad}


@register("fanogan", "WGAN-GP and an encoder into it (Schlegl et al. 2019)", Config, PAPER)
class FAnoGAN(Detector):
    """A WGAN-GP of generator G and critic D with features f, and an encoder E.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    stages = ("gan", "encoder")
    scores = {
        "residual": ("residual", "feature"),
        "latent": ("latent",),
        "latent_feature": ("latent", "feature"),
        "critic": ("critic",),
    }

    def __init__(self, config: Config, image_shape: tuple[int, int, int], **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        self.wgan_gp = wgan_gp.WGANGP(config.gan(), image_shape, seed=self.seed, stride=self.stride)
        self.generator, self.critic = self.wgan_gp.generator, self.wgan_gp.critic
        networks = wgan_gp.NETWORKS[config.networks]
        self.encoder = networks.encoder(image_shape, config.latent_dim, config.width)
        self.normal_logit = self.add_weight((), "zeros", trainable=False, name="normal_logit")
        # What the scores `cues` and `density` read.
        self.terms = (("residual",), features_of(self.critic), ("latent",))
        self.code_dim = 2 * config.latent_dim

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """Those of the GAN, and one for E."""
        optimizer, config = OPTIMIZERS[self.config.encoder_optimizer], self.config
        encoder = optimizer(config.encoder_learning_rate, epsilon=config.encoder_epsilon)
        return {**self.wgan_gp.optimizers(), "encoder": encoder}

    def assign_optimizers(self, optimizers: dict[str, keras.Optimizer]) -> None:
        """Takes the optimizers, and hands the GAN its own."""
        super().assign_optimizers(optimizers)
        self.wgan_gp.assign_optimizers({role: optimizers[role] for role in ("critic", "generator")})

    @property
    def images_per_step(self) -> int:
        """Those of a step of the GAN in the first stage, one batch in the second."""
        return self.wgan_gp.images_per_step if self.stage == "gan" else self.config.batch_size

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step of the present stage on float32 `[B, h, w, C]` in [-1, 1]."""
        if self.stage == "gan":
            return self.wgan_gp.train_step(images)

        config = self.config
        z = self.random_normal((tf.shape(images)[0], config.latent_dim), "encoder")
        with tf.GradientTape() as tape:
            if config.encoding == "ziz":
                encoded = self.encoder(self.generator(z, training=False), training=True)
                loss = losses.mean_square(encoded, z)
            else:
                encoded = self.encoder(images, training=True)
                generated = self.generator(encoded, training=False)
                loss = losses.mean_square(images, generated)
            if config.encoding == "izi_f":
                f_x, f_generated = self.features(images)[-1], self.features(generated)[-1]
                loss += config.kappa * losses.mean_square(f_x, f_generated)
            loss = tf.reduce_mean(loss)
        self.minimize("encoder", loss, tape)
        return {"encoder": loss}

    def features(self, images: tf.Tensor) -> list[tf.Tensor]:
        """The hidden layers of D, fine to coarse; the last is the paper's f(x)."""
        return self.critic(images, training=False)["features"]

    def reconstruction(self, images: tf.Tensor) -> tf.Tensor:
        """G(E(x))."""
        return self.generator(self.encoder(images, training=False), training=False)

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Errors of pixels, of features f, of the code when encoded again, and the critic's.

        `residual` and `feature` are the terms of A(x), `features_0` and following those of each
        hidden layer; `code` is z = E(x), and how it changes when encoded again.
        """
        z = self.encoder(images, training=False)
        generated = self.generator(z, training=False)
        again = self.encoder(generated, training=False)
        of_critic = self.critic(images, training=False)
        features = feature_errors(of_critic["features"], self.features(generated), self.window)
        return {
            "residual": pixel_errors(images, generated),
            "feature": self.config.kappa * features[f"features_{len(features) - 1}"],
            "latent": losses.mean_square(z, again),
            "critic": self.normal_logit - of_critic["logit"],
            **features,
            "code": tf.concat([z, again - z], axis=-1),
        }

    def adapt(self, normals: Any, size: int | None = None) -> None:
        """Estimates the mean of D over normal images, after `Detector.adapt`."""
        super().adapt(normals, size)
        self.normal_logit.assign(0.0)
        errors = self.traced_errors("critic")
        mean = mean_logit(lambda x: -errors(x), self.normal_images(normals), size, self.seed)
        self.normal_logit.assign(mean)

    def sample(self, count: int, seed: int = 0) -> tf.Tensor:
        """Draws images from G: `[count, h, w, C]` in [-1, 1]."""
        return sample(self.generator, self.config.latent_dim, count, seed)
