"""GAN (Goodfellow et al. 2014), and with convolutional networks DCGAN (Radford et al. 2016)."""

import keras
import tensorflow as tf

from tfgad.core import losses
from tfgad.core.adversarial import Adversarial


@keras.saving.register_keras_serializable("tfgad")
class GAN(Adversarial):
    """Generator G and discriminator D, whose logit's sigmoid is D(x), the chance that x is real.

    D minimizes -½ (E[log D(x)] + E[log(1 - D(G(z)))]), G the non-saturating -E[log D(G(z))]
    (section 3). Older code gives D two outputs and a softmax; that is the sigmoid of the outputs'
    difference, which one logit says as well. The score is 1 - D(x).

    `gan` and `dcgan` are this model with other networks (`networks/dense.py`, `networks/dcgan.py`).

    Args:
        smoothing: α of one-sided label smoothing: D learns to call real images 1 - α (Salimans et
            al. 2016, section 3.4).
        **kwargs: the networks `generator` and `critic`, and what `Adversarial` takes.
    """

    def __init__(self, *, smoothing=0.0, **kwargs):
        super().__init__(**kwargs)
        self.smoothing = smoothing

    def critic_loss(self, real, fake):
        """-½ (E[log D(x)] + E[log(1 - D(G(z)))])."""
        return losses.discriminator_loss(real, fake, self.smoothing)

    def generator_loss(self, fake):
        """-E[log D(G(z))]."""
        return losses.non_saturating_generator_loss(fake)

    def critic_error(self, seen):
        """1 - D(x)."""
        return tf.sigmoid(-seen["logit"])

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "smoothing": self.smoothing}
