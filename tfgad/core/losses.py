"""Loss functions of the methods: from tensors to one value per batch, per image or per pixel.

Symbols are the papers': x an image, z a latent code, D the critic (or discriminator), G the
generator, E the encoder, f(x) the critic's last hidden layer. All functions compute in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

Critic = Callable[[tf.Tensor], tf.Tensor]

LEAST_MISSING = 1e-12  # of 1 - p_t; its square adds nothing to a sum of float32
GRADIENT_NORM_FLOOR = 1e-12  # under the square root, whose slope at 0 is infinite
FAIR_SHARE = 1e-6  # weight of a fair coin in every Bernoulli, as tanh rounds to 1 and log 0 is -∞


def wasserstein_critic_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """E[D(G(z))] - E[D(x)], what the critic minimizes (Arjovsky et al. 2017, eq. 3). Scalar."""
    return tf.reduce_mean(_float32(fake_logits)) - tf.reduce_mean(_float32(real_logits))


def wasserstein_generator_loss(fake_logits: tf.Tensor) -> tf.Tensor:
    """-E[D(G(z))], what the generator minimizes (Arjovsky et al. 2017). Scalar."""
    return -tf.reduce_mean(_float32(fake_logits))


def gradient_penalty(
    critic: Critic, real: tf.Tensor, fake: tf.Tensor, epsilon: tf.Tensor
) -> tf.Tensor:
    """E[(‖∇D(x̂)‖₂ - 1)²] at x̂ = εx + (1-ε)G(z) (Gulrajani et al. 2017, eq. 3). Scalar.

    Args:
        critic: a function of images `[B, H, W, C]` to logits `[B]`.
        real: images x, `[B, H, W, C]`.
        fake: images G(z), the same shape.
        epsilon: `[B, 1, 1, 1]`, uniform in [0, 1]: one number per image, not per pixel.
    """
    real, fake, epsilon = _float32(real), _float32(fake), _float32(epsilon)
    x_hat = epsilon * real + (1.0 - epsilon) * fake
    with tf.GradientTape() as tape:
        tape.watch(x_hat)
        logits = critic(x_hat)
    gradient = tape.gradient(logits, x_hat)
    norm = tf.sqrt(tf.reduce_sum(tf.square(gradient), axis=[1, 2, 3]) + GRADIENT_NORM_FLOOR)
    return tf.reduce_mean(tf.square(norm - 1.0))


def r1_penalty(critic: Critic, real: tf.Tensor) -> tf.Tensor:
    """E‖∇D(x)‖² on real images (Mescheder et al. 2018, eq. 9, without its γ/2). Scalar.

    A critic that adds λ times this to `wasserstein_critic_loss` has γ = 2λ. `discriminator_loss` is
    half of Mescheder's, so that λ beside it corresponds to γ = 4λ.

    Args:
        critic: a function of images `[B, H, W, C]` to logits `[B]`.
        real: images x, `[B, H, W, C]`.
    """
    real = _float32(real)
    with tf.GradientTape() as tape:
        tape.watch(real)
        logits = critic(real)
    gradient = tape.gradient(logits, real)
    return tf.reduce_mean(tf.reduce_sum(tf.square(gradient), axis=[1, 2, 3]))


def discriminator_loss(
    real_logits: tf.Tensor, fake_logits: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
    """-½ (E[log D(x)] + E[log(1 - D(G(z)))]), D the logit's sigmoid (Goodfellow et al. 2014).

    Scalar. It is log 2 if D is undecided. The factor ½ is that of Goodfellow's and of GANomaly's
    code; eq. 1 of Goodfellow et al. is the sum. A term that is added to this loss, such as
    `r1_penalty`, has twice the effect that it would have beside the sum.

    Args:
        real_logits: on images x, `[B]`.
        fake_logits: on generated images, `[B]`.
        smoothing: α; the label of real images is 1 - α instead of 1, that of generated ones stays
            0 (Salimans et al. 2016, section 3.4).
    """
    real_logits, fake_logits = _float32(real_logits), _float32(fake_logits)
    labels = tf.fill(tf.shape(real_logits), tf.cast(1.0 - smoothing, tf.float32))
    real = tf.nn.sigmoid_cross_entropy_with_logits(labels, real_logits)
    fake = tf.nn.sigmoid_cross_entropy_with_logits(tf.zeros_like(fake_logits), fake_logits)
    return 0.5 * (tf.reduce_mean(real) + tf.reduce_mean(fake))


def non_saturating_generator_loss(fake_logits: tf.Tensor) -> tf.Tensor:
    """-E[log D(G(z))], D the logit's sigmoid (Goodfellow et al. 2014, section 3). Scalar."""
    return tf.reduce_mean(tf.nn.softplus(-_float32(fake_logits)))


def mean_square(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """‖a - b‖² / n per image, n its number of elements: `[B, ...]` twice to `[B]`."""
    difference = _float32(a) - _float32(b)
    return tf.reduce_mean(tf.square(difference), axis=list(range(1, len(difference.shape))))


def mean_absolute(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """‖a - b‖₁ / n per image: `[B, ...]` twice to `[B]`."""
    difference = _float32(a) - _float32(b)
    return tf.reduce_mean(tf.abs(difference), axis=list(range(1, len(difference.shape))))


def kl_to_standard_normal(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² - 1 - log σ²) in nats: `[B, d]` twice to `[B]`.

    Kingma and Welling 2014, appendix B.
    """
    mean, log_variance = _float32(mean), _float32(log_variance)
    terms = tf.square(mean) + tf.math.expm1(log_variance) - log_variance
    return 0.5 * tf.reduce_sum(terms, axis=-1)


def bernoulli_nll(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """-t log p - (1 - t) log(1 - p) per pixel, in nats, summed over its channels.

    t = (1 + x) / 2 is the probability that the pixel is white. p is the predicted probability,
    (1 + y) / 2, mixed with a millionth of a fair coin, so that the loss of a channel is at most 15
    nats. For t between 0 and 1 the loss is at least the entropy of t (Kingma and Welling 2014,
    appendix C.1).

    Args:
        x: images in [-1, 1], `[B, h, w, C]`.
        y: the decoder's images, the same shape.

    Returns:
        `[B, h, w]`, not negative.
    """
    x, y = _float32(x), _float32(y)
    t, keep = (1.0 + x) / 2.0, (1.0 - FAIR_SHARE) / 2.0
    white = tf.math.log(keep * (1.0 + y) + FAIR_SHARE / 2.0)
    black = tf.math.log(keep * (1.0 - y) + FAIR_SHARE / 2.0)
    return -tf.reduce_sum(t * white + (1.0 - t) * black, axis=-1)


def gaussian_nll(x: tf.Tensor, y: tf.Tensor, sigma: float) -> tf.Tensor:
    """(x - y)² / 2σ² + log σ + ½ log 2π per pixel, in nats, summed over its channels.

    It includes the normalising constant, so that bounds for different σ can be compared. For small
    σ it may be negative (Kingma and Welling 2014, appendix C.2, with one σ for all pixels).

    Args:
        x: images, `[B, h, w, C]`.
        y: the decoder's images, the same shape.
        sigma: σ, in the images' units.

    Returns:
        `[B, h, w]`.
    """
    difference = _float32(x) - _float32(y)
    constant = math.log(sigma) + 0.5 * math.log(2.0 * math.pi)
    return tf.reduce_sum(tf.square(difference) / (2.0 * sigma**2) + constant, axis=-1)


def weighted_cross_entropy(masks: tf.Tensor, logits: tf.Tensor, weight: float) -> tf.Tensor:
    """Mean binary cross-entropy over pixels, with a weight for defective ones. Scalar.

    The weights of Liu et al. 2020 are 1 for background and 9 for defects. The sum is divided by the
    number of pixels, not by the sum of weights.

    Args:
        masks: 1 on defects, 0 elsewhere, `[B, h, w, 1]`.
        logits: log-odds of a defect, the same shape.
        weight: of a defective pixel.
    """
    labels, logits = _float32(masks), _float32(logits)
    return tf.reduce_mean(tf.nn.weighted_cross_entropy_with_logits(labels, logits, weight))


def focal_loss(
    masks: tf.Tensor, logits: tf.Tensor, gamma: float, counted: tf.Tensor | None = None
) -> tf.Tensor:
    """E[-(1 - p_t)^γ log p_t], p_t the probability of the true class (Lin et al. 2017, eq. 4).

    Args:
        masks: 0 or 1, `[B, H, W, 1]`.
        logits: of a 1, the same shape.
        gamma: γ; 0 gives the cross-entropy.
        counted: 1 where a pixel counts, else 0, the same shape; all do, if it is not given.

    Returns:
        One value per image, `[B]`.
    """
    masks, logits = _float32(masks), _float32(logits)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(masks, logits)
    # 1 - p_t. Where it is 0, the gradient of its power is NaN for γ < 1.
    missing = tf.maximum(tf.abs(masks - tf.sigmoid(logits)), LEAST_MISSING)
    loss = tf.pow(missing, gamma) * entropy
    if counted is None:
        return tf.reduce_mean(loss, axis=[1, 2, 3])
    total = tf.reduce_sum(counted * loss, axis=[1, 2, 3])
    return total / tf.maximum(tf.reduce_sum(counted, axis=[1, 2, 3]), 1.0)


def _float32(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float32)
