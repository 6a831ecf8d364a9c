"""Stage 1 of the Multistage GAN: patches of defects in the style of a given fabric.

A conditional GAN (Liu et al. 2020, stage 1). The condition is the style s of a fabric, a code of
its Gram matrix (`style`), and the kind k of the defect, which the paper leaves to z. x is a patch
with a defect, and with its mask as a further channel: G generates both at once, so that the place
of the defect is known, and D sees both, so that the mask fits. A real pair is a real defect with
the style of its own fabric. D has two outputs, D_w for the patch as a whole and D_p for each of n
places in it; each loss is the sum over both:

    critic      L_D = -½ E[log D(x, s, k)] - ½ E[log(1 - D(G(z, s, k), s, k))] + λ E‖∇D(x)‖²
    generator   L_G = -E[log D(G(z, s, k), s, k)]

The paper does not give its losses; these are the non-saturating ones with the R1 penalty (Mescheder
et al. 2018), which are stable with few images. The penalty is on the logit D_w plus the mean of
D_p.

The paper's G generates the fabric, too. From 700 defects that takes longer than a CPU allows: after
2,000 steps the masks were right for their kinds, but the weave was blurred. By default G therefore
draws its defect on a good patch y of the fabric.

Read beside it: `networks/defects.py`, the networks; `core/losses.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfgad.core import losses, settings
from tfgad.core.trained import Trained
from tfgad.multistage.painter_config import PainterConfig
from tfgad.networks import defects
from tfgad.networks.layers import Adam


@keras.saving.register_keras_serializable("tfgad")
class DefectGenerator(Trained):
    """Generator G(z, s, k) or G(z, s, k, y), and critic D(x, s, k).

    Args:
        config: hyper-parameters of the painter.
        patch_shape: `(h, w, C + 1)`, image and mask.
        style_dim: length of the style code.
        kinds: number of kinds of defect.
        **kwargs: `seed` and `name`; see `Trained`.
    """

    def __init__(
        self,
        config: PainterConfig,
        patch_shape: tuple[int, int, int],
        style_dim: int,
        kinds: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config, self.patch_shape = config, tuple(patch_shape)
        self.style_dim, self.kinds = style_dim, kinds
        self.on_fabric = config.ground == "fabric"
        make = defects.generator_on_fabric if self.on_fabric else defects.generator
        self.generator = make(patch_shape, config.latent_dim, style_dim, kinds, config.width)
        self.critic = defects.critic(patch_shape, style_dim, kinds, config.width)

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam per network; betas as usual with R1 (Mescheder et al. 2018: 0 and 0.99)."""
        rate = self.config.learning_rate
        return {role: Adam(rate, beta_1=0.0, beta_2=0.99) for role in ("critic", "generator")}

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One update of D and one of G.

        Args:
            batch: `patches` are real, `[B, h, w, C + 1]`; `fabric` is a good patch of the fabric of
                each, `[B, h, w, C]`, `style` its style `[B, d]`, and `kind` int32 `[B]` the kind of
                the defect. G gets the same styles, kinds and fabrics.
        """
        x, y, s, k = (batch[name] for name in ("patches", "fabric", "style", "kind"))
        shape = [tf.shape(x)[0], self.config.latent_dim]

        z = self.random_normal(shape, "critic")
        generated = self._patches(z, s, k, y, training=True)
        with tf.GradientTape() as tape:
            real = self.critic([x, s, k], training=True)
            fake = self.critic([generated, s, k], training=True)
            critic_loss = losses.discriminator_loss(real["whole"], fake["whole"])
            critic_loss += losses.discriminator_loss(real["places"], fake["places"])
            r1 = losses.r1_penalty(self._logit(s, k), x)
            total = critic_loss + self.config.r1 * r1
        self.minimize("critic", total, tape)

        z = self.random_normal(shape, "generator")
        with tf.GradientTape() as tape:
            generated = self._patches(z, s, k, y, training=True)
            fake = self.critic([generated, s, k], training=True)
            generator_loss = losses.non_saturating_generator_loss(fake["whole"])
            generator_loss += losses.non_saturating_generator_loss(fake["places"])
        self.minimize("generator", generator_loss, tape)
        return {"critic": critic_loss, "r1": r1, "generator": generator_loss}

    def _logit(self, s: tf.Tensor, k: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns the function of patches to D_w plus the mean of D_p, `[B]`."""

        def logit(patches: tf.Tensor) -> tf.Tensor:
            logits = self.critic([patches, s, k], training=True)
            return logits["whole"] + tf.reduce_mean(logits["places"], axis=1)

        return logit

    def generate(
        self, style: Any, kind: Any, fabric: Any, seed: Any = 0, *, compiled: bool = True
    ) -> tf.Tensor:
        """Generates a defect for each style `[B, d]`, kind int32 `[B]`, fabric `[B, h, w, C]`.

        Args:
            style: codes of the fabrics, float32.
            kind: indices of the kinds of defect.
            fabric: good patches, float32 in [-1, 1].
            seed: of z, whole number or int64 []; the same seed gives the same defects.
            compiled: whether G runs as a graph of its own.

        Returns:
            Patches `[B, h, w, C + 1]`, images and masks in [-1, 1]; if G draws on fabric, the
            changes to the fabric instead, `[B, h, w, C + 4]` (`tfgad.networks.defects.on_fabric`).
        """
        style, kind, fabric = (tf.convert_to_tensor(each) for each in (style, kind, fabric))
        generate = self._generate_in_graph if compiled else self._generate
        return generate(style, kind, fabric, tf.convert_to_tensor(seed, tf.int64))

    @tf.function(reduce_retracing=True, autograph=False)
    def _generate_in_graph(
        self, style: tf.Tensor, kind: tf.Tensor, fabric: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        return self._generate(style, kind, fabric, seed)

    def _generate(
        self, style: tf.Tensor, kind: tf.Tensor, fabric: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        shape = [tf.shape(style)[0], self.config.latent_dim]
        z = tf.random.stateless_normal(shape, [seed, 0])
        return self._output(z, style, kind, fabric, training=False)

    def _patches(
        self, z: tf.Tensor, s: tf.Tensor, k: tf.Tensor, y: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """Returns generated patches, `[B, h, w, C + 1]`."""
        output = self._output(z, s, k, y, training)
        return defects.on_fabric(output, y) if self.on_fabric else output

    def _output(
        self, z: tf.Tensor, s: tf.Tensor, k: tf.Tensor, y: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """Returns the output of the network G."""
        return self.generator([z, s, k, *([y] if self.on_fabric else [])], training=training)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments and the networks."""
        return {
            **super().get_config(),
            "networks": self.networks(),
            "config": settings.as_dict(self.config),
            "patch_shape": self.patch_shape,
            "style_dim": self.style_dim,
            "kinds": self.kinds,
        }

    @classmethod
    def arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns the constructor's arguments from a file, also from one without `config`."""
        if "config" not in config:
            return _arguments_of_before(config)
        parsed = settings.parse(PainterConfig, config["config"], of="the painter")
        return {**config, "config": parsed, "patch_shape": tuple(config["patch_shape"])}


def _arguments_of_before(saved: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments from a file that holds the networks and `r1` alone."""
    networks = {name: saved[name] for name in ("generator", "critic")}
    generator, critic = networks["generator"], networks["critic"]
    config = dataclasses.replace(
        PainterConfig(),
        ground="fabric" if len(generator.inputs) > 3 else "nothing",
        latent_dim=generator.inputs[0].shape[-1],
        r1=saved["r1"],
    )
    return {
        "config": config,
        "patch_shape": tuple(critic.inputs[0].shape[1:]),
        "style_dim": critic.inputs[1].shape[-1],
        "kinds": generator.get_layer("embedding").input_dim,
        "networks": networks,
        "seed": saved["seed"],
        "name": saved["name"],
    }


def build(
    config: PainterConfig,
    patch_shape: tuple[int, int, int],
    style_dim: int,
    kinds: int,
    seed: int = 0,
) -> DefectGenerator:
    """Makes a compiled `DefectGenerator`, whose first weights follow the seed."""
    keras.utils.set_random_seed(seed)
    model = DefectGenerator(config, patch_shape, style_dim, kinds, seed=seed)
    model.compile()
    return model
