"""WGAN (Arjovsky et al., ICML 2017): a critic that measures a distance between distributions.

    critic      L_D = E_z[D(G(z))] - E_x[D(x)]     (eq. 3)
    generator   L_G = -E_z[D(G(z))]

-L_D is a Wasserstein distance as long as the slope of D is bounded. Algorithm 1 bounds it by
clipping each weight of D to [-c, c] after each of its n_critic updates per update of G.

The paper detects nothing. The anomaly score is that of f-AnoGAN's comparison (Schlegl et al. 2019):

    A_D(x) = E[D(x_normal)] - D(x)

the mean over up to 32,000 training images, drawn at random.

Clipped critics learn slowly. For digits within minutes take `gan` or `dcgan`.

Read beside it: `core/losses.py`; `networks/convolutional.py`, the two networks.
"""

from __future__ import annotations

from typing import Annotated, Any

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.batches import mean_logit, part, sample
from tfgad.core.settings import BatchSize, Score, Stride, Window
from tfgad.networks import convolutional


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of WGAN; `tfgad list wgan` prints them."""

    window: Window = 32
    latent_dim: Annotated[int, Field(ge=1, description="length of the latent code z")] = 64
    width: Annotated[int, Field(ge=1, description="channels of D's first hidden layer")] = 32
    batch_size: BatchSize = 64
    # The paper's rate is for days. At ten times that, mnist:!2 shows strokes like those of digits
    # after 300 steps, 97 s of processor time, and a third of plain digits after 1000.
    steps: Annotated[int, Field(ge=1, description="training steps, iterations of algorithm 1")] = (
        1000
    )
    learning_rate: Annotated[float, Field(gt=0, description="α of both RMSprop optimizers")] = 5e-4
    clip: Annotated[float, Field(gt=0, description="c, bound of the weights of D")] = 0.01
    d_steps: Annotated[int, Field(ge=1, description="n_critic, updates of D per step")] = 5
    g_steps: Annotated[int, Field(ge=1, description="updates of G per step")] = 1
    r1: Annotated[float, Field(ge=0, description="weight of the R1 penalty; 0 leaves it out")] = 0.0
    score: Score = "critic"
    stride: Stride = 16


# Algorithm 1 and section 4.
PAPER = Config(window=64, latent_dim=100, width=64, steps=100_000, learning_rate=5e-5, stride=32)


@register("wgan", "GAN with a clipped critic (Arjovsky et al. 2017)", Config, PAPER)
class WGAN(Detector):
    """Generator G and critic D, whose weights are clipped.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    scores = {"critic": ("critic",)}

    def __init__(self, config: Config, image_shape: tuple[int, int, int], **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        self.generator = convolutional.generator(image_shape, config.latent_dim, config.width)
        self.critic = convolutional.critic(image_shape, config.width)
        self.normal_logit = self.add_weight((), "zeros", trainable=False, name="normal_logit")

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One RMSprop per network."""
        rate = self.config.learning_rate
        return {
            "critic": keras.optimizers.RMSprop(rate),
            "generator": keras.optimizers.RMSprop(rate),
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
                critic_loss = losses.wasserstein_critic_loss(self.logit(x), self.logit(generated))
                total = critic_loss
                if config.r1:
                    r1 = losses.r1_penalty(self.logit, x)
                    total += config.r1 * r1
            self.minimize("critic", total, tape)
            for weight in self.critic.trainable_weights:
                weight.assign(tf.clip_by_value(weight, -config.clip, config.clip))

        for t in range(config.g_steps):
            z = self.random_normal((batch, config.latent_dim), f"generator {t}")
            with tf.GradientTape() as tape:
                generated = self.generator(z, training=True)
                generator_loss = losses.wasserstein_generator_loss(self.logit(generated))
            self.minimize("generator", generator_loss, tape)

        logs = {"critic": critic_loss, "generator": generator_loss}
        return {**logs, "r1": r1} if config.r1 else logs

    def logit(self, images: tf.Tensor, training: bool = True) -> tf.Tensor:
        """D(x) of images `[B, h, w, C]`: `[B]`, unbounded, higher is more real."""
        return self.critic(images, training=training)["logit"]

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The error `critic`, A_D(x) `[N]`: it has no place in the window."""
        return {"critic": self.normal_logit - self.logit(images, training=False)}

    def adapt(self, normals: tf.data.Dataset, size: int) -> None:
        """Takes the mean of D over normal images, and what `Detector.adapt` takes."""
        super().adapt(normals, size)
        self.normal_logit.assign(0.0)
        mean = mean_logit(lambda x: -self.error_maps(x, "critic"), normals, size, self.seed)
        self.normal_logit.assign(mean)

    def sample(self, count: int, seed: int = 0) -> tf.Tensor:
        """Draws images from G: `[count, h, w, C]` in [-1, 1]."""
        return sample(self.generator, self.config.latent_dim, count, seed)
