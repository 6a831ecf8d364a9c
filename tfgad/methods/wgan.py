"""WGAN (Arjovsky et al., ICML 2017): a critic that measures a distance between distributions.

    critic      L_D = E_z[D(G(z))] - E_x[D(x)]     (eq. 3)
    generator   L_G = -E_z[D(G(z))]

The maximum of -L_D over all D with a Lipschitz constant of at most K is K times the Wasserstein-1
distance of x and G(z). Algorithm 1 bounds the constant by clipping each weight of D to [-c, c]
after each of its n_critic updates per update of G.

The paper detects nothing. The anomaly score is that of f-AnoGAN's comparison (Schlegl et al. 2019):

    A_D(x) = E[D(x_normal)] - D(x)

the mean over up to 32,000 training images, drawn at random.

`wgan/paper` follows the paper and, where it is silent, the authors' code
(github.com/martinarjovsky/WassersteinGAN): DCGAN's networks without biases and with batch
normalisation in D, too; RMSprop as PyTorch has it; and many more updates of D in the first steps
and in every 500th of G (`long_d_steps`). Differences: all steps get `d_steps` batches of images. A
long step uses them in turn, again and again, where theirs has new images for each update. Weights
are clipped after each update, as in algorithm 1; the code clips before it. Both clip the scales of
batch normalisation as well.

Clipped critics learn slowly. For digits within minutes take `gan` or `dcgan`.

Read beside it: `core/losses.py`; `networks/convolutional.py`, the two networks by default, and
`networks/radford.py`, those of the paper.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.batches import mean_logit, part, sample
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
from tfgad.networks import convolutional, radford

# Steps with `long_d_steps` updates of D: the first ones, and each that is a multiple of the second
# number (main.py of the authors).
LONG_FIRST, LONG_EVERY = 25, 500


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of WGAN; `tfgad list wgan` prints them."""

    window: Window = 32
    networks: Annotated[
        Literal["convolutional", "arjovsky"], Field(description="whose G and D")
    ] = "convolutional"
    latent_dim: LatentDim = 64
    width: Annotated[Width, Field(description="channels of D's first hidden layer")] = 32
    batch_size: BatchSize = 64
    # The paper's rate is for days. At ten times that, mnist:!2 shows strokes like those of digits
    # after 300 steps, 97 s of processor time, and a third of plain digits after 1000.
    steps: Annotated[StepCount, Field(description="training steps, iterations of algorithm 1")] = (
        1000
    )
    learning_rate: Annotated[float, Field(gt=0, description="α of both RMSprop optimizers")] = 5e-4
    rho: Annotated[
        float, Field(ge=0, lt=1, description="of RMSprop, decay of the mean square gradient")
    ] = 0.9
    epsilon: Annotated[
        float, Field(gt=0, description="of RMSprop, added to the mean square under the root")
    ] = 1e-7
    clip: Annotated[float, Field(gt=0, description="c, bound of the weights of D")] = 0.01
    d_steps: Annotated[Updates, Field(description="n_critic, updates of D per step")] = 5
    long_d_steps: Annotated[
        int,
        Field(
            ge=0, le=1000, description="updates of D in steps 1 to 25 and every 500th; 0: d_steps"
        ),
    ] = 0
    g_steps: Annotated[Updates, Field(description="updates of G per step")] = 1
    r1: Annotated[float, Field(ge=0, description="weight of the R1 penalty; 0 leaves it out")] = 0.0
    score: Score = "critic"
    stride: Stride = 16


# Algorithm 1 and section 4: α, c, n_critic, batches of 64. Width, z and long steps: the authors'
# code. PyTorch's RMSprop has α = 0.99 and adds 1e-8 to the root of the mean square; 1e-16 under the
# root is the same where that is 0, and where it is large.
PAPER = Config(
    window=64,
    networks="arjovsky",
    latent_dim=100,
    width=64,
    steps=100_000,
    learning_rate=5e-5,
    rho=0.99,
    epsilon=1e-16,
    long_d_steps=100,
    stride=32,
)


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
        z, width = config.latent_dim, config.width
        if config.networks == "convolutional":
            self.generator = convolutional.generator(image_shape, z, width)
            self.critic = convolutional.critic(image_shape, width)
        else:
            design = radford.ARJOVSKY
            self.generator = radford.generator(image_shape, z, width, design)
            self.critic = radford.critic(image_shape, width, design, with_features=True)
        self.normal_logit = self.add_weight((), "zeros", trainable=False, name="normal_logit")

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One RMSprop per network."""
        config = self.config
        return {
            role: keras.optimizers.RMSprop(config.learning_rate, config.rho, epsilon=config.epsilon)
            for role in ("critic", "generator")
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
            logs = self.update_critic(x, z)
        if config.long_d_steps > config.d_steps:
            logs = self.update_critic_further(images, batch, logs)

        for t in range(config.g_steps):
            z = self.random_normal((batch, config.latent_dim), f"generator {t}")
            with tf.GradientTape() as tape:
                generated = self.generator(z, training=True)
                generator_loss = losses.wasserstein_generator_loss(self.logit(generated))
            self.minimize("generator", generator_loss, tape)

        return {**logs, "generator": generator_loss}

    def update_critic(self, x: tf.Tensor, z: tf.Tensor) -> dict[str, tf.Tensor]:
        """One update of D on images x and codes z, then the clip; returns the losses."""
        config = self.config
        generated = self.generator(z, training=True)
        with tf.GradientTape() as tape:
            critic_loss = losses.wasserstein_critic_loss(self.logit(x), self.logit(generated))
            logs, total = {"critic": critic_loss}, critic_loss
            if config.r1:
                logs["r1"] = losses.r1_penalty(self.logit, x)
                total += config.r1 * logs["r1"]
        self.minimize("critic", total, tape)
        for weight in self.critic.trainable_weights:
            weight.assign(tf.clip_by_value(weight, -config.clip, config.clip))
        return logs

    def update_critic_further(
        self, images: tf.Tensor, batch: tf.Tensor, logs: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """In a long step the updates of D after the first `d_steps`; returns the last losses."""
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            problem = "a step of varying length runs on one device only"
            raise UsageError("long_d_steps", self.config.long_d_steps, problem, "give 0")
        d_steps, step = self.config.d_steps, tf.cast(self.step, tf.int64)
        is_long = tf.logical_or(step < LONG_FIRST, step % LONG_EVERY == 0)
        count = tf.where(is_long, self.config.long_d_steps - d_steps, 0)
        z = self.random_normal((count * batch, self.config.latent_dim), "critic, long step")

        def update(t: tf.Tensor, _: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            x = part(images, t % d_steps, d_steps)
            return t + 1, self.update_critic(x, z[t * batch : (t + 1) * batch])

        return tf.while_loop(lambda t, _: t < count, update, (tf.constant(0), logs))[1]

    def logit(self, images: tf.Tensor, training: bool = True) -> tf.Tensor:
        """D(x) of images `[B, h, w, C]`: `[B]`, unbounded, higher is more real."""
        return self.critic(images, training=training)["logit"]

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The error `critic`, A_D(x) `[N]`: one number per window, without a location."""
        return {"critic": self.normal_logit - self.logit(images, training=False)}

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
