"""Conditional GAN (Mirza and Osindero 2014), with a projection discriminator.

Generator and discriminator are given the class y of an image (eq. 2):

    discriminator   L_D = -½ (E_x[log D(x, y)] + E_z[log(1 - D(G(z, y), y))])
    generator       L_G = -E_z[log D(G(z, y), y)]

Generated images take the labels of the batch that they stand against: real and generated ones then
have the same classes, so that D cannot tell them apart by how often a class occurs, and G learns
p(x | y) whatever p(y) is.

The paper detects nothing. An image is normal if it looks real as some class: the anomaly score is
1 - max_y D(x, y).

Differences: `cgan/paper` is not the paper's network. Mirza and Osindero have fully connected layers
for MNIST (section 4.1: rectifiers in G, maxout in D, SGD), whose D must be evaluated anew for each
class. D here is convolutional after DCGAN and gives the logits of all classes at once, since it
projects the class onto its features (Miyato and Koyama 2018, eq. 3); the score wants them all.
`cgan/paper` has the settings of Miyato and Koyama. They use residual networks and keep D smooth by
spectral normalisation; here R1 does (Mescheder et al. 2018).

Read beside it: `core/losses.py`; `networks/conditional.py`, what gives a network the class.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, checks, losses, register
from tfgad.core.batches import part
from tfgad.core.settings import (
    BatchSize,
    LatentDim,
    Score,
    StepCount,
    Stride,
    Updates,
    Width,
    Window,
)
from tfgad.errors import UsageError
from tfgad.networks import conditional, convolutional, precision
from tfgad.networks.layers import Adam


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of the conditional GAN; `tfgad list cgan` prints them."""

    window: Window = 32
    classes: Annotated[
        int, Field(ge=0, le=100_000, description="how many; 0 in a run: those of its data")
    ] = 0
    latent_dim: LatentDim = 64
    width: Annotated[Width, Field(description="channels of D's first hidden layer")] = 32
    batch_size: BatchSize = 64
    steps: Annotated[StepCount, Field(description="training steps")] = 2000
    learning_rate: Annotated[float, Field(gt=0, description="of both Adam optimizers")] = 2e-4
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.0
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.9
    d_steps: Annotated[Updates, Field(description="updates of D per step")] = 1
    g_steps: Annotated[Updates, Field(description="updates of G per step")] = 1
    # Of the images generated on mnist:!2 after 600 steps a classifier of real ones named 0.93 as
    # they were ordered with R1 at 5, 0.75 with it at 0.1.
    r1: Annotated[float, Field(ge=0, description="weight of the R1 penalty; 0 leaves it out")] = 5.0
    smoothing: Annotated[
        float, Field(ge=0, lt=1, description="α: the label of real images is 1 - α")
    ] = 0.0
    score: Score = "critic"
    stride: Stride = 16


# Miyato and Koyama 2018, section 5: Adam at 2e-4 with betas 0 and 0.9, five updates of D for one of
# G, z of 128. R1 at the γ of 10 that Mescheder et al. 2018 use, which is 4 λ. Batches and steps as
# `gan/paper`.
PAPER = Config(
    window=0, latent_dim=128, width=64, batch_size=128, steps=14_000, d_steps=5, r1=2.5, stride=8
)


@register("cgan", "GAN that is given the class (Mirza and Osindero 2014)", Config, PAPER)
class CGAN(Detector):
    """Generator G(z, y) and discriminator D(x, y), given the class y of an image.

    Args:
        config: hyper-parameters; `classes` must be given.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    scores = {"critic": ("critic",)}
    labelled = True

    def __init__(self, config: Config, image_shape: tuple[int, int, int], **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        classes, width = config.classes, config.width
        if not classes:
            raise UsageError("classes", 0, "does not say how many there are", "give classes=10")
        inner = convolutional.generator(
            image_shape, config.latent_dim + conditional.EMBEDDING, width
        )
        self.generator = conditional.generator(inner, classes)
        self.critic = conditional.critic(convolutional.critic(image_shape, width), classes)

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam per network."""
        config = self.config
        return {
            "critic": Adam(config.learning_rate, config.beta_1, config.beta_2),
            "generator": Adam(config.learning_rate, config.beta_1, config.beta_2),
        }

    @property
    def images_per_step(self) -> int:
        """A batch for each update of D."""
        return self.config.batch_size * self.config.d_steps

    def checked_batch(self, data: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the images and labels of a batch, after checks; see `checks.labels_in_range`."""
        images, labels = super().checked_batch(data)
        return images, checks.labels_in_range(labels, self.config.classes)

    def train_step(self, batch: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on images `[d_steps * B, h, w, C]` in [-1, 1] and their labels, int32."""
        images, labels = batch
        config = self.config
        for t in range(config.d_steps):
            x, y = part(images, t, config.d_steps), part(labels, t, config.d_steps)
            z = self.random_normal((tf.shape(x)[0], config.latent_dim), f"critic {t}")
            generated = self.generator([z, y], training=True)
            with tf.GradientTape() as tape:
                real, fake = self.logit(x, y), self.logit(generated, y)
                critic_loss = losses.discriminator_loss(real, fake, config.smoothing)
                total = critic_loss
                if config.r1:
                    r1 = losses.r1_penalty(functools.partial(self.logit, labels=y), x)
                    total += config.r1 * r1
            self.minimize("critic", total, tape)

        for t in range(config.g_steps):
            z = self.random_normal((tf.shape(y)[0], config.latent_dim), f"generator {t}")
            with tf.GradientTape() as tape:
                fake = self.logit(self.generator([z, y], training=True), y)
                generator_loss = losses.non_saturating_generator_loss(fake)
            self.minimize("generator", generator_loss, tape)

        logs = {"critic": critic_loss, "generator": generator_loss}
        return {**logs, "r1": r1} if config.r1 else logs

    def logit(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """The logit of D(x, y) in training, `[B]`."""
        return tf.gather(self.critic(images, training=True)["logits"], labels, batch_dims=1)

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The error `critic`, 1 - max_y D(x, y) `[N]`: per window, without a location."""
        logits = self.critic(images, training=False)["logits"]
        return {"critic": tf.sigmoid(-tf.reduce_max(logits, axis=-1))}

    @precision.scoring()
    def generate(self, labels: Any, seed: int = 0) -> tf.Tensor:
        """Draws an image of each label: `[B, h, w, C]` in [-1, 1].

        Args:
            labels: whole numbers from 0 to `classes - 1`, `[B]`.
            seed: of the latent codes.

        Raises:
            UsageError: a label that no class has, or labels of another type or shape.
        """
        y = np.zeros(0, "int32") if np.size(labels) == 0 else checks.whole_numbers(labels).numpy()
        classes = self.config.classes
        if y.size and not 0 <= y.min() <= y.max() < classes:
            wrong = y.min() if y.min() < 0 else y.max()
            raise UsageError("label", wrong, "no class has", f"give 0 to {classes - 1}")
        z = tf.random.stateless_normal([len(y), self.config.latent_dim], [seed, 0])
        return self.generator([z, tf.constant(y, tf.int32)], training=False)

    def sample(self, count: int, seed: int = 0) -> tf.Tensor:
        """Draws images of all classes in turn: `[count, h, w, C]` in [-1, 1]."""
        return self.generate(np.arange(count) % self.config.classes, seed)
