"""GAN (Goodfellow et al., NIPS 2014): a generator and a discriminator, fully connected.

D(x) is the probability that x is real, the sigmoid of a logit.

    discriminator   L_D = -½ (E_x[log D(x)] + E_z[log(1 - D(G(z)))])     (eq. 1)
    generator       L_G = -E_z[log D(G(z))]                              (section 3, non-saturating)

Algorithm 1 updates D k times per update of G (`d_steps`). The ½ is that of the authors' code; eq. 1
is the sum. With it log 2 is the loss of a D that cannot tell. Older code gives D two outputs and a
softmax; that is the sigmoid of the outputs' difference, which one logit says as well.

The paper detects nothing. The anomaly score is 1 - D(x).

`gan/paper` follows the authors' code for MNIST (github.com/goodfeli/adversarial, mnist.yaml), since
the paper leaves the sizes open. It differs from that code in four things. Momentum stays at 0.5;
theirs rises to 0.7 within 250 epochs. D is updated before G, which gets codes of its own; theirs
are updated at once. z is standard normal; theirs, in two of three versions, uniform in [-√3, √3].
The first biases of G's pixels are 0; theirs follow the mean image. `gan/walkthrough`
is a widespread introduction on MNIST. Its D has two outputs and a softmax, see above. By default
the networks are small ones with batch normalisation and leaky rectifiers.

Label smoothing is of Salimans et al. 2016 (section 3.4), R1 of Mescheder et al. 2018 (eq. 9).

Read beside it: `core/losses.py`; `networks/dense.py`, the two networks by default, and
`networks/published_dense.py`, those of the other configurations.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.batches import part, sample
from tfgad.core.settings import BatchSize, LatentDim, Score, StepCount, Stride, Updates, Window
from tfgad.networks import dense, published_dense
from tfgad.networks.layers import Adam


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of the GAN; `tfgad list gan` prints them."""

    window: Window = 32
    networks: Annotated[
        Literal["small", "walkthrough", "goodfellow"], Field(description="whose G and D")
    ] = "small"
    latent_dim: LatentDim = 100
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="share of D's units left out; goodfellow has its own")
    ] = 0.2
    batch_size: BatchSize = 128
    # On mnist:!2 the published settings give smudged digits in noise after 3000 steps. With R1, and
    # Adam 2.5 times as fast, most samples are clean digits after 4000 (71 s of processor time).
    # Looked at, one seed, the two changes not tried apart.
    steps: Annotated[StepCount, Field(description="training steps, iterations of algorithm 1")] = (
        4000
    )
    optimizer: Annotated[Literal["adam", "sgd"], Field(description="of both networks")] = "adam"
    learning_rate: Annotated[float, Field(gt=0, description="of both optimizers")] = 5e-4
    momentum: Annotated[float, Field(ge=0, lt=1, description="of SGD")] = 0.5
    rate_decay: Annotated[
        float, Field(ge=1, description="what SGD's rate is divided by after each update")
    ] = 1.0
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.5
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of both Adam optimizers")] = 0.999
    d_steps: Annotated[Updates, Field(description="k, updates of D per step")] = 1
    g_steps: Annotated[Updates, Field(description="updates of G per step")] = 1
    r1: Annotated[float, Field(ge=0, description="weight of the R1 penalty; 0 leaves it out")] = 0.5
    smoothing: Annotated[
        float, Field(ge=0, lt=1, description="α: the label of real images is 1 - α")
    ] = 0.0
    score: Score = "critic"
    stride: Stride = 16


# The authors' mnist.yaml: z of 100, batches of 100, k = 1, SGD at 0.1, whose rate is divided by
# 1.000004 after each batch. 250 epochs of 50,000 images, the time in which their momentum rises;
# they do not say how long they trained.
PAPER = Config(
    window=0,
    networks="goodfellow",
    batch_size=100,
    steps=125_000,
    optimizer="sgd",
    learning_rate=0.1,
    momentum=0.5,
    rate_decay=1.000004,
    r1=0.0,
    stride=8,
)
# Five updates of D for one of G, batches of 32, dropout 0.2, Adam as Radford et al. 2016 have it.
# The 30 epochs of MNIST are this library's.
WALKTHROUGH = Config(
    window=0,
    networks="walkthrough",
    batch_size=32,
    steps=11_250,
    learning_rate=2e-4,
    d_steps=5,
    r1=0.0,
    stride=8,
)


@register(
    "gan",
    "generator and discriminator, fully connected (Goodfellow et al. 2014)",
    Config,
    PAPER,
    walkthrough=WALKTHROUGH,
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
        z, dropout, seed = config.latent_dim, config.dropout, self.seed
        if config.networks == "small":
            self.generator = dense.generator(image_shape, z)
            self.critic = dense.critic(image_shape, dropout, seed)
        elif config.networks == "walkthrough":
            self.generator = published_dense.walkthrough_generator(image_shape, z)
            self.critic = published_dense.walkthrough_critic(image_shape, dropout, seed)
        else:
            self.generator = published_dense.goodfellow_generator(image_shape, z)
            self.critic = published_dense.goodfellow_critic(image_shape, seed)

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam or SGD per network."""
        return {"critic": self._optimizer(), "generator": self._optimizer()}

    def _optimizer(self) -> keras.Optimizer:
        config, rate = self.config, self.config.learning_rate
        if config.optimizer == "adam":
            return Adam(rate, config.beta_1, config.beta_2)
        # Over a thousand updates: the factor of one is too near 1 for a float32.
        factor = config.rate_decay**-1000
        decayed = keras.optimizers.schedules.ExponentialDecay(rate, 1000, factor)
        return keras.optimizers.SGD(decayed, config.momentum)

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
        """The error `critic`, 1 - D(x) `[N]` in [0, 1]: per window, without a location."""
        return {"critic": tf.sigmoid(-self.critic(images, training=False))}

    def sample(self, count: int, seed: int = 0) -> tf.Tensor:
        """Draws images from G: `[count, h, w, C]` in [-1, 1]."""
        return sample(self.generator, self.config.latent_dim, count, seed)
