"""Skip-GANomaly (Akcay et al., IJCNN 2019, arXiv 1901.08954): a U-Net against a discriminator.

G reconstructs an image through a narrow code, with skip connections between its layers of the same
size. Discriminator D gives a logit and, one layer before it, features f. G minimizes

    L_adv = -E_x[log D(G(x))]      L_con = ‖x - G(x)‖₁      L_lat = ‖f(x) - f(G(x))‖²
    L     = w_adv L_adv + w_con L_con + w_lat L_lat,  w = 1, 40, 1

while D learns to tell x from G(x). The anomaly score compares images and features:

    A(x) = λ R(x) + (1 - λ) L(x),  λ = 0.9,  R(x) = ‖x - G(x)‖₁,  L(x) = ‖f(x) - f(G(x))‖²

The map is that of |x - G(x)|.

Differences: each norm is a mean over its elements, as in the authors' code. That code has w_con of
50, takes the mean square of x - G(x) for R and adds L_lat to the loss of D; here none of that is
done. It also means to start D anew when its loss falls below 1e-5, but the function is not there.
Paper and code scale the scores of a test set to [0, 1];
here an image's score does not depend on others. The last layer of D is dense. In the code it is a
3x3 convolution of a single pixel, of which all but the middle weights meet padding only.

Images need not be powers of 2. Sides are halved with rounding up until the shorter is 1; where a
side was odd, a row of the decoder is cut off.

Read beside it: `ganomaly.py`, its forerunner; `core/losses.py`. For the score also
`scores/error_maps.py`.
"""

from __future__ import annotations

from typing import Annotated, Any

import keras
import tensorflow as tf
from keras import layers
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.detector import features_of
from tfgad.core.settings import BatchSize, Score, StepCount, Stride, Width, Window
from tfgad.networks.convolutional import KERNEL, SLOPE, SMALLEST_SIDE, check_image
from tfgad.networks.layers import Adam, BatchNormalization
from tfgad.scores.error_maps import feature_errors, pixel_errors

Shape = tuple[int, int, int]  # height, width, channels

DEVIATION = 0.02  # of the first weights
WIDEST = 8  # times the width: 512 channels for a width of 64


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of Skip-GANomaly; `tfgad list skip_ganomaly` prints them."""

    window: Window = 32
    latent_dim: Annotated[int, Field(ge=1, le=65_536, description="length of D's features f")] = 64
    width: Annotated[Width, Field(description="channels of the first layers of G and D")] = 16
    batch_size: BatchSize = 64
    steps: Annotated[StepCount, Field(description="training steps, one update of G and D")] = 1500
    learning_rate: Annotated[float, Field(gt=0, description="of both Adam optimizers")] = 2e-4
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.5
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.999
    epsilon: Annotated[float, Field(gt=0, description="ε of both Adam optimizers")] = 1e-7
    adversarial_weight: Annotated[float, Field(ge=0, description="w_adv")] = 1.0
    contextual_weight: Annotated[float, Field(ge=0, description="w_con")] = 40.0
    latent_weight: Annotated[float, Field(ge=0, description="w_lat")] = 1.0
    reconstruction_weight: Annotated[float, Field(ge=0, le=1, description="λ of the score")] = 0.9
    score: Score = "auto"
    stride: Stride = 16


# Weights and λ of the paper. Images of 32x32, width, f of 100, batches of 64 and Adam at 2e-4 are
# those of the authors' code, as are 15 epochs, here of the 45,000 normal images of CIFAR-10. ε is
# that of PyTorch's Adam.
PAPER = Config(
    window=0, latent_dim=100, width=64, steps=10_500, epsilon=1e-8, score="loss", stride=8
)


def generator(image_shape: Shape, width: int, name: str = "generator") -> keras.Model:
    """Images `[B, h, w, C]` to reconstructions of the same shape in [-1, 1], by a U-Net."""
    images = keras.Input(image_shape, name="images")
    skips = [layers.Conv2D(width, KERNEL, 2, "same", use_bias=False, **_normal())(images)]
    while min(skips[-1].shape[1:3]) > 1:
        x = layers.LeakyReLU(SLOPE)(skips[-1])
        filters = width * min(2 ** len(skips), WIDEST)
        x = layers.Conv2D(filters, KERNEL, 2, "same", use_bias=False, **_normal())(x)
        skips.append(_normalized(x) if min(x.shape[1:3]) > 1 else x)
    x = skips.pop()
    while skips:
        skip = skips.pop()
        x = layers.ReLU()(x)
        x = layers.Conv2DTranspose(skip.shape[-1], KERNEL, 2, "same", use_bias=False, **_normal())(
            x
        )
        x = layers.Concatenate()([skip, _cut(_normalized(x), skip)])
    x = layers.Conv2DTranspose(image_shape[2], KERNEL, 2, "same", **_normal())(layers.ReLU()(x))
    x = layers.Activation("tanh", dtype="float32", name="reconstruction")(_cut(x, images))
    return keras.Model(images, x, name=name)


def critic(image_shape: Shape, latent_dim: int, width: int, name: str = "critic") -> keras.Model:
    """Images `[B, h, w, C]` to a dict: `logit` `[B]`, `latent` `[B, latent_dim]`, and `features`.

    `latent` is f, the last layer before the logit. `features` are the layers before that,
    `[B, h', w', c]` each, fine to coarse.
    """
    x = images = keras.Input(image_shape, name="images")
    features: list[Any] = []
    while min(x.shape[1:3]) > SMALLEST_SIDE:
        filters = width * 2 ** len(features)
        x = layers.Conv2D(filters, KERNEL, 2, "same", use_bias=False, **_normal())(x)
        x = layers.LeakyReLU(SLOPE)(_normalized(x) if features else x)
        features.append(layers.Activation("linear", dtype="float32")(x))
    latent = layers.Dense(latent_dim, use_bias=False, dtype="float32", **_normal())(
        layers.Flatten()(x)
    )
    logit = layers.Dense(1, use_bias=False, dtype="float32", **_normal())(latent)
    logit = layers.Reshape((), dtype="float32", name="logit")(logit)
    outputs = {"logit": logit, "latent": latent, "features": features}
    return keras.Model(images, outputs, name=name)


def _normal() -> dict[str, keras.Initializer]:
    """First weights N(0, 0.02). Each layer needs an initializer of its own: one draws only once."""
    return {"kernel_initializer": keras.initializers.RandomNormal(0.0, DEVIATION)}


def _normalized(x: keras.KerasTensor) -> keras.KerasTensor:
    """Batch normalisation with PyTorch's constants, and scales N(1, 0.02) at first."""
    scale = keras.initializers.RandomNormal(1.0, DEVIATION)
    return BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=scale)(x)


def _cut(x: keras.KerasTensor, like: keras.KerasTensor) -> keras.KerasTensor:
    """Cuts the last row and column off `x` where it is larger than `like`."""
    excess = [x.shape[axis] - like.shape[axis] for axis in (1, 2)]
    return layers.Cropping2D([(0, side) for side in excess])(x) if any(excess) else x


@register("skip_ganomaly", "a U-Net against a discriminator (Akcay et al. 2019)", Config, PAPER)
class SkipGANomaly(Detector):
    """U-Net G and discriminator D with features f.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    scores = {
        "loss": ("contextual", "latent"),
        "contextual": ("contextual",),
        "latent": ("latent",),
        "residual": ("residual",),
    }

    def __init__(self, config: Config, image_shape: Shape, **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        check_image(image_shape)
        self.generator = generator(image_shape, config.width)
        self.critic = critic(image_shape, config.latent_dim, config.width)
        self.terms = (("residual",), features_of(self.critic), ("latent",))
        self.code_dim = config.latent_dim

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam per network."""
        config = self.config
        constants = config.learning_rate, config.beta_1, config.beta_2, config.epsilon
        return {"generator": Adam(*constants), "critic": Adam(*constants)}

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One update of G and one of D on float32 `[B, h, w, C]` in [-1, 1].

        Neither update changes what the loss of the other was computed from, so one forward pass
        serves both.
        """
        x, config = images, self.config
        with tf.GradientTape(persistent=True) as tape:
            generated = self.generator(x, training=True)
            real, fake = self.critic(x, training=True), self.critic(generated, training=True)

            adversarial = losses.non_saturating_generator_loss(fake["logit"])
            contextual = tf.reduce_mean(losses.mean_absolute(x, generated))
            latent = tf.reduce_mean(losses.mean_square(real["latent"], fake["latent"]))
            generator_loss = (
                config.adversarial_weight * adversarial
                + config.contextual_weight * contextual
                + config.latent_weight * latent
            )
            critic_loss = losses.discriminator_loss(real["logit"], fake["logit"])
        self.minimize("generator", generator_loss, tape)
        self.minimize("critic", critic_loss, tape)
        return {
            "adversarial": adversarial,
            "contextual": contextual,
            "latent": latent,
            "critic": critic_loss,
        }

    def reconstruction(self, images: tf.Tensor) -> tf.Tensor:
        """G(x)."""
        return self.generator(images, training=False)

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The two terms of A(x) with their weights, `contextual` and `latent`, and errors of G(x).

        `residual` and `features_...` are mean squared errors, `code` is f(x).
        """
        generated = self.generator(images, training=False)
        of_x, of_generated = (self.critic(y, training=False) for y in (images, generated))
        weight = self.config.reconstruction_weight
        latent = losses.mean_square(of_x["latent"], of_generated["latent"])
        return {
            "contextual": weight * tf.reduce_mean(tf.abs(images - generated), axis=-1),
            "latent": (1.0 - weight) * latent,
            "residual": pixel_errors(images, generated),
            **feature_errors(of_x["features"], of_generated["features"], self.window),
            "code": of_x["latent"],
        }
