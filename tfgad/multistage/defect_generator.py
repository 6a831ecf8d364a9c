"""Stage 1 of the Multistage GAN: patches of defects in the style of a given fabric."""

import keras
import tensorflow as tf

from tfgad.core import losses
from tfgad.core.trained import Trained
from tfgad.errors import UsageError, nearest
from tfgad.networks import defects
from tfgad.networks.layers import Adam

GROUNDS = ("fabric", "nothing")  # the second is the paper's


@keras.saving.register_keras_serializable("tfgad")
class DefectGenerator(Trained):
    """A conditional GAN, G(z, s, k) against D(x, s, k) (Liu et al. 2020, stage 1).

    s is the style of a fabric, a code of its Gram matrix (`style`), k the kind of defect, which the
    paper leaves to z. x is a patch with a defect, and with the mask of it as a further channel: G
    makes both at once, so that it is known where its defect is; and D judges both, so that the mask
    fits. A real pair is a real defect with the style of its own fabric.

    The paper's G draws the fabric too, and from 700 defects that takes longer than a CPU allows:
    after 2,000 steps the masks are right for their kinds, but the weave is a blur. So G may also be
    one that draws its defect on a good patch of the fabric (`generator_on_fabric`).

    The paper does not say how it trains; here by the non-saturating loss with R1 (Mescheder et al.
    2018), which holds with few images.

    Args:
        r1: λ of the penalty λ·E‖∇D(x)‖² on real patches.
        generator: G. critic: D (`tfgad.networks.defects`).
        learning_rate: of both Adam optimizers.
        **kwargs: `seed` and `name`.
    """

    def __init__(self, *, generator, critic, r1=0.1, learning_rate=1e-3, **kwargs):
        super().__init__(**kwargs)
        self.generator, self.critic, self.learning_rate = generator, critic, learning_rate
        self.r1 = r1
        self.latent_dim = self.generator.inputs[0].shape[-1]
        self.on_fabric = len(self.generator.inputs) > 3
        self.built = True

    def optimizers(self):
        """One Adam per network."""
        # Betas as GANs with R1 have them (Mescheder et al. 2018 use 0 and 0.99).
        return {role: Adam(self.learning_rate, 0.0, 0.99) for role in ("critic", "generator")}

    def train_step(self, batch):
        """One update of D and one of G.

        `patches` are real, `[B, h, w, C + 1]`; of each, `fabric` is a good patch of its fabric,
        `[B, h, w, C]`, `style` that one's style and `kind` `[B]` the kind of its defect. The same
        are asked of G.
        """
        x, y, s, k = (batch[name] for name in ("patches", "fabric", "style", "kind"))
        shape = [tf.shape(x)[0], self.latent_dim]

        def judged(patches):
            return self.critic([patches, s, k], training=True)

        def logit(patches):
            both = judged(patches)
            return both["whole"] + tf.reduce_mean(both["places"], axis=1)

        generated = self._drawn(self.random_normal(shape, "critic"), s, k, y, training=True)
        with tf.GradientTape() as tape:
            critic_loss = _of_both(losses.discriminator_loss, judged(x), judged(generated))
            r1 = losses.r1_penalty(logit, x)
            total = critic_loss + self.r1 * r1
        self.minimize("critic", total, tape)

        z = self.random_normal(shape, "generator")
        with tf.GradientTape() as tape:
            patches = self._drawn(z, s, k, y, training=True)
            generator_loss = _of_both(losses.non_saturating_generator_loss, judged(patches))
        self.minimize("generator", generator_loss, tape)
        return {"critic": critic_loss, "r1": r1, "generator": generator_loss}

    def generate(self, style, kind, fabric, seed: int = 0):
        """Draws a defect for each style `[B, d]`, kind int32 `[B]` and fabric `[B, h, w, C]`.

        Returns:
            Patches `[B, h, w, C + 1]`, images and masks in [-1, 1]; or, if it draws on fabric, the
            changes that make such of it, `[B, h, w, C + 4]` (`tfgad.networks.defects.on_fabric`).
        """
        asked_for = (tf.convert_to_tensor(each) for each in (style, kind, fabric))
        return self._generate(*asked_for, tf.constant(seed, tf.int64))

    @tf.function(reduce_retracing=True, autograph=False)
    def _generate(self, style, kind, fabric, seed):
        z = tf.random.stateless_normal([tf.shape(style)[0], self.latent_dim], [seed, 0])
        return self._generated(z, style, kind, fabric, training=False)

    def _drawn(self, z, s, k, y, training):
        """Returns patches."""
        generated = self._generated(z, s, k, y, training)
        return defects.on_fabric(generated, y) if self.on_fabric else generated

    def _generated(self, z, s, k, y, training):
        return self.generator([z, s, k, *([y] if self.on_fabric else [])], training=training)

    def get_config(self):
        """Returns the constructor's arguments."""
        own = {"r1": self.r1, "learning_rate": self.learning_rate}
        return {**super().get_config(), **self.networks(), **own}


def _of_both(loss, *judged):
    """Adds a loss of patches as wholes and the same of places in them."""
    return loss(*(each["whole"] for each in judged)) + loss(*(each["places"] for each in judged))


def build(
    patch_shape, style_dim: int, kinds: int, *, ground, latent_dim, width, r1, rate, seed=0
) -> DefectGenerator:
    """Makes a compiled `DefectGenerator`.

    Args:
        patch_shape: `(h, w, C + 1)`.
        style_dim: of the style code.
        kinds: how many there are.
        ground: what G draws on, of `GROUNDS`.
        latent_dim: of z.
        width: of both networks; see `tfgad.networks.defects`.
        r1: λ of the penalty.
        rate: of Adam, for both.
        seed: of weights and training.

    Raises:
        UsageError: no such ground.
    """
    if ground not in GROUNDS:
        raise UsageError("ground", ground, "is not known", nearest(ground, GROUNDS))
    keras.utils.set_random_seed(seed)
    make = defects.generator_on_fabric if ground == "fabric" else defects.generator
    model = DefectGenerator(
        generator=make(patch_shape, latent_dim, style_dim, kinds, width),
        critic=defects.critic(patch_shape, style_dim, kinds, width),
        r1=r1,
        learning_rate=rate,
        seed=seed,
    )
    model.compile()
    return model
