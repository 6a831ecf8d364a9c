"""Variational autoencoder (Kingma and Welling, ICLR 2014), and β-VAE (Higgins et al. 2017).

An encoder q(z|x) = N(μ, diag σ²) and a decoder p(x|z), before a standard normal prior p(z),
minimize the negative of the evidence lower bound (eq. 3), in nats per image:

    L = E_q[-log p(x|z)] + β KL(q(z|x) ‖ p(z)),  z = μ + σ ε,  ε ~ N(0, I)

with one sample of z per image and β = 1 (β-VAE: eq. 4 of Higgins et al.). p(x|z) is a Bernoulli per
pixel with probability (1 + y) / 2, y being the decoder's image and grey levels counting as
probabilities of white, or a Gaussian with mean y.

Scores take the same sum at z = μ, so that they are deterministic and leave out what the spread of q
costs:

- `elbo`: that sum, the negative ELBO; the paper detects nothing;
- `excess`: the sum less what p would cost at y = x, the least there is. For the Gaussian that is a
  constant, for the Bernoulli the entropy of the image's own grey levels, which is no error: thick
  and blurred strokes have more of it. With the digit 8 of MNIST normal the AUROC is 0.91 by
  `excess`, 0.68 by `elbo` (`examples/vae_mnist.py`);
- `kl`: the second term alone; `residual`: the mean squared error.

By default (`score=auto`) a model scores by `density` or `cues` (`scores/`), not by one of these.

`vae/paper` has the networks of appendix C, one hidden layer of 500 tanh units each, and the prior
N(0, I) of all weights θ (section 5): the loss of an image is greater by ½‖θ‖² / N for N training
images (`weight_decay`). Adagrad is Keras's; its sums of squares start from 0.1. By default the
networks are convolutional, and there is no such prior.

Read beside it: `core/losses.py`; `networks/convolutional.py`, the networks by default, or
`networks/published_dense.py`, the paper's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.batches import sample
from tfgad.core.settings import BatchSize, LatentDim, Score, StepCount, Stride, Width, Window
from tfgad.networks import convolutional, published_dense
from tfgad.networks.layers import Adam
from tfgad.scores.error_maps import pixel_errors


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of the VAE; `tfgad list vae` prints them."""

    window: Window = 32
    networks: Annotated[
        Literal["convolutional", "kingma"], Field(description="whose encoder and decoder")
    ] = "convolutional"
    latent_dim: LatentDim = 64
    width: Annotated[
        Width, Field(description="channels of the encoder's first layer; kingma: hidden units")
    ] = 32
    batch_size: BatchSize = 64
    steps: Annotated[StepCount, Field(description="training steps")] = 2000
    # Adam at the rate of its own paper (Kingma and Ba 2015).
    optimizer: Annotated[
        Literal["adam", "rmsprop", "adagrad"], Field(description="of both networks")
    ] = "adam"
    learning_rate: Annotated[float, Field(gt=0, description="of the optimizer")] = 1e-3
    likelihood: Annotated[
        Literal["bernoulli", "gaussian"], Field(description="p(x|z) of each pixel")
    ] = "bernoulli"
    sigma: Annotated[
        float, Field(gt=0, description="deviation of the Gaussian, on images in [-1, 1]")
    ] = 0.2
    beta: Annotated[float, Field(ge=0, description="β, weight of the KL divergence")] = 1.0
    weight_decay: Annotated[
        float, Field(ge=0, description="weight of ½‖θ‖² beside the loss of an image")
    ] = 0.0
    score: Score = "auto"
    stride: Stride = 16


# Section 5: batches of 100, one z per image, Bernoulli pixels for MNIST, 500 hidden units, codes of
# 3 to 200 numbers, Adagrad at 0.01, 0.02 or 0.1, 10^7 images seen and more. The prior of θ is that
# of MNIST's 60,000 images.
PAPER = Config(
    window=0,
    networks="kingma",
    latent_dim=20,
    width=500,
    batch_size=100,
    steps=100_000,
    optimizer="adagrad",
    learning_rate=0.01,
    weight_decay=1 / 60_000,
    score="elbo",
    stride=8,
)

OPTIMIZERS = {
    "adam": Adam,
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
}


@register("vae", "variational autoencoder (Kingma and Welling 2014)", Config, PAPER)
class VAE(Detector):
    """Encoder q(z|x), which gives μ and log σ² side by side, and decoder p(x|z).

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    scores = {
        "excess": ("excess", "kl"),
        "elbo": ("nll", "kl"),
        "kl": ("kl",),
        "residual": ("residual",),
    }
    terms = (("residual",), ("kl",))

    def __init__(self, config: Config, image_shape: tuple[int, int, int], **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        latent_dim, width = config.latent_dim, config.width
        if config.networks == "convolutional":
            self.encoder = convolutional.encoder(image_shape, 2 * latent_dim, width)
            self.decoder = convolutional.generator(image_shape, latent_dim, width, name="decoder")
        else:
            self.encoder = published_dense.kingma_encoder(image_shape, 2 * latent_dim, width)
            self.decoder = published_dense.kingma_decoder(image_shape, latent_dim, width)
        self.code_dim = 2 * latent_dim

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One for both networks."""
        return {"autoencoder": OPTIMIZERS[self.config.optimizer](self.config.learning_rate)}

    def networks_of(self, role: str) -> list[keras.Model]:
        """Encoder and decoder are trained together."""
        return [self.encoder, self.decoder]

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One update of both networks on float32 `[B, h, w, C]` in [-1, 1]."""
        with tf.GradientTape() as tape:
            mean, log_variance = self.encode(images, training=True)
            epsilon = self.random_normal(tf.shape(mean), "posterior")
            z = mean + tf.exp(0.5 * log_variance) * epsilon
            nll = tf.reduce_sum(self.nll(images, self.decoder(z, training=True)), axis=[1, 2])
            kl = losses.kl_to_standard_normal(mean, log_variance)
            loss = total = tf.reduce_mean(nll + self.config.beta * kl)
            if self.config.weight_decay:
                squares = [tf.nn.l2_loss(weight) for weight in self.weights_of("autoencoder")]
                total += self.config.weight_decay * tf.add_n(squares)
        self.minimize("autoencoder", total, tape)
        return {"loss": loss, "nll": tf.reduce_mean(nll), "kl": tf.reduce_mean(kl)}

    def encode(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """Returns μ and log σ² of q(z|x) for windows `[B, h, w, C]`: `[B, latent_dim]` each."""
        return tf.split(self.encoder(images, training=training), 2, axis=-1)

    def nll(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """-log p(x|z) of each pixel, y being the decoder's image: `[B, h, w]`."""
        if self.config.likelihood == "bernoulli":
            return losses.bernoulli_nll(x, y)
        return losses.gaussian_nll(x, y, self.config.sigma)

    def reconstruction(self, images: tf.Tensor) -> tf.Tensor:
        """The decoder's image at z = μ."""
        return self.decoder(self.encode(images)[0], training=False)

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Errors of the likelihood, of the code against the prior, and of pixels.

        `nll`, `excess` and `kl` are in nats per window: the mean of a map is the sum over the
        window's pixels. `code` is μ, and how it changes when the reconstruction is encoded.
        """
        mean, log_variance = self.encode(images)
        reconstruction = self.decoder(mean, training=False)
        pixels = self.window[0] * self.window[1]
        nll = pixels * self.nll(images, reconstruction)
        again, _ = self.encode(reconstruction)
        return {
            "nll": nll,
            "excess": nll - pixels * self.nll(images, images),
            "kl": self.config.beta * losses.kl_to_standard_normal(mean, log_variance),
            "residual": pixel_errors(images, reconstruction),
            "code": tf.concat([mean, again - mean], axis=-1),
        }

    def sample(self, count: int, seed: int = 0) -> tf.Tensor:
        """Draws z from the prior and decodes it: `[count, h, w, C]` in [-1, 1]."""
        return sample(self.decoder, self.config.latent_dim, count, seed)
