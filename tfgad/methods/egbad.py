"""EGBAD (Zenati et al., arXiv 1802.06222): a BiGAN, whose encoder replaces the search of AnoGAN.

Generator G, encoder E and discriminator D(x, z) are trained together on normal images. D learns to
tell the pairs (x, E(x)) from (G(z), z), while E and G learn to make them alike:

    discriminator   L_D = -½ (E_x[log D(x, E(x))] + E_z[log(1 - D(G(z), z))])
    generator       L_G = -E_z[log D(G(z), z)]
    encoder         L_E = -E_x[log(1 - D(x, E(x)))]

E then is an inverse of G, and the anomaly score takes one pass through the networks:

    A(x) = (1 - λ) Σ|x - G(E(x))| + λ L(x),  λ = 0.1

where L(x) is, with f the last hidden layer of D, one of

    feature         L(x) = Σ|f(x, E(x)) - f(G(E(x)), E(x))|
    cross_entropy   L(x) = -log D(x, E(x))

The map of the score is that of the residual |x - G(E(x))|.

Like the authors' code, scoring takes the exponential moving averages of the weights. Differences:
the paper calls the weight of the residual λ, here λ is the weight of L, as in the code. For
`cross_entropy` the code takes D(G(E(x)), E(x)) in place of the paper's D(x, E(x)). The code updates
G and E on another batch than D; here one batch serves both. L_D has the factor ½ of
`core/losses.py`, which Adam does not see.

Read beside it: `core/losses.py`. For the score also `scores/error_maps.py`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import keras
import tensorflow as tf
from keras import layers
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.batches import sample
from tfgad.core.detector import features_of
from tfgad.core.settings import BatchSize, LatentDim, Score, StepCount, Stride, Width, Window
from tfgad.errors import UsageError
from tfgad.networks.convolutional import check_image
from tfgad.networks.layers import Adam, BatchNormalization, Dropout
from tfgad.scores.error_maps import feature_errors, pixel_errors

Shape = tuple[int, int, int]  # height, width, channels

SLOPE = 0.1  # of the leaky rectifiers
CELL = 4  # pixels of a side that the networks take together: two halvings


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of EGBAD; `tfgad list egbad` prints them."""

    window: Window = 32
    latent_dim: LatentDim = 64
    width: Annotated[Width, Field(description="channels of E's first layer")] = 16
    dropout: Annotated[float, Field(ge=0, lt=1, description="share of D's units left out")] = 0.5
    batch_size: BatchSize = 64
    steps: Annotated[StepCount, Field(description="training steps, one update of D, G and E")] = (
        1500
    )
    learning_rate: Annotated[float, Field(gt=0, description="of the three Adam optimizers")] = 2e-4
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of the Adam optimizers")] = 0.5
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of the Adam optimizers")] = 0.999
    epsilon: Annotated[float, Field(gt=0, description="ε of the Adam optimizers")] = 1e-7
    ema: Annotated[
        float, Field(ge=0, lt=1, description="decay of the averaged weights; 0 averages nothing")
    ] = 0.99
    discriminator_weight: Annotated[float, Field(ge=0, le=1, description="λ")] = 0.1
    score: Score = "auto"
    stride: Stride = 16


# MNIST in the paper's appendix and the authors' code: Adam at 1e-5, beta1 0.5, batches of 100, z of
# 200, λ of 0.1 and averages of 0.999; 100 epochs of about 50,000 images. ε is TensorFlow 1's.
PAPER = Config(
    window=0,
    latent_dim=200,
    width=32,
    batch_size=100,
    steps=50_000,
    learning_rate=1e-5,
    epsilon=1e-8,
    ema=0.999,
    score="feature",
    stride=8,
)


def encoder(image_shape: Shape, latent_dim: int, width: int, name: str = "encoder") -> keras.Model:
    """Images `[B, h, w, C]` to latent codes `[B, latent_dim]`, unbounded."""
    images = keras.Input(image_shape, name="images")
    x = layers.Conv2D(width, 3, padding="same", kernel_initializer=_normal())(images)
    for filters in (2 * width, 4 * width):
        x = layers.Conv2D(filters, 3, 2, "same", kernel_initializer=_normal())(x)
        x = layers.LeakyReLU(SLOPE)(BatchNormalization()(x))
    x = layers.Flatten()(x)
    latent = layers.Dense(latent_dim, kernel_initializer=_normal(), dtype="float32")(x)
    return keras.Model(images, latent, name=name)


def generator(
    image_shape: Shape, latent_dim: int, width: int, name: str = "generator"
) -> keras.Model:
    """Latent codes `[B, latent_dim]` to images `[B, h, w, C]` in [-1, 1]."""
    height, breadth, channels = image_shape
    start = (height // CELL, breadth // CELL, 4 * width)
    x = latent = keras.Input((latent_dim,), name="latent")
    for units in (32 * width, math.prod(start)):
        x = layers.Dense(units, kernel_initializer=_normal())(x)
        x = layers.ReLU()(BatchNormalization()(x))
    x = layers.Reshape(start)(x)
    x = layers.Conv2DTranspose(2 * width, 4, 2, "same", kernel_initializer=_normal())(x)
    x = layers.ReLU()(BatchNormalization()(x))
    x = layers.Conv2DTranspose(channels, 4, 2, "same", kernel_initializer=_normal())(x)
    images = layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model(latent, images, name=name)


def critic(
    image_shape: Shape, latent_dim: int, width: int, dropout: float, seed: int, name: str = "critic"
) -> keras.Model:
    """Pairs of images `[B, h, w, C]` and codes `[B, latent_dim]` to a dict.

    `logit` `[B]` is unbounded, `features` are the two layers that see the image alone,
    `[B, h', w', c]` each, and `joint` `[B, 32 width]` is f, the last hidden layer.
    """
    x = images = keras.Input(image_shape, name="images")
    z = latent = keras.Input((latent_dim,), name="latent")
    features = []
    for level in range(2):
        x = layers.Conv2D(2 * width, 4, 2, "same", kernel_initializer=_normal())(x)
        x = layers.LeakyReLU(SLOPE)(BatchNormalization()(x) if level else x)
        features.append(layers.Activation("linear", dtype="float32")(x))
        x = Dropout(dropout, seed=seed + level)(x)
    z = layers.LeakyReLU(SLOPE)(layers.Dense(16 * width, kernel_initializer=_normal())(z))
    z = Dropout(dropout, seed=seed + 2)(z)
    y = layers.Concatenate()([layers.Flatten()(x), z])
    y = layers.LeakyReLU(SLOPE)(layers.Dense(32 * width, kernel_initializer=_normal())(y))
    joint = layers.Activation("linear", dtype="float32")(Dropout(dropout, seed=seed + 3)(y))
    logit = layers.Dense(1, kernel_initializer=_normal(), dtype="float32")(joint)
    logit = layers.Reshape((), dtype="float32", name="logit")(logit)
    outputs = {"logit": logit, "features": features, "joint": joint}
    return keras.Model([images, latent], outputs, name=name)


def _normal() -> keras.Initializer:
    """First weights N(0, 0.02). Each layer needs an initializer of its own: one draws only once."""
    return keras.initializers.RandomNormal(stddev=0.02)


@register(
    "egbad", "a BiGAN that encodes, generates and compares (Zenati et al. 2018)", Config, PAPER
)
class EGBAD(Detector):
    """Generator G, encoder E and discriminator D of pairs, and the averages of their weights.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    scores = {
        "feature": ("pixels", "feature"),
        "cross_entropy": ("pixels", "cross_entropy"),
        "residual": ("residual",),
    }

    def __init__(self, config: Config, image_shape: Shape, **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        check_image(image_shape)
        height, breadth, _ = image_shape
        if height % CELL or breadth % CELL:
            hint = f"give a window whose sides are multiples of {CELL}"
            raise UsageError("window", f"{height}x{breadth}", "cannot be halved twice", hint)
        of_codes = (image_shape, config.latent_dim, config.width)
        of_pairs = (*of_codes, config.dropout, self.seed)
        self.encoder, self.mean_encoder = encoder(*of_codes), encoder(*of_codes)
        self.generator, self.mean_generator = generator(*of_codes), generator(*of_codes)
        self.critic, self.mean_critic = critic(*of_pairs), critic(*of_pairs)
        for mean, network in self.averages():
            mean.trainable = False
            mean.set_weights(network.get_weights())
        self.terms = (("residual",), features_of(self.critic), ("feature",))
        self.code_dim = config.latent_dim

    def averages(self) -> list[tuple[keras.Model, keras.Model]]:
        """The networks that score, each with the one whose weights it averages."""
        return [
            (self.mean_encoder, self.encoder),
            (self.mean_generator, self.generator),
            (self.mean_critic, self.critic),
        ]

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam per network."""
        config = self.config
        constants = config.learning_rate, config.beta_1, config.beta_2, config.epsilon
        return {role: Adam(*constants) for role in ("critic", "generator", "encoder")}

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One update of D, then one of G and of E, on float32 `[B, h, w, C]` in [-1, 1]."""
        x, shape = images, (tf.shape(images)[0], self.config.latent_dim)
        z = self.random_normal(shape, "critic")
        generated, encoded = self.generator(z, training=True), self.encoder(x, training=True)
        with tf.GradientTape() as tape:
            real, fake = self.logit(x, encoded), self.logit(generated, z)
            critic_loss = losses.discriminator_loss(real, fake)
        self.minimize("critic", critic_loss, tape)

        z = self.random_normal(shape, "generator")
        with tf.GradientTape(persistent=True) as tape:
            fake = self.logit(self.generator(z, training=True), z)
            generator_loss = losses.non_saturating_generator_loss(fake)
            real = self.logit(x, self.encoder(x, training=True))
            encoder_loss = losses.non_saturating_generator_loss(-real)  # label 0 for a real image
        self.minimize("generator", generator_loss, tape)
        self.minimize("encoder", encoder_loss, tape)

        self.average()
        return {"critic": critic_loss, "generator": generator_loss, "encoder": encoder_loss}

    def logit(self, images: tf.Tensor, latent: tf.Tensor) -> tf.Tensor:
        """The logit of D(x, z) in training, `[B]`: higher, the more like an image and its code."""
        return self.critic([images, latent], training=True)["logit"]

    def average(self) -> None:
        """Moves the averages to the weights. Statistics of batch normalisation are copied."""
        for mean, network in self.averages():
            for average, weight in zip(mean.weights, network.weights, strict=True):
                keep = self.config.ema if weight.trainable else 0.0
                average.assign(keep * average + (1.0 - keep) * weight)

    def reconstruction(self, images: tf.Tensor) -> tf.Tensor:
        """G(E(x)), by the averaged weights."""
        return self.mean_generator(self.mean_encoder(images, training=False), training=False)

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The terms of A(x), with their weights, and errors of G(E(x)).

        The mean of the map `pixels` is the first term, a sum over the window. `residual` and
        `features_...` are mean squared errors, `code` is E(x).
        """
        z = self.mean_encoder(images, training=False)
        generated = self.mean_generator(z, training=False)
        of_x = self.mean_critic([images, z], training=False)
        of_generated = self.mean_critic([generated, z], training=False)
        height, breadth, _ = self.window
        weight = self.config.discriminator_weight
        pixels = tf.reduce_sum(tf.abs(images - generated), axis=-1)
        feature = tf.reduce_sum(tf.abs(of_x["joint"] - of_generated["joint"]), axis=-1)
        return {
            "pixels": (1.0 - weight) * height * breadth * pixels,
            "feature": weight * feature,
            "cross_entropy": weight * tf.nn.softplus(-of_x["logit"]),
            "residual": pixel_errors(images, generated),
            **feature_errors(of_x["features"], of_generated["features"], self.window),
            "code": z,
        }

    def sample(self, count: int, seed: int = 0) -> tf.Tensor:
        """Draws images from G: `[count, h, w, C]` in [-1, 1]."""
        return sample(self.mean_generator, self.config.latent_dim, count, seed)
