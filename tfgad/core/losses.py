"""The methods' objectives as pure functions: tensors to one number a batch, an image or a pixel.

Symbols are the papers': x an image, z a latent code, D the critic (or discriminator), G the
generator, E the encoder, f(x) the critic's last hidden layer. Each function works in float32.
"""

import math

import tensorflow as tf

GRADIENT_NORM_FLOOR = 1e-12  # under the square root, whose slope at 0 is infinite
FAIR_SHARE = 1e-6  # of a fair coin in every Bernoulli: tanh rounds to 1, log 0 is infinite


def wasserstein_critic_loss(real_logits, fake_logits):
    """E[D(G(z))] - E[D(x)], what the critic minimizes (Arjovsky et al. 2017, eq. 3). Scalar."""
    return tf.reduce_mean(_float32(fake_logits)) - tf.reduce_mean(_float32(real_logits))


def wasserstein_generator_loss(fake_logits):
    """-E[D(G(z))], what the generator minimizes (Arjovsky et al. 2017). Scalar."""
    return -tf.reduce_mean(_float32(fake_logits))


def gradient_penalty(critic, real, fake, epsilon):
    """E[(‖∇D(x̂)‖₂ - 1)²] at x̂ = εx + (1-ε)G(z) (Gulrajani et al. 2017, eq. 3). Scalar.

    Args:
        critic: a function of images `[B, H, W, C]` to logits `[B]`.
        real: images x, `[B, H, W, C]`.
        fake: images G(z), the same shape.
        epsilon: `[B, 1, 1, 1]`, uniform in [0, 1]: one number an image, not one a pixel.
    """
    real, fake, epsilon = _float32(real), _float32(fake), _float32(epsilon)
    x_hat = epsilon * real + (1.0 - epsilon) * fake
    with tf.GradientTape() as tape:
        tape.watch(x_hat)
        logits = critic(x_hat)
    gradient = tape.gradient(logits, x_hat)
    norm = tf.sqrt(tf.reduce_sum(tf.square(gradient), axis=[1, 2, 3]) + GRADIENT_NORM_FLOOR)
    return tf.reduce_mean(tf.square(norm - 1.0))


def r1_penalty(critic, real):
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


def discriminator_loss(real_logits, fake_logits, smoothing=0.0):
    """-½ (E[log D(x)] + E[log(1 - D(G(z)))]), D the logit's sigmoid (Goodfellow et al. 2014).

    Scalar. The ½ is this library's, after GANomaly's code: log 2 for a D that cannot tell. Eq. 1 of
    Goodfellow et al. has the sum. What is weighed against this loss, such as `r1_penalty`, counts
    twice as much as it would beside the sum.

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


def non_saturating_generator_loss(fake_logits):
    """-E[log D(G(z))], D the logit's sigmoid (Goodfellow et al. 2014, section 3). Scalar."""
    return tf.reduce_mean(tf.nn.softplus(-_float32(fake_logits)))


def mean_square(a, b):
    """‖a - b‖² / n of each image, n its number of elements: `[B, ...]` twice to `[B]`."""
    difference = _float32(a) - _float32(b)
    return tf.reduce_mean(tf.square(difference), axis=list(range(1, len(difference.shape))))


def mean_absolute(a, b):
    """‖a - b‖₁ / n of each image: `[B, ...]` twice to `[B]`."""
    difference = _float32(a) - _float32(b)
    return tf.reduce_mean(tf.abs(difference), axis=list(range(1, len(difference.shape))))


def kl_to_standard_normal(mean, log_variance):
    """KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² - 1 - log σ²) in nats: `[B, d]` twice to `[B]`.

    Kingma and Welling 2014, appendix B.
    """
    mean, log_variance = _float32(mean), _float32(log_variance)
    terms = tf.square(mean) + tf.math.expm1(log_variance) - log_variance
    return 0.5 * tf.reduce_sum(terms, axis=-1)


def bernoulli_nll(x, y):
    """-t log p - (1 - t) log(1 - p) of each pixel, in nats, summed over its channels.

    t = (1 + x) / 2 is the pixel's chance of being white, p = (1 + y) / 2 the predicted one, mixed
    with a millionth of a fair coin: no pixel costs more than 15 nats. A t between 0 and 1 costs at
    least its own entropy (Kingma and Welling 2014, appendix C.1).

    Args:
        x: images in [-1, 1], `[B, h, w, C]`.
        y: the decoder's images, the same form.

    Returns:
        `[B, h, w]`, not negative.
    """
    x, y = _float32(x), _float32(y)
    t, keep = (1.0 + x) / 2.0, (1.0 - FAIR_SHARE) / 2.0
    white = tf.math.log(keep * (1.0 + y) + FAIR_SHARE / 2.0)
    black = tf.math.log(keep * (1.0 - y) + FAIR_SHARE / 2.0)
    return -tf.reduce_sum(t * white + (1.0 - t) * black, axis=-1)


def gaussian_nll(x, y, sigma):
    """(x - y)² / 2σ² + log σ + ½ log 2π of each pixel, in nats, summed over its channels.

    The normalising constant is in it, so that bounds of different σ compare; it makes the sum
    negative for small σ (Kingma and Welling 2014, appendix C.2, with one σ for all pixels).

    Args:
        x: images, `[B, h, w, C]`.
        y: the decoder's images, the same form.
        sigma: σ, in the images' units.

    Returns:
        `[B, h, w]`.
    """
    difference = _float32(x) - _float32(y)
    constant = math.log(sigma) + 0.5 * math.log(2.0 * math.pi)
    return tf.reduce_sum(tf.square(difference) / (2.0 * sigma**2) + constant, axis=-1)


def weighted_cross_entropy(masks, logits, weight):
    """Mean over pixels of the binary cross-entropy, that of a defective one times `weight`. Scalar.

    Liu et al. 2020 weigh background by 1 and defects by 9. The mean is over the pixels, not over
    their weights.

    Args:
        masks: 1 on defects, 0 elsewhere, `[B, h, w, 1]`.
        logits: log-odds of a defect, the same form.
        weight: of a defective pixel.
    """
    labels, logits = _float32(masks), _float32(logits)
    return tf.reduce_mean(tf.nn.weighted_cross_entropy_with_logits(labels, logits, weight))


def _float32(x):
    return tf.cast(x, tf.float32)
