"""What all GANs share: a generator and a critic that train against each other."""

import tensorflow as tf

from tfgad.core import losses
from tfgad.core.detector import Detector
from tfgad.errors import UsageError
from tfgad.networks import precision
from tfgad.scores.error_maps import over_window

# Uses of random numbers. Update t of the generator draws with GENERATOR_LATENT + t, and so on.
GENERATOR_LATENT, CRITIC_LATENT, EPSILON = 0, 100, 200


class Adversarial(Detector):
    """Generator G and critic D, or discriminator, which tells images x from G(z).

    A GAN derives from it and states `critic_loss`, `generator_loss` and `critic_error`; where D is
    kept smooth by a penalty, `penalties`. A training step is an iteration of algorithm 1 of
    Goodfellow et al. 2014: it takes `d_steps` batches stacked into one, updates D on each, then G
    `g_steps` times.

    Args:
        d_steps: updates of D a step; k of Goodfellow et al., n_critic of Arjovsky et al.
        g_steps: updates of G a step.
        r1: λ of the penalty λ·E‖∇D(x)‖² on real images (Mescheder et al. 2018, eq. 9;
            `losses.r1_penalty` relates it to their γ). It makes any GAN converge near its solution;
            0 leaves it out.
        **kwargs: the networks `generator` and `critic`, and what `Detector` takes.
    """

    roles = {"critic": ("critic",), "generator": ("generator",)}
    scores = {"critic": ("critic",)}

    def __init__(self, *, d_steps=1, g_steps=1, r1=0.0, score="critic", **kwargs):
        super().__init__(score=score, **kwargs)
        self.d_steps, self.g_steps, self.r1 = d_steps, g_steps, r1
        self.latent_dim = self.generator.inputs[0].shape[-1]

    def critic_loss(self, real, fake):
        """Returns what D minimizes, of its logits on x and on G(z), `[B]` each. Scalar."""
        raise NotImplementedError

    def generator_loss(self, fake):
        """Returns what G minimizes, of D's logits on G(z), `[B]`. Scalar."""
        raise NotImplementedError

    def penalties(self, logit, x, generated, t) -> dict:
        """Returns what else D minimizes at its update t, by name: `{name: (weight, scalar)}`.

        `logit` is D as a function of images alone, their labels y being given.
        """
        return {"r1": (self.r1, losses.r1_penalty(logit, x))} if self.r1 else {}

    @property
    def batches_per_step(self):
        """One batch for each update of the critic."""
        return self.d_steps

    def train_step(self, batch):
        """One iteration of algorithm 1 on `[d_steps · B, h, w, C]`, with labels if `labelled`."""
        images, labels = batch if self.labelled else (batch, None)
        for t, (x, y) in enumerate(self._critic_batches(images, labels)):
            critic_logs = self._update_critic(x, y, t)
        for t in range(self.g_steps):
            generator_loss = self._update_generator(tf.shape(x)[0], y, t)
        self.step.assign_add(1)
        return {**critic_logs, "generator": generator_loss}

    def _critic_batches(self, images, labels):
        size = images.shape[0]
        if size is None or size % self.d_steps:
            hint = f"give a fixed multiple of d_steps={self.d_steps} (drop_remainder=True)"
            raise UsageError("batch size", size, "cannot be shared among the critic's steps", hint)
        none = [None] * self.d_steps
        ys = none if labels is None else tf.split(labels, self.d_steps)
        return list(zip(tf.split(images, self.d_steps), ys, strict=True))

    def _update_critic(self, x, y, t):
        def logit(images):
            return self._logit(images, y)

        z = self.noise([tf.shape(x)[0], self.latent_dim], CRITIC_LATENT + t)
        generated = self._generated(z, y)
        with tf.GradientTape() as tape:
            loss = self.critic_loss(logit(x), logit(generated))
            penalties = self.penalties(logit, x, generated, t)
            total = loss + sum(weight * penalty for weight, penalty in penalties.values())
        self.minimize("critic", tape, total)
        return {"critic": loss, **{name: penalty for name, (_, penalty) in penalties.items()}}

    def _update_generator(self, size, y, t):
        z = self.noise([size, self.latent_dim], GENERATOR_LATENT + t)
        with tf.GradientTape() as tape:
            loss = self.generator_loss(self._logit(self._generated(z, y), y))
        self.minimize("generator", tape, loss)
        return loss

    def _generated(self, z, y):
        """G(z) while training; a `labelled` method's G knows y."""
        return self.generator(z, training=True)

    def _logit(self, x, y):
        """D's logit on x while training; a `labelled` method's D knows y."""
        return self.critic(x, training=True)["logit"]

    def critic_error(self, seen):
        """Returns how anomalous images are, `[B]`, by the dict that D makes of them."""
        raise NotImplementedError

    def errors(self, images):
        """D's error of each window, the same over all of it: D does not say where."""
        seen = self.critic(images, training=False)
        return {"critic": over_window(self.critic_error(seen), self.window)}

    @precision.scoring()
    def sample(self, count: int, seed: int = 0):
        """Draws images from the generator: `[count, h, w, C]` in [-1, 1]."""
        z = tf.random.stateless_normal([count, self.latent_dim], [seed, 0])
        return self.generator(z, training=False)

    def get_config(self):
        """Returns the constructor's arguments."""
        own = {"d_steps": self.d_steps, "g_steps": self.g_steps, "r1": self.r1}
        return {**super().get_config(), **own}
