"""Variational autoencoder (Kingma and Welling 2014), β-VAE (Higgins et al. 2017)."""

import keras
import tensorflow as tf

from tfgad.core import losses
from tfgad.core.detector import Detector
from tfgad.errors import UsageError, nearest
from tfgad.networks import precision
from tfgad.scores.error_maps import over_window, pixel_errors

POSTERIOR = 0  # use of random numbers
LIKELIHOODS = ("bernoulli", "gaussian")


@keras.saving.register_keras_serializable("tfgad")
class VAE(Detector):
    """Encoder q(z|x) = N(μ, diag σ²) and decoder p(x|z), before a standard normal prior p(z).

    Both minimize the negative of the evidence lower bound (eq. 3), in nats an image,

        E_q[-log p(x|z)] + β KL(q(z|x) ‖ p(z))

    the expectation taken at one z = μ + σ ε, ε ~ N(0, I) (eq. 7 with L = 1). β of Higgins et al.
    2017 (eq. 4) is 1 in the paper. Scores take the same sum at z = μ, so that they are
    deterministic and leave out what the spread of q costs.

    - `elbo`: that sum.
    - `excess`: the sum less what p would cost at y = x, the best there is. For the Gaussian that is
      a constant, for the Bernoulli the entropy of the image's own grey levels: no fault of the
      image, though thick and blurred strokes have more of it. With the digit 8 of MNIST normal the
      AUROC is 0.91 by `excess`, 0.68 by `elbo` (`examples/vae_mnist.py`).
    - `kl`: the second term alone.
    - `residual`: the mean squared error.

    Args:
        likelihood: p(x|z) of each pixel, the decoder's image y standing for its parameter:
            `bernoulli` with probability (1 + y) / 2, grey levels counting as chances of white, or
            `gaussian` with mean y.
        sigma: deviation of the Gaussian, on images in [-1, 1]; the Bernoulli has none.
        beta: β.
        **kwargs: the networks `encoder`, which gives μ and log σ² side by side, and `decoder`, and
            what `Detector` takes.
    """

    roles = {"autoencoder": ("encoder", "decoder")}
    scores = {
        "excess": ("excess", "kl"),
        "elbo": ("nll", "kl"),
        "kl": ("kl",),
        "residual": ("residual",),
    }
    sees = "encoder"
    reconstructs = True
    cue_errors = ("residual", "kl")
    cue_groups = (1, 1)

    def __init__(self, *, likelihood="bernoulli", sigma=0.2, beta=1.0, score="excess", **kwargs):
        super().__init__(score=score, **kwargs)
        if likelihood not in LIKELIHOODS:
            hint = nearest(likelihood, LIKELIHOODS)
            raise UsageError("likelihood", likelihood, "is not known", hint)
        if not sigma > 0:
            raise UsageError("sigma", sigma, "is no deviation", "give a number above 0")
        self.likelihood, self.sigma, self.beta = likelihood, sigma, beta
        self.latent_dim = self.decoder.input_shape[-1]

    def train_step(self, x):
        """One update of both networks on `[B, h, w, C]`."""
        with tf.GradientTape() as tape:
            mean, log_variance = self.encode(x, training=True)
            noise = self.noise(tf.shape(mean), POSTERIOR)
            z = mean + tf.exp(0.5 * log_variance) * noise
            nll = tf.reduce_sum(self._nll(x, self.decoder(z, training=True)), axis=[1, 2])
            kl = losses.kl_to_standard_normal(mean, log_variance)
            loss = tf.reduce_mean(nll + self.beta * kl)
        self.minimize("autoencoder", tape, loss)
        self.step.assign_add(1)
        return {"negative_elbo": loss, "nll": tf.reduce_mean(nll), "kl": tf.reduce_mean(kl)}

    def encode(self, images, training=False):
        """Returns μ and log σ² of q(z|x) for windows `[B, h, w, C]`: `[B, latent_dim]` each."""
        return tf.split(self.encoder(images, training=training), 2, axis=-1)

    def _nll(self, x, y):
        """-log p(x|z) of each pixel: `[B, h, w]`."""
        if self.likelihood == "bernoulli":
            return losses.bernoulli_nll(x, y)
        return losses.gaussian_nll(x, y, self.sigma)

    def reconstruction(self, images):
        """The decoder's image at z = μ."""
        return self.decoder(self.encode(images)[0], training=False)

    def errors(self, images):
        """Of the likelihood, of the code's divergence from the prior, and of pixels.

        The first three are in nats a window: a map's mean is the sum over the window's pixels.
        """
        mean, log_variance = self.encode(images)
        rebuilt = self.decoder(mean, training=False)
        pixels = self.window[0] * self.window[1]
        nll = pixels * self._nll(images, rebuilt)
        again, _ = self.encode(rebuilt)
        kl = self.beta * losses.kl_to_standard_normal(mean, log_variance)
        return {
            "nll": nll,
            "excess": nll - pixels * self._nll(images, images),
            "kl": over_window(kl, self.window),
            "residual": pixel_errors(images, rebuilt),
            "code": tf.concat([mean, again - mean], axis=-1),
        }

    @property
    def code_dim(self):
        """μ, and how it changes when the reconstruction is encoded."""
        return 2 * self.decoder.input_shape[-1]

    @precision.scoring()
    def sample(self, count: int, seed: int = 0):
        """Draws z from the prior and decodes it: `[count, h, w, C]` in [-1, 1]."""
        z = tf.random.stateless_normal([count, self.latent_dim], [seed, 0])
        return self.decoder(z, training=False)

    def get_config(self):
        """Returns the constructor's arguments."""
        names = ("likelihood", "sigma", "beta")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
