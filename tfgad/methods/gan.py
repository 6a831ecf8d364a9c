"""GAN (Goodfellow et al., NIPS 2014): a generator and a discriminator, fully connected.

D is the chance that an image is real. With σ the sigmoid and D(x) = σ(logit),

    discriminator   L_D = -½ (E_x[log D(x)] + E_z[log(1 - D(G(z)))])     (eq. 1)
    generator       L_G = -E_z[log D(G(z))]                              (section 3, non-saturating)

Algorithm 1 updates D k times per update of G (`d_steps`). The ½ is this library's: log 2 is then
the loss of a D that cannot tell. Older code gives D two outputs and a softmax; that is the sigmoid
of the outputs' difference, which one logit says as well.

The paper detects nothing. The anomaly score is 1 - D(x).

Goodfellow et al. leave the sizes open (their code differs by data set): the networks are those of
common MNIST code. Label smoothing is of Salimans et al. 2016 (section 3.4), R1 of Mescheder et al.
2018 (eq. 9).

Read beside it: `core/losses.py`; `networks/dense.py`, the two networks.
"""

from __future__ import annotations

from typing import Annotated, Any

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.batches import part, sample
from tfgad.core.settings import BatchSize, Score, Stride, Window
from tfgad.networks import dense
from tfgad.networks.layers import Adam


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of the GAN; `tfgad list gan` prints them."""

    window: Window = 32
    latent_dim: Annotated[int, Field(ge=1, description="length of the latent code z")] = 100
    dropout: Annotated[float, Field(ge=0, lt=1, description="share of D's units left out")] = 0.2
    batch_size: BatchSize = 128
    # On mnist:!2 the published settings give smudged digits in noise after 3000 steps. With R1, and
    # Adam 2.5 times as fast, most samples are clean digits after 4000 (71 s of processor time).
    # Looked at, one seed, the two changes not tried apart.
    steps: Annotated[int, Field(ge=1, description="training steps, iterations of algorithm 1")] = (
        4000
    )
    learning_rate: Annotated[float, Field(gt=0, description="of both Adam optimizers")] = 5e-4
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.5
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.999
    d_steps: Annotated[int, Field(ge=1, description="k, updates of D per step")] = 1
    g_steps: Annotated[int, Field(ge=1, description="updates of G per step")] = 1
    r1: Annotated[float, Field(ge=0, description="weight of the R1 penalty; 0 leaves it out")] = 0.5
    smoothing: Annotated[
        float, Field(ge=0, lt=1, description="α: the label of real images is 1 - α")
    ] = 0.0
    score: Score = "critic"
    stride: Stride = 16


# Goodfellow et al. leave the optimizer open; this is Radford's Adam (2016), for 30 epochs of MNIST.
PAPER = Config(window=0, steps=14_000, learning_rate=2e-4, r1=0.0, stride=8)


@register(
    "gan", "generator and discriminator, fully connected (Goodfellow et al. 2014)", Config, PAPER
)
class GAN(Detector):
    """Generator G and discriminator D, fully connected.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    scores = {"critic": ("critic",)}

    def __init__(self, config: Config, image_shape: tuple[int, int, int], **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        self.generator = dense.generator(image_shape, config.latent_dim)
        self.critic = dense.critic(image_shape, config.dropout, self.seed)

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

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One iteration of algorithm 1 on float32 `[d_steps * B, h, w, C]` in [-1, 1]."""
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
        """The error `critic`, 1 - D(x) `[N]` in [0, 1]: it has no place in the window."""
        return {"critic": tf.sigmoid(-self.critic(images, training=False))}

    def sample(self, count: int, seed: int = 0) -> tf.Tensor:
        """Draws images from G: `[count, h, w, C]` in [-1, 1]."""
        return sample(self.generator, self.config.latent_dim, count, seed)
