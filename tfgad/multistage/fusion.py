"""Stage 2 of the Multistage GAN: a patch with a defect becomes part of an image of fabric."""

import keras
import numpy as np
import tensorflow as tf

from tfgad.core import losses
from tfgad.core.trained import Trained
from tfgad.networks import defects
from tfgad.networks.layers import Adam

TINY = 1e-3  # of an image: a defect of nine pixels
RIM = 6  # pixels around the defect over which T's image gives way to the fabric: about a yarn


@keras.saving.register_keras_serializable("tfgad")
class DefectFusion(Trained):
    """The fusing network T and its critic D (Liu et al. 2020, stage 2).

    x is an image y whose window is blanked and filled with a patch, or which has had a defect drawn
    on it. T(x) is laid over y where the mask has the defect, with a soft rim around it: whatever
    a patch's fabric looks like, that around the defect stays what it is. T minimizes

        λ_r max(0, |a - T(x)| - m) + λ_f |φ(T(x)) - φ(a)|² / |φ(a)|² - λ_a E[log D(T(x))]

    with |a - T(x)| the mean over the pixels that T may change, so that up to m a change costs
    nothing. a is what T aims at. In the paper it is always y, a real image with a defect, whatever
    was pasted; but a generated defect is another one than y's, and a T that is paid for making y of
    it learns to paint over it. So a is y where the patch is y's own defect, disturbed; and where it
    is a generated one on good fabric, a is x within the mask. φ are features of VGG19; the paper
    divides by C·H·W where here it is by their own size, which suits whatever weights φ has. D sees
    the image with the mask of the defect beside it, and judges each place: a defect must be seen
    where the mask has one, and nowhere else.

    Args:
        margin: m, in the images' units; white and black differ by 2.
        reconstruction: λ_r.
        feature: λ_f.
        adversarial: λ_a.
        r1: λ of the penalty λ·E‖∇D‖² on real images.
        fuser: T. critic: D. phi: φ, which is not trained.
        learning_rate: of both Adam optimizers.
        **kwargs: `seed` and `name`.
    """

    def __init__(
        self,
        *,
        fuser,
        critic,
        phi,
        margin=0.1,
        reconstruction=10.0,
        feature=1.0,
        adversarial=0.1,
        r1=0.1,
        learning_rate=2e-4,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.fuser, self.critic, self.phi = fuser, critic, phi
        self.learning_rate = learning_rate
        self.margin, self.reconstruction, self.feature = margin, reconstruction, feature
        self.adversarial, self.r1 = adversarial, r1
        self.built = True

    def optimizers(self):
        """One Adam per network."""
        # Betas as GANs with R1 have them (Mescheder et al. 2018 use 0 and 0.99).
        return {role: Adam(self.learning_rate, 0.0, 0.99) for role in ("critic", "fuser")}

    def train_step(self, batch):
        """One update of D and one of T.

        `images` are y and `aims` a, `[B, H, W, C]`; `pasted` are x with their windows and the masks
        of what was pasted, `[B, H, W, C + 2]`; `real` are images and masks of defects as they are,
        `[B, H, W, C + 1]`.
        """
        y, a, pasted, real = (batch[name] for name in ("images", "aims", "pasted", "real"))
        fused = self.fused(y, pasted, training=True)
        with tf.GradientTape() as tape:
            logits = self._logits(real), self._logits(self._with_mask(fused, pasted))
            critic_loss = losses.discriminator_loss(*logits)
            r1 = losses.r1_penalty(lambda x: tf.reduce_mean(self._logits(x), axis=1), real)
            total = critic_loss + self.r1 * r1
        self.minimize("critic", total, tape)

        of_a = self.phi(a, training=False)
        with tf.GradientTape() as tape:
            fused = self.fused(y, pasted, training=True)
            distance = losses.mean_absolute(a, fused) / tf.maximum(self._changeable(pasted), TINY)
            reconstruction = tf.reduce_mean(tf.maximum(distance - self.margin, 0.0))
            feature = losses.mean_square(of_a, self.phi(fused, training=False))
            feature = tf.reduce_mean(feature) / tf.reduce_mean(tf.square(of_a))
            seen = self._logits(self._with_mask(fused, pasted))
            adversarial = losses.non_saturating_generator_loss(seen)
            total = self.reconstruction * reconstruction + self.feature * feature
            total += self.adversarial * adversarial
        self.minimize("fuser", total, tape)
        return {
            "critic": critic_loss,
            "r1": r1,
            "reconstruction": reconstruction,
            "feature": feature,
            "adversarial": adversarial,
        }

    def fused(self, y, pasted, training=False):
        """T(x) on the defect and around it, y elsewhere: `[B, H, W, C]` in [-1, 1]."""
        share = rim(tf.cast(pasted[..., -1:] > 0, y.dtype))
        return share * self.fuser(pasted, training=training) + (1.0 - share) * y

    def _changeable(self, pasted):
        """The share of an image's pixels that T may change, `[B]`."""
        return tf.reduce_mean(rim(tf.cast(pasted[..., -1:] > 0, tf.float32)), axis=[1, 2, 3])

    def _logits(self, images):
        return self.critic(images, training=True)

    def _with_mask(self, fused, pasted):
        return tf.concat([fused, pasted[..., -1:]], axis=-1)

    def get_config(self):
        """Returns the constructor's arguments."""
        names = ("margin", "reconstruction", "feature", "adversarial", "r1", "learning_rate")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **self.networks(), **own}


def rim(mask):
    """Masks `[B, H, W, 1]` of 0 and 1, falling to 0 over `RIM` pixels around them."""
    side = 2 * RIM + 1
    grown = tf.nn.max_pool2d(mask, side, 1, "SAME")
    padded = tf.pad(grown, [[0, 0], [RIM, RIM], [RIM, RIM], [0, 0]])  # a mean of fewer is another
    share = tf.nn.avg_pool2d(padded, side, 1, "VALID")  # half at the border of what has grown
    return tf.maximum(mask, 2.0 * tf.maximum(share - 0.5, 0.0))


def paste(y, patch, window: tuple[int, int, int]) -> np.ndarray:
    """Fills a window of an image with a patch.

    Args:
        y: image `[H, W, C]`.
        patch: `[side, side, C + 1]`, image and mask.
        window: `(row, column, side)`.

    Returns:
        x, `[H, W, C + 2]`; see `with_window`.
    """
    filled = np.concatenate([y, np.full_like(y[..., :1], -1.0)], axis=-1)
    filled[inside(window)] = patch
    return with_window(filled, window)


def with_window(image, window: tuple[int, int, int]) -> np.ndarray:
    """Returns x of an image with its mask, `[H, W, C + 1]`: the window comes in between."""
    marked = np.zeros((*image.shape[:2], 1), "float32")
    marked[inside(window)] = 1.0
    return np.concatenate([image[..., :-1], marked, image[..., -1:]], axis=-1)


def inside(window: tuple[int, int, int]) -> tuple[slice, slice]:
    """Returns the rows and the columns of a window `(row, column, side)`."""
    row, column, side = window
    return slice(row, row + side), slice(column, column + side)


def build(channels: int, phi: keras.Model, *, width, rate, seed=0, **weights) -> DefectFusion:
    """Makes a compiled `DefectFusion`; `weights` are those of its losses."""
    keras.utils.set_random_seed(seed)
    model = DefectFusion(
        fuser=defects.fuser(channels, width),
        critic=defects.patch_critic(channels, width),
        phi=phi,
        seed=seed,
        learning_rate=rate,
        **weights,
    )
    model.compile()
    return model
