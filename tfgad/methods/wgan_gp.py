"""WGAN-GP (Gulrajani et al., NIPS 2017): a Wasserstein GAN with a gradient penalty.

    critic      L_D = E_z[D(G(z))] - E_x[D(x)] + λ E[(‖∇D(x̂)‖₂ - 1)²]    (eq. 3)
                x̂ = ε x + (1 - ε) G(z), ε ~ U[0, 1] per image
    generator   L_G = -E_z[D(G(z))]

with λ = 10 and five updates of D per update of G (algorithm 1). The gradient of the optimal critic
has norm 1 almost everywhere on lines between coupled real and generated points (proposition 1); the
penalty asks it of random pairs, in place of WGAN's clipped weights. It is computed per image, so D
must not normalise over the batch (section 4). D's output is named `logit` as in other methods; no
sigmoid follows.

The paper detects nothing. The anomaly score is that of f-AnoGAN's comparison (Schlegl et al. 2019):

    A_D(x) = E[D(x_normal)] - D(x)

the mean over up to 32,000 training images, drawn at random.

`wgan_gp` is a small DCGAN-like pair of networks that trains within minutes on a CPU.
`wgan_gp/paper` is the authors' GAN for images of 64x64 (`gan_64x64.py` of their public code, its
GoodGenerator and GoodDiscriminator): residual networks, layer normalisation in D, and ε = 1e-8 of
TensorFlow's Adam. One difference from that code: it normalises by the batch whenever G draws
images; here batch normalisation keeps averages (momentum 0.99), with which `sample` draws them.

Read beside it: `core/losses.py`, the two losses and the penalty; the file of `networks/` that the
setting `networks` names. `part(images, t, n)` is the t-th of n equal parts of a batch;
`minimize(role, loss, tape)` is one step of a role's optimizer on the network of that name. The
score of a window is the mean of its error (`scores/score.py`).
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
from tfgad.networks import convolutional, resnet
from tfgad.networks.layers import Adam

Networks = Annotated[
    Literal["convolutional", "resnet"],
    Field(description="strided convolutions as in DCGAN, or the authors' residual blocks"),
]


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of WGAN-GP; `tfgad list wgan_gp` prints them."""

    window: Window = 32
    networks: Networks = "convolutional"
    latent_dim: LatentDim = 64
    width: Annotated[Width, Field(description="channels of D's first hidden layer")] = 32
    batch_size: BatchSize = 64
    steps: Annotated[StepCount, Field(description="training steps, iterations of algorithm 1")] = (
        600
    )
    learning_rate: Annotated[float, Field(gt=0, description="α of both Adam optimizers")] = 1e-4
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.0
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.9
    epsilon: Annotated[float, Field(gt=0, description="ε of both Adam optimizers")] = 1e-7
    norm_epsilon: Annotated[float, Field(gt=0, description="ε of G's batch normalisation")] = 1e-3
    d_steps: Annotated[Updates, Field(description="n_critic, updates of D per step")] = 5
    g_steps: Annotated[Updates, Field(description="updates of G per step")] = 1
    penalty: Annotated[float, Field(ge=0, description="λ of the gradient penalty")] = 10.0
    r1: Annotated[float, Field(ge=0, description="weight of the R1 penalty; 0 leaves it out")] = 0.0
    score: Score = "critic"
    stride: Stride = 16


# Algorithm 1; the rest is of the authors' gan_64x64.py: DIM, BATCH_SIZE, ITERS, z of 128 numbers, ε
# of TensorFlow's AdamOptimizer and of tflib/ops/batchnorm.py.
PAPER = Config(
    window=64,
    networks="resnet",
    latent_dim=128,
    width=64,
    steps=200_000,
    epsilon=1e-8,
    norm_epsilon=1e-5,
    stride=32,
)

NETWORKS = {"convolutional": convolutional, "resnet": resnet}


@register(
    "wgan_gp", "GAN whose critic has a gradient penalty (Gulrajani et al. 2017)", Config, PAPER
)
class WGANGP(Detector):
    """Generator G and critic D, with a gradient penalty between real and generated images.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    scores = {"critic": ("critic",)}

    def __init__(self, config: Config, image_shape: tuple[int, int, int], **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        networks = NETWORKS[config.networks]
        self.generator = networks.generator(
            image_shape, config.latent_dim, config.width, epsilon=config.norm_epsilon
        )
        self.critic = networks.critic(image_shape, config.width)
        self.normal_logit = self.add_weight((), "zeros", trainable=False, name="normal_logit")

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam per network."""
        config = self.config
        constants = config.learning_rate, config.beta_1, config.beta_2, config.epsilon
        return {"critic": Adam(*constants), "generator": Adam(*constants)}

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
            epsilon = self.random_uniform((batch, 1, 1, 1), f"epsilon {t}")
            generated = self.generator(z, training=True)
            with tf.GradientTape() as tape:
                critic_loss = losses.wasserstein_critic_loss(self.logit(x), self.logit(generated))
                penalty = losses.gradient_penalty(self.logit, x, generated, epsilon)
                total = critic_loss + config.penalty * penalty
                if config.r1:
                    r1 = losses.r1_penalty(self.logit, x)
                    total += config.r1 * r1
            self.minimize("critic", total, tape)

        for t in range(config.g_steps):
            z = self.random_normal((batch, config.latent_dim), f"generator {t}")
            with tf.GradientTape() as tape:
                generated = self.generator(z, training=True)
                generator_loss = losses.wasserstein_generator_loss(self.logit(generated))
            self.minimize("generator", generator_loss, tape)

        logs = {"critic": critic_loss, "penalty": penalty, "generator": generator_loss}
        return {**logs, "r1": r1} if config.r1 else logs

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
