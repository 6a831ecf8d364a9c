"""What every method is: a Keras model that is fitted to normal images and judges others."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfgad.core.trained import Trained
from tfgad.data.sampling import batch_size, batched, spread
from tfgad.errors import UsageError, nearest
from tfgad.networks import precision
from tfgad.scores import windows
from tfgad.scores.calibration import Calibration, Threshold
from tfgad.scores.cues import FLOOR, Cues, gaussian_blur
from tfgad.scores.density import Density
from tfgad.scores.error_maps import mean_of_map, over_window
from tfgad.scores.image_quality import ImageQuality

MAP_SIGMA = 4.0  # pixels; the usual smoothing of anomaly maps (Roth et al. 2022, section 4.2)
BLUR_RADIUS = math.ceil(3 * MAP_SIGMA)  # of maps; see `tfgad.scores.cues.gaussian_blur`
CUES, DENSITY = "cues", "density"  # scores that reconstructing methods have beside their paper's
DEFECT = "defect"  # the score of a segmenter: log-odds
EVEN_ODDS = 0.0  # of that score: a pixel is as likely defective as not
PEAKS = (CUES, DEFECT)  # scores that are the largest value of the map even where there is no window
ADAPT_IMAGES = 128  # of 128x128 pixels, they hold 6,000 windows at a stride of 16
QUALITY_IMAGES = 2048  # whose quality is taken; of 128x128 pixels, 12 s on two cores
ADAPT_WINDOWS = 8192  # a digit of MNIST has 7,000 at most; with 2,340 GANomaly loses 0.018 on 8s


class Detector(Trained):
    """A one-class detector: it is fitted to normal images, then gives any image a score and a map.

    A method derives from it and states, beside what `Trained` asks for,

    - `train_step(images)`: one step on float32 images `[B, h, w, C]` in [-1, 1];
    - `errors(images)`: what is wrong with images, as maps `{name: [B, h, w]}`; the mean of a map
      is the error of the image; those that `cues` looks at are not negative;
    - `scores`: what it can score by: `{name: (error, ...)}`, the score being the errors' sum;
    - `reconstructs`: whether it rebuilds images, and so can score by `cues` (`models/cues.py`) and
      `density` (`models/density.py`). Among its errors is then the `code` of a window, `[B, K]`
      with K = `code_dim`, which is no map;
    - `labelled`: whether `train_step` takes `(images, labels)` instead, labels int32 `[B]`.

    Its networks are made for images of one size, the window, which is that of the network named by
    `sees`. An image of that size gets the mean of its map for a score, the paper's. A larger one is
    judged window by window (`windows.py`): its map is made of theirs, and its score is the map's
    largest value. What `cues` reads of a whole image, its level and tone, it reads of overlapping
    tiles, of the size that the threshold is set on, so that the threshold means the same on a strip
    of cloth as on a tile of it. The false-positive rate is a tile's.

    Args:
        score: one of `scores`, or `cues` or `density`.
        stride: of the windows on larger images, in pixels; it divides the window's sides.
        tile: `(height, width)` of the images to be trained on; the window's if not given.
        **kwargs: the networks and the seed that `Trained` takes.
    """

    scores: ClassVar[dict[str, tuple[str, ...]]]
    sees: ClassVar[str] = "critic"
    reconstructs: ClassVar[bool] = False
    labelled: ClassVar[bool] = False

    def __init__(self, *, score, stride=8, tile=None, **kwargs):
        super().__init__(**kwargs)
        for name in self._network_names:
            precision.score_in_float32(getattr(self, name))
        self.window = tuple(getattr(self, self.sees).input_shape[1:])
        self.score, self.stride = self._known_score(score), stride
        self.tile = tuple(tile or self.window[:2])
        if any(side % stride for side in self.window[:2]):
            hint = f"give a divisor of {self.window[0]} and {self.window[1]}"
            raise UsageError("stride", stride, "does not divide the window", hint)
        self.cues = self.density = None
        if self.reconstructs:
            self.cues = Cues(self.cue_groups)
            self.density = Density(len(self.cue_errors) + 1 + self.code_dim)
        self.calibration = Calibration(name="calibration")
        self.image_quality = ImageQuality(self.tile, self.window[:2], self.window[2])
        self.built = True

    def get_config(self):
        """Returns the constructor's arguments; a method adds its own."""
        own = {"score": self.score, "stride": self.stride, "tile": self.tile}
        return {**super().get_config(), **own}

    def _known_score(self, score: str) -> str:
        known = (*self.scores, *((CUES, DENSITY) if self.reconstructs else ()))
        if score not in known:
            raise UsageError("score", score, "is not one of this method", nearest(score, known))
        return score

    @property
    def batches_per_step(self) -> int:
        """How many batches `train_step` takes at once."""
        return 1

    # Judging

    def errors(self, images) -> dict[str, Any]:
        """Returns what is wrong with windows `[B, h, w, C]` as maps `{name: [B, h, w]}`."""
        raise NotImplementedError

    @property
    def cue_errors(self) -> tuple[str, ...]:
        """The errors that `cues` looks at: of pixels, the critic's hidden layers and the code."""
        levels = range(len(self.critic.output["features"]))
        return ("residual", *(f"features_{level}" for level in levels), "latent")

    @property
    def cue_groups(self) -> tuple[int, ...]:
        """How many of `cue_errors`, in their order, stand for each term of `cues`."""
        return (1, len(self.cue_errors) - 2, 1)

    def reconstruction(self, images):
        """Returns what the method makes of windows: `[B, h, w, C]` in [-1, 1]."""
        raise UsageError(
            "method", self.name, "reconstructs nothing", "use one that does, such as ganomaly"
        )

    def anomaly(self, images, score: str | None = None) -> dict[str, tf.Tensor]:
        """Judges images, in inference mode always: higher is more anomalous.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1], each side at least the window's.
            score: another than the model's own; the calibration does not hold for it.

        Returns:
            `score` float32 `[B]` and `map` float32 `[B, H, W]`, unbounded.

        Raises:
            UsageError: images of another form, or that are not finite; a score that the method does
                not have, or that is relative to normal images `adapt` has not seen.
        """
        if score is not None:
            self._refuse_unadapted(score)
        return self.anomaly_in_graph(
            self._checked_images(images), self._known_score(score or self.score)
        )

    def reconstruct(self, images) -> tf.Tensor:
        """Returns what the method makes of images: `[B, H, W, C]` in [-1, 1].

        Raises:
            UsageError: a method that reconstructs nothing, or images that `anomaly` refuses.
        """
        return self.reconstruct_in_graph(self._checked_images(images))

    @tf.function(reduce_retracing=True, autograph=False)
    def anomaly_in_graph(self, images, score: str):
        """`anomaly` without its checks: tensors alone, for graphs that are exported."""
        # Where TensorFlow knows the size it computes some constants beforehand, and rounds them
        # otherwise: an image's score must not depend on what sizes the model has seen before.
        any_size = [None, None, None, self.window[2]]
        images = tf.compat.v1.placeholder_with_default(images, any_size)
        names, peak = self.errors_of(score), score in PEAKS

        def of_block(block, trim):
            errors = self.error_maps(block, names)
            judged = self.conclude(trim(block), trim(errors), score)
            each = [judged["map"]]
            if not peak:  # the score of an image that is one window, and so one block
                each.append(tf.zeros_like(each[0]) + judged["score"][:, None, None])
            return tf.stack(each, axis=-1)

        maps = windows.by_block(images, self._rims(score), 1 if peak else 2, of_block)
        largest = tf.reduce_max(maps[..., 0], axis=[1, 2])
        if peak:
            return {"score": largest, "map": maps[..., 0]}
        one_window = tf.reduce_all(tf.shape(images)[1:3] == self.window[:2])
        return {"score": tf.where(one_window, maps[:, 0, 0, 1], largest), "map": maps[..., 0]}

    def _rims(self, score: str | None):
        return rims(self.window, self.tile, self.stride, score)

    def errors_of(self, score: str) -> tuple[str, ...]:
        """Returns the names of the errors that a score is made of."""
        if score == CUES:
            return self.cue_errors
        return (DENSITY,) if score == DENSITY else self.scores[score]

    @tf.function(reduce_retracing=True, autograph=False)
    def conclude(self, images, errors, score: str):
        """What `anomaly_in_graph` makes of the error maps `[B, H, W, K]` of whole images."""
        if score == CUES:
            anomaly_map = self._by_tile(images, errors)
            return {"score": tf.reduce_max(anomaly_map, axis=[1, 2]), "map": anomaly_map}
        error = tf.reduce_sum(errors, axis=-1)
        anomaly_map = gaussian_blur(error[..., None], MAP_SIGMA)[..., 0]
        one_window = tf.reduce_all(tf.shape(images)[1:3] == self.window[:2])
        of_window = tf.reduce_mean(error, axis=[1, 2])
        largest = tf.reduce_max(anomaly_map, axis=[1, 2])
        return {"score": tf.where(one_window, of_window, largest), "map": anomaly_map}

    @tf.function(reduce_retracing=True, autograph=False)
    def prediction(self, images, score):
        """Returns what the calibrated model says of images and their scores.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1], as `anomaly_in_graph` took them.
            score: float32 `[B]`.

        Returns:
            `probability` float32 `[B]`, `is_anomalous` bool `[B]`, and `reason` string `[B]`: why
            an image is outside of what good images looked like (`models/image_quality.py`). Such
            an image is anomalous with a probability of 1, whatever its score; else it is empty.
        """
        return self.calibration.with_reason(score, self.image_quality(images))

    @tf.function(reduce_retracing=True, autograph=False)
    @precision.scoring()
    def reconstruct_in_graph(self, images):
        """`reconstruct` without its checks."""

        def of_block(block, trim):
            return trim(self._by_window(block, self.reconstruction))

        return windows.by_block(images, self._rims(None), self.window[2], of_block)

    @tf.function(reduce_retracing=True, autograph=False)
    @precision.scoring()
    def error_maps(self, images, names: tuple[str, ...]):
        """Returns the named errors of images `[B, H, W, C]`, `[B, H, W, K]`."""

        def stacked(pieces):
            errors = self.errors(pieces)
            if DENSITY in names:
                errors |= {DENSITY: self._density_map(pieces, errors)}
            return tf.stack([errors[name] for name in names], axis=-1)

        return self._by_window(images, stacked)

    def _density_map(self, pieces, errors):
        """The density's number of each window, laid out as its residual is: `[B, h, w]`."""
        residual = errors["residual"]
        share = (residual + FLOOR) / over_window(mean_of_map(residual) + FLOOR, self.window)
        return share * over_window(self.density(self.description(pieces, errors)), self.window)

    def description(self, pieces, errors):
        """Returns what a method says of windows `[B, h, w, C]`, as vectors for `density`."""
        of_maps = [mean_of_map(errors[name]) for name in self.cue_errors]
        contrast = tf.math.reduce_variance(pieces, axis=[1, 2, 3])
        logarithms = tf.math.log(tf.stack([*of_maps, contrast], axis=1) + FLOOR)
        return tf.concat([logarithms, errors["code"]], axis=1)

    @tf.function(reduce_retracing=True, autograph=False)
    @precision.scoring()
    def descriptions(self, images):
        """Returns `description` of windows that lie side by side in images: `[N, K]`."""
        size = self.window[:2]
        padded = windows.pad_to_grid(images, size, math.gcd(*size))
        pieces = tf.reshape(windows.cut(padded, size, stride=size), [-1, *self.window])
        return self.description(pieces, self.errors(pieces))

    def _by_window(self, images, judge):
        """Blends the result of each window, `[N, h, w, K]`, over the images: `[B, H, W, K]`."""
        return windows.by_piece(images, self.window[:2], self.stride, judge)

    def _by_tile(self, images, errors):
        """What the cues make of tiles: level and tone are read as on the images of calibration."""

        def judged(pieces):
            channels = self.window[2]
            return self.cues(pieces[..., :channels], pieces[..., channels:])[..., None]

        both = tf.concat([images, errors], axis=-1)
        return windows.by_piece(both, self.tile, windows.half(self.tile), judged)[..., 0]

    def _checked_images(self, images):
        images = tf.convert_to_tensor(images, tf.float32)
        height, width, channels = self.window
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[3] != channels:
            hint = f"give float32 [B, H, W, {channels}]"
            raise UsageError("images", shape, "is not the shape of a batch of images", hint)
        if not shape[0]:
            raise UsageError("images", shape, "is an empty batch", "give at least one image")
        if shape[1] < height or shape[2] < width:
            hint = f"give images of at least {height}x{width} pixels"
            raise UsageError("images", f"{shape[1]}x{shape[2]}", "smaller than the window", hint)
        if not bool(tf.reduce_all(tf.math.is_finite(images))):
            bad = int(tf.reduce_sum(tf.cast(~tf.math.is_finite(images), tf.int32)))
            raise UsageError(
                "images", f"{bad} values", "NaN or infinite", "repair or leave them out"
            )
        return images

    # What scores need to know of normal images

    def adapt(self, normals: tf.data.Dataset, size: int) -> None:
        """Learns the statistics of normal images: of their quality, and those of scores.

        Those of `density` it learns if that is the model's score, or the images are windows.

        Args:
            normals: images float32 `[H, W, C]`, one at a time; the training images will do.
            size: how many they are.
        """
        some = spread(normals, size, QUALITY_IMAGES)
        self.image_quality.adapt(np.concatenate([self._qualities(x) for x in batched(some)]))
        if not self.reconstructs:
            return
        if self.score == DENSITY or normals.element_spec.shape[:2] == self.window[:2]:
            self._adapt_density(normals, size)  # else 8 s of 400 tiles, for nothing
        images = np.stack(list(spread(normals, size, ADAPT_IMAGES).as_numpy_iterator()))
        batch = batch_size(images.shape[1:])
        batches = [images[i : i + batch] for i in range(0, len(images), batch)]
        errors = [self.error_maps(tf.constant(b), self.cue_errors).numpy() for b in batches]
        self.cues.adapt(images, np.concatenate(errors))

    def _adapt_density(self, normals: tf.data.Dataset, size: int) -> None:
        height, width = normals.element_spec.shape[:2]
        windows_per_image = max(1, height // self.window[0]) * max(1, width // self.window[1])
        images = spread(normals, size, math.ceil(ADAPT_WINDOWS / windows_per_image))
        vectors = [self.descriptions(batch).numpy() for batch in batched(images)]
        self.density.adapt(np.concatenate(vectors))

    def calibrate(self, normals: tf.data.Dataset, false_positive_rate: float) -> Threshold:
        """Sets the threshold and the limits of quality from images held out of training.

        Args:
            normals: images float32 `[H, W, C]`, one at a time.
            false_positive_rate: the share of good images that may be called anomalous.

        Raises:
            UsageError: the score is relative to normal images, and `adapt` has seen none.
        """
        self._refuse_unadapted(self.score)
        scores, qualities = [], []
        for batch in batched(normals):
            scores.append(self.anomaly_in_graph(batch, self.score)["score"].numpy())
            qualities.append(self._qualities(batch))
        threshold = self.calibration.fit(np.concatenate(scores), false_positive_rate)
        self.image_quality.calibrate(np.concatenate(qualities), false_positive_rate)
        return threshold

    @tf.function(reduce_retracing=True, autograph=False)
    def _statistics(self, images):
        return self.image_quality.of_tiles(images)

    def _qualities(self, images) -> np.ndarray:
        """Returns the quality's statistics of a batch of images, `[N, K]`."""
        return self._statistics(images).numpy()

    def _refuse_unadapted(self, score: str) -> None:
        if score == DENSITY and self.density is not None and not self.density.is_adapted:
            hint = "call `adapt` with the training images first, built with score=density"
            raise UsageError("model", "not adapted", "knows no normal images", hint)


def rims(
    window: Sequence[int], tile: Sequence[int], stride: int, score: str | None
) -> tuple[windows.Rim, windows.Rim]:
    """Returns what a pixel of a detector's map depends on, along rows and columns.

    Args:
        window: the detector's, as are `tile` and `stride`.
        tile: `(height, width)`.
        stride: in pixels.
        score: of the map; None stands for the reconstruction.
    """
    if score == CUES:
        second = [(side, windows.half(tuple(tile))) for side in tile]
    else:  # the map is blurred, a reconstruction is not
        second = 2 * [(1 if score is None else BLUR_RADIUS + 1, 1)]
    return tuple(
        windows.rim(side, stride, *of_second)
        for side, of_second in zip(window[:2], second, strict=True)
    )
