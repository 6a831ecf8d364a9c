"""GANomaly (Akcay et al. 2018): encode, decode, encode again, and compare the two codes."""

import keras
import tensorflow as tf

from tfgad.core import losses
from tfgad.core.detector import Detector
from tfgad.scores.error_maps import feature_errors, over_window, pixel_errors


@keras.saving.register_keras_serializable("tfgad")
class GANomaly(Detector):
    """Autoencoder G = (G_E, G_D), second encoder E, discriminator D with features f.

    The generator and E minimize (eq. 1 to 4)

        w_adv ‖f(x) - f(G(x))‖² + w_con ‖x - G(x)‖₁ + w_enc ‖G_E(x) - E(G(x))‖²

    each norm a mean over its elements; D learns to tell x from G(x). The score is the distance of
    the two codes (eq. 5). Where it lies is read from the reconstruction.

    Args:
        adversarial_weight, contextual_weight, encoder_weight: w_adv, w_con, w_enc.
        r1: λ of D's penalty λ·E‖∇D(x)‖² on real images; 0, as published, leaves it out. The penalty
            is of each image, and wants a D without batch normalisation.
        **kwargs: the networks `encoder` (G_E), `decoder` (G_D), `second_encoder` (E) and `critic`
            (D), and what `Detector` takes.
    """

    roles = {"generator": ("encoder", "decoder", "second_encoder"), "critic": ("critic",)}
    scores = {"latent": ("latent",), "residual": ("residual",)}
    reconstructs = True

    def __init__(
        self,
        *,
        adversarial_weight=1.0,
        contextual_weight=50.0,
        encoder_weight=1.0,
        r1=0.0,
        score="latent",
        **kwargs,
    ):
        super().__init__(score=score, **kwargs)
        self.adversarial_weight = adversarial_weight
        self.contextual_weight = contextual_weight
        self.encoder_weight = encoder_weight
        self.r1 = r1

    def train_step(self, x):
        """One update of the generator and one of the discriminator on `[B, h, w, C]`.

        Neither update touches what the other's loss was computed from, so one forward pass serves
        both.
        """
        with tf.GradientTape(persistent=True) as tape:
            z = self.encoder(x, training=True)
            generated = self.decoder(z, training=True)
            again = self.second_encoder(generated, training=True)
            real, fake = self.critic(x, training=True), self.critic(generated, training=True)

            adversarial = losses.mean_square(real["features"][-1], fake["features"][-1])
            contextual = losses.mean_absolute(x, generated)
            encoder = losses.mean_square(z, again)
            generator_loss = tf.reduce_mean(
                self.adversarial_weight * adversarial
                + self.contextual_weight * contextual
                + self.encoder_weight * encoder
            )
            critic_loss = losses.discriminator_loss(real["logit"], fake["logit"])
            penalties = {"r1": losses.r1_penalty(self._logit, x)} if self.r1 else {}
            penalised = critic_loss + sum(self.r1 * penalty for penalty in penalties.values())
        self.minimize("generator", tape, generator_loss)
        self.minimize("critic", tape, penalised)

        self.step.assign_add(1)
        means = {"adversarial": adversarial, "contextual": contextual, "encoder": encoder}
        means = {name: tf.reduce_mean(value) for name, value in means.items()}
        return {**means, "critic": critic_loss, **penalties}

    def _logit(self, x):
        return self.critic(x, training=True)["logit"]

    def reconstruction(self, images):
        """G(x) = G_D(G_E(x))."""
        return self.decoder(self.encoder(images, training=False), training=False)

    def errors(self, images):
        """Of the latent code encoded again, of pixels, and of the features f."""
        z = self.encoder(images, training=False)
        generated = self.decoder(z, training=False)
        again = self.second_encoder(generated, training=False)
        f_x = self.critic(images, training=False)["features"]
        f_generated = self.critic(generated, training=False)["features"]
        return {
            "latent": over_window(losses.mean_absolute(z, again), self.window),
            "residual": pixel_errors(images, generated),
            **feature_errors(f_x, f_generated, self.window),
            "code": tf.concat([z, again - z], axis=-1),
        }

    @property
    def code_dim(self):
        """The code, and how it changes when encoded again."""
        return 2 * self.decoder.input_shape[-1]

    def get_config(self):
        """Returns the constructor's arguments."""
        names = ("adversarial_weight", "contextual_weight", "encoder_weight", "r1")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
