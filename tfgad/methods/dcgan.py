"""DCGAN (Radford et al., ICLR 2016): the GAN with convolutional networks.

The objective is that of `gan.py`,

    discriminator   L_D = -½ (E_x[log D(x)] + E_z[log(1 - D(G(z)))])
    generator       L_G = -E_z[log D(G(z))]

What the paper adds are networks that train stably (section 3): strided convolutions in place of
pooling, batch normalisation, no hidden dense layers, leaky rectifiers in D.

The paper detects nothing. The anomaly score is 1 - D(x).

`dcgan/paper` has the paper's networks for 64x64 pixels, with the channels of the authors' code
(github.com/Newmu/dcgan_code, faces/train_uncond_dcgan.py) where the paper draws only G. z is
standard normal here, uniform in [-1, 1] there. Their code also has a weight decay of 1e-5, which
the paper does not mention, and normalises by the statistics of the batch when it scores. Neither is
done here.

`dcgan/walkthrough` is TensorFlow's tutorial on MNIST, with checkpoints
(tensorflow.org/tutorials/generative/dcgan). It updates G and D at once by the same codes; here D
comes first, and G gets codes of its own.

Read beside it: `core/losses.py`; `networks/dcgan.py`, the networks by default and of the tutorial,
and `networks/radford.py`, those of the paper.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.batches import part, sample
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
from tfgad.networks import dcgan, radford
from tfgad.networks.layers import Adam


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of DCGAN; `tfgad list dcgan` prints them."""

    window: Window = 32
    networks: Annotated[
        Literal["small", "tutorial", "radford"], Field(description="whose G and D")
    ] = "small"
    latent_dim: LatentDim = 100
    width: Annotated[Width, Field(description="channels of D's first hidden layer")] = 32
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="share of D's units left out; radford has none")
    ] = 0.0
    # With the published settings at this width, 1000 steps on mnist:!2 end on broken strokes, and a
    # D that no longer tells (its loss is above log 2; 230 s of processor time). R1 instead of
    # dropout, Adam 2.5 times as fast and half the batch give digits after 800 steps (110 s).
    batch_size: BatchSize = 64
    steps: Annotated[StepCount, Field(description="training steps, one update of D and of G")] = (
        2000
    )
    learning_rate: Annotated[float, Field(gt=0, description="of both Adam optimizers")] = 5e-4
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.5
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.999
    epsilon: Annotated[float, Field(gt=0, description="of both Adam optimizers")] = 1e-7
    d_steps: Annotated[Updates, Field(description="updates of D per step")] = 1
    g_steps: Annotated[Updates, Field(description="updates of G per step")] = 1
    r1: Annotated[float, Field(ge=0, description="weight of the R1 penalty; 0 leaves it out")] = 0.5
    smoothing: Annotated[
        float, Field(ge=0, lt=1, description="α: the label of real images is 1 - α")
    ] = 0.0
    score: Score = "critic"
    stride: Stride = 16


# Section 4: Adam at 2e-4, beta1 0.5, batches of 128, z of 100. Width and ε: the authors' code,
# which updates G and D on alternate batches for 25 epochs of 350,000 faces.
PAPER = Config(
    window=64,
    networks="radford",
    width=128,
    batch_size=128,
    steps=34_000,
    learning_rate=2e-4,
    epsilon=1e-8,
    r1=0.0,
    stride=32,
)
# The tutorial: Adam at 1e-4 as Keras has it, batches of 256, 50 epochs of MNIST.
WALKTHROUGH = Config(
    window=0,
    networks="tutorial",
    width=64,
    dropout=0.3,
    batch_size=256,
    steps=11_750,
    learning_rate=1e-4,
    beta_1=0.9,
    r1=0.0,
    stride=8,
)


@register(
    "dcgan",
    "the GAN with convolutional networks (Radford et al. 2016)",
    Config,
    PAPER,
    walkthrough=WALKTHROUGH,
)
class DCGAN(Detector):
    """Generator G and discriminator D, convolutional.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    scores = {"critic": ("critic",)}

    def __init__(self, config: Config, image_shape: tuple[int, int, int], **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        width, latent_dim = config.width, config.latent_dim
        if config.networks == "radford":
            self.generator = radford.generator(image_shape, latent_dim, width)
            self.critic = radford.critic(image_shape, width)
        else:
            tutorial = config.networks == "tutorial"
            self.generator = dcgan.generator(image_shape, latent_dim, width, tutorial)
            self.critic = dcgan.critic(image_shape, width, config.dropout, self.seed, tutorial)

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam per network."""
        config = self.config
        constants = (config.learning_rate, config.beta_1, config.beta_2, config.epsilon)
        return {"critic": Adam(*constants), "generator": Adam(*constants)}

    @property
    def images_per_step(self) -> int:
        """A batch for each update of D."""
        return self.config.batch_size * self.config.d_steps

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step on float32 `[d_steps * B, h, w, C]` in [-1, 1]."""
        config = self.config
        for t in range(config.d_steps):
            x = part(images, t, config.d_steps)
            batch = tf.shape(x)[0]
            z = self.random_normal((batch, config.latent_dim), f"critic {t}")
            generated = self.generator(z, training=True)
            with tf.GradientTape() as tape:
                real, fake = self.critic(x, training=True), self.critic(generated, training=True)
                critic_loss = losses.discriminator_loss(real, fake, config.smoothing)
                total = critic_loss
                if config.r1:
                    r1 = losses.r1_penalty(lambda x: self.critic(x, training=True), x)
                    total += config.r1 * r1
            self.minimize("critic", total, tape)

        for t in range(config.g_steps):
            z = self.random_normal((batch, config.latent_dim), f"generator {t}")
            with tf.GradientTape() as tape:
                fake = self.critic(self.generator(z, training=True), training=True)
                generator_loss = losses.non_saturating_generator_loss(fake)
            self.minimize("generator", generator_loss, tape)

        logs = {"critic": critic_loss, "generator": generator_loss}
        return {**logs, "r1": r1} if config.r1 else logs

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The error `critic`, 1 - D(x) `[N]` in [0, 1]: per window, without a location."""
        return {"critic": tf.sigmoid(-self.critic(images, training=False))}

    def sample(self, count: int, seed: int = 0) -> tf.Tensor:
        """Draws images from G: `[count, h, w, C]` in [-1, 1]."""
        return sample(self.generator, self.config.latent_dim, count, seed)
