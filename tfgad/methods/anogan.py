"""AnoGAN (Schlegl et al. 2017): a trained GAN, and for each image a search for its latent code."""

import functools

import keras
import tensorflow as tf

from tfgad.core.encoder_stage import EncoderStage
from tfgad.core.latent_search import DISTANCES, compiled_search, search_options
from tfgad.methods.gan import GAN
from tfgad.networks import precision
from tfgad.scores.error_maps import feature_errors, over_window, pixel_errors


@keras.saving.register_keras_serializable("tfgad")
class AnoGAN(EncoderStage, GAN):
    """Generator G and discriminator D with features f, trained as `GAN` trains them.

    What G can make is normal. An image x is judged by the nearest image that G can make, found by
    moving z down the gradient of (eq. 5)

        A(x) = (1 - λ) Σ|x - G(z)| + λ Σ|f(x) - f(G(z))|

    whose value at the z found is the score. The search is `core/latent_search.py`; whatever the
    networks are trained in, it computes in float32: hundreds of steps would carry rounding on.

    The paper starts from random codes. Here a search starts from the nearest of a pool of random
    codes, or, where the model is given an encoder E, from E(x): a second stage trains E as f-AnoGAN
    does (`EncoderStage`). That takes tens of steps instead of hundreds.

    Args:
        search: options of the search, as a dict; see `SearchOptions`.
        encoder: E, or None. Without it there is one stage, `gan`.
        **kwargs: the networks `generator` and `critic`, and what `EncoderStage` and `GAN` take.
    """

    encoder = None
    scores = {"loss": ("pixels", "feature"), "pixels": ("pixels",), "critic": ("critic",)}

    def __init__(self, *, search=None, encoder=None, score="loss", **kwargs):
        if encoder is None:
            self.roles, self.stages = GAN.roles, ("gan",)
        else:
            kwargs["encoder"] = encoder
        super().__init__(score=score, **kwargs)
        self.search = search_options(**(search or {}))
        self._search = compiled_search(
            generator=functools.partial(self.generator, training=False),
            features=functools.partial(_last_features, self.critic),
            latent_dim=self.latent_dim,
            options=self.search,
        )

    @precision.scoring()
    def find(self, images, start=None):
        """Searches the codes of windows `[B, h, w, C]`; returns what `latent_search` returns.

        Args:
            images: the windows.
            start: codes to start from, if not E's or the pool's.
        """
        if start is None and self.encoder:
            start = self.encoder(images, training=False)
        return self._search(images) if start is None else self._search(images, start)

    def reconstruction(self, images):
        """G at the z found."""
        return self.find(images)["generated"]

    def errors(self, images):
        """Of the search: its two terms, weighted; and of what it found, pixels and features."""
        start = self.encoder(images, training=False) if self.encoder else None
        found = self.find(images, start)
        weight, distance = self.search.feature_weight, DISTANCES[self.search.distance]
        pixels = tf.reduce_sum(distance(images - found["generated"]), axis=-1)
        seen = self.critic(images, training=False)
        features = feature_errors(seen["features"], self._f(found["generated"]), self.window)
        area = self.window[0] * self.window[1]  # a map's mean is the sum over the window's pixels
        return {
            "pixels": (1 - weight) * area * pixels,
            "feature": over_window(weight * found["feature"], self.window),
            "residual": pixel_errors(images, found["generated"]),
            **features,
            "critic": over_window(self.critic_error(seen), self.window),
            "code": self._code(found, start),
        }

    def _code(self, found, start):
        """z; with an encoder also how far the search went, and z encoded again."""
        z = found["latent"]
        if start is None:
            return z
        again = self.encoder(found["generated"], training=False)
        return tf.concat([z, z - start, again - z], axis=-1)

    @property
    def cue_errors(self):
        """Of pixels and of the hidden layers: not every AnoGAN encodes its code again."""
        *of_images, _ = super().cue_errors
        return tuple(of_images)

    @property
    def cue_groups(self):
        """Pixels, and features."""
        return (1, len(self.cue_errors) - 1)

    @property
    def code_dim(self):
        """That of `_code`."""
        return self.generator.input_shape[-1] * (3 if self.encoder else 1)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "search": self.search._asdict()}


def _last_features(critic, images):
    """f(x), the critic's last hidden layer."""
    return critic(images, training=False)["features"][-1]
