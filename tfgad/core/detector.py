"""The contract of every method: a Keras model fitted to normal images that scores others."""

from __future__ import annotations

import logging
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.core import checks, legacy, settings
from tfgad.core.calibrated import Calibrated
from tfgad.data import ignored as ignoring
from tfgad.data import ignored_own
from tfgad.scores.cue_weights import EQUAL, SETTING

logger = logging.getLogger(__name__)


class Detector(Calibrated):
    """A one-class detector: fitted to normal images, it gives any image a score and a map.

    A method derives from it. Beside what `Trained` asks for, it states

    - `scores`: the scores that it has, each the sum of some errors, `{name: (error, ...)}`; the
      first is its default;
    - `errors(windows)`: the error of each window, by name. An error is a map `[N, h, w]`, whose
      mean is the error of the window, or a number `[N]` without a location in the window.

    A method that reconstructs images states besides

    - `reconstruction(windows)`: the reconstructions, `[N, h, w, C]` in [-1, 1];
    - `terms`: the names of the errors that the scores `cues` and `density` read, in groups of
      equal weight, `residual` among them. They are not negative;
    - `code_dim`: the length of `code` `[N, code_dim]`, which is then one of `errors`: what the
      networks know of a window beside the errors, such as its latent code.

    A method that makes further scores itself, in `scored_by`, states their names in `tile_scores`.
    The first is then its default; of a method that reconstructs, on images larger than the window.

    A method that marks pixels as defective states `pixel_threshold`, the value of the map above
    which it does.

    A method that learns from labels sets `labelled`: its `train_step` takes `(images, labels)`.

    Networks take images of one size, the window. An image of that size has the mean of its errors
    as score. A larger one is scored window by window (`tfgad.data.tiling`): the maps of the windows
    are blended, and the score is the largest value of the map. Scoring is in inference mode and in
    float32, always.

    Args:
        config: the hyper-parameters of the method, a `Config` of its module.
        image_shape: `(height, width, channels)` of the windows.
        seed: of all randomness in training.
        score: one of `scores`, `cues`, `density`, `places`, or `auto`: of a method that
            reconstructs, `density` where windows are whole images, and the first of `tile_scores`
            or else `cues` where images are larger; of others the first of `tile_scores` or else of
            `scores`. That of `config`, if not given. A run on resized images has `places` instead
            of `cues`, and `joint_places` instead of the `joint` of `ganomaly_unet`.
        stride: of the windows on larger images, in pixels; where it does not divide a side, the
            divisor next to it is taken (`tiling.strides_of`). That of `config`, if not given.
        tile: `(height, width)` of the images that the threshold is set on; the window's, if not
            given. The false-positive rate is that of a tile.
        ignored: bool `[height, width]` of the tile, true where pixels are ignored on every image:
            images of the tile's size are filled there (`tfgad.data.ignored`) before anything else
            sees them, and maps and scores leave it out. Images of other sizes are refused then.
            Windows that are smaller than the tile have to be cut from images that `filled` returns.
        products: names of the products, if it is one model for several; see
            `tfgad.scores.products`.
        cue_weights: of the terms of `cues`, also within `joint`, or of `places`, such as
            `features:2,tone:0`; see `tfgad.scores.cue_weights`.
        name: of the model.

    Raises:
        UsageError: a score that the method does not have, a region that is not one of the tile, or
            products that are not two or more names.

    Examples:
        >>> model = tfgad.build("ganomaly", (32, 32, 1))
        >>> model.fit(images, batch_size=model.images_per_step)  # float32 [N, 32, 32, 1] in [-1, 1]
        >>> model.adapt(images)
        >>> model.calibrate(held_out, false_positive_rate=0.01)
        >>> model.predict(others)["score"]                       # float32 [N]
    """

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks images, then calls `call`: Keras would wrap an error of that.

        Raises:
            UsageError: images that are not float32 or smaller than the window; or a model of
                several products that cannot recognise them yet. Images beyond [-1, 1], or NaN,
                raise TensorFlow's `InvalidArgumentError`.
        """
        if not isinstance(images, keras.KerasTensor):
            images = checks.images_in_range(images, self.window)
            self._check_size(images)
        self._require_products()
        return super().__call__(images, *args, **kwargs)

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Returns `score` `[B]` and `map` `[B, H, W]` of images, by the model's own score.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1], each side at least the window's.
            training: has no effect.
        """
        score = self._score_in_force()
        scored = self.by_product(self.anomaly_in_graph(images, score), images, score)
        return {"score": scored["score"], "map": scored["map"]}

    def _score_in_force(self) -> str:
        """Returns the model's own score, or before `adapt` the paper's where its own needs that."""
        self.build()
        with tf.init_scope():  # not a tensor of the graph that is being traced
            if not self._needs_adapt(self.score):
                return self.score
        logger.warning(
            "%s scores by %s: call `adapt` with normal images first to score by %s",
            self.name,
            next(iter(self.scores)),
            self.score,
        )
        return next(iter(self.scores))

    def anomaly(
        self,
        images: Any,
        score: str | None = None,
        product: Any = None,
        *,
        ignored: np.ndarray | None = None,
    ) -> dict[str, tf.Tensor]:
        """Returns the anomaly score and map of images, after checks.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1], each side at least the window's.
            score: another than the model's own; the calibration does not hold for it. If none is
                given before `adapt`, and the model's own needs that, the paper's.
            product: the name of the images' product, or of each; None where the model has one
                product, or is to recognise it.
            ignored: bool `[B, H, W]`, pixels of these images that are ignored beside those of the
                model; see `tfgad.data.ignored_own`.

        Returns:
            `score` float32 `[B]` and `map` float32 `[B, H, W]`, unbounded, higher is more
            anomalous; of a model of several products also the name of its `product`, string `[B]`.

        Raises:
            UsageError: images of another form, or that are not finite; a score that the method does
                not have, or that needs statistics of normal images before `adapt`; a product that
                the model does not know, or that it is to recognise before `learn_products`; or
                masks of another form, that leave nothing of an image, or for a model of several
                products.
        """
        images = checks.checked_images(self.filled_own(images, ignored), self.window)
        self._check_size(images)
        given = self.product_indices(product, len(images))
        if score is None:
            score = self._score_in_force()
        else:
            score = self._known(score)
            self._refuse_unadapted(score)
        scored = self.by_product(self.traced_anomaly(score)(images), images, score, given)
        if ignored is None:
            return scored
        anomaly_map = ignoring.leave_out(scored["map"], ignored_own.with_margins(ignored))
        if self.scored_by(score).is_peak or tuple(images.shape[1:3]) != self.window[:2]:
            scored["score"] = tf.reduce_max(anomaly_map, axis=[1, 2])
        return {**scored, "map": anomaly_map}

    def reconstruct(self, images: Any) -> tf.Tensor:
        """Returns the reconstructions of images: `[B, H, W, C]` in [-1, 1].

        Raises:
            UsageError: a method that reconstructs nothing, or images that `anomaly` refuses.
        """
        return self.reconstruct_in_graph(checks.checked_images(images, self.window))

    # Saving

    def export(self, filepath: Any, *args: Any, input_signature: Any = None, **kwargs: Any) -> None:
        """Exports the model as Keras does: an endpoint from images to score and map, no decision.

        Images are float32 `[B, H, W, C]` in [-1, 1], of any size that `call` takes. What TensorFlow
        Serving is to load, which takes files and decides, `tfgad.export.saved_model` writes.

        Args:
            filepath: folder of the SavedModel.
            *args: see `keras.Model.export`.
            input_signature: of the endpoint, if it is to take other images.
            **kwargs: see `keras.Model.export`.

        Raises:
            UsageError: a model of several products that cannot recognise them yet.
        """
        self._require_products()
        images = tf.TensorSpec([None, None, None, self.window[2]], tf.float32, "images")
        signature = [images] if input_signature is None else input_signature
        super().export(filepath, *args, input_signature=signature, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments and the networks."""
        return {
            **super().get_config(),
            "networks": self.networks(),
            "config": settings.as_dict(self.config),
            "image_shape": self.window,
            "score": self.score,
            "stride": self.stride,
            "tile": self.tile,
            **({} if self.ignored is None else {"ignored": ignoring.as_text(self.ignored)}),
            **({"products": list(self.product_names)} if self.product_names else {}),
            **({} if self.cue_weights == EQUAL else {SETTING: self.cue_weights}),
        }

    @classmethod
    def arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns the constructor's arguments from a file's configuration, of whatever version."""
        if "config" not in config:
            config = legacy.with_config(config, cls.Config)
        parsed = settings.parse(cls.Config, config["config"], cls.__name__)
        if "ignored" in config:
            config = {**config, "ignored": ignoring.from_text(config["ignored"])}
        return {**config, "config": parsed, "image_shape": tuple(config["image_shape"])}


def features_of(critic: keras.Model) -> tuple[str, ...]:
    """Returns the names of the feature errors of a critic that returns `features`."""
    return tuple(f"features_{level}" for level in range(len(critic.output["features"])))
