"""A fitted model as a SavedModel that TensorFlow Serving loads and that needs no tfgad.

    DIRECTORY/
      1/                          the version; the next export writes 2
        saved_model.pb, variables/
        assets.extra/tfgad.json   metadata of the model

Preprocessing and calibration are part of it. Its signatures take images as cameras and files give
them:

    serving_default   images uint8 [B, H, W, C]
    score_bytes       image_bytes string [B], each a whole PNG (8 or 16 bits) or JPEG file, which
                      is turned upright by its EXIF orientation
    regions           images as for `serving_default` -> the same outputs without the map; instead
                      regions float32 [B, 64, 9] and region_count int32 [B], see below
    regions_bytes     the same, of image_bytes as for `score_bytes`
    reconstruct       images uint8 [B, H, W, C] -> reconstruction, the same; only where the method
                      reconstructs images
    calibration       no input -> threshold, scale, false_positive_rate float32 []; the
                      thresholds at other rates: rates, thresholds float32 [R], NaN if unknown;
                      of the calibration scores, to notice drift: quantiles float32 [101], at 0,
                      0.01, ... 1, NaN if unknown, their number calibration_images and that of
                      independent groups calibration_groups, float32 [], 0 if unknown

The first two return `score`, `probability` float32 [B], `is_anomalous` bool [B], `map` float32
[B, H, W] and `reason` string [B]: why an image is unlike any good one, such as "too dark"; empty
where it is not. All images of a batch have one size, at least the window's; where the model was
trained on resized images, files of one batch may differ in size, and no size is too small.

`regions` lists the connected regions of the map above the threshold, the largest first, one in a
row: x, y, width, height, area, peak, mean, centroid_x, centroid_y, in pixels of the image (see
`tfgad.scores.map_regions.Region`). Rows below the last one are zeros. `region_count` counts all
regions, also those beyond 64, which are not listed; it is -1 where the score is no maximum of the
map, so that its threshold says nothing of pixels. An image may be anomalous without a region: it
has a reason, or its peak is lost where the map is resized.

The numbers of the calibration are weights of the model. The metadata repeat them for people and
for other programs; tfgad decides by the signature `calibration`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfgad import files
from tfgad.core.detector import Detector
from tfgad.data.pixels import LETTERBOX, STRETCH
from tfgad.export import decoding, letterbox, warmup
from tfgad.export.regions_in_graph import find_at_sizes, find_regions, known_if
from tfgad.networks.pretrained import keys_of
from tfgad.scores.calibration import RATES
from tfgad.scores.score import PEAKS
from tfgad.training import Run
from tfgad.training.run import RECORD, calibration_numbers

METADATA = "assets.extra/tfgad.json"  # TensorFlow leaves the folder assets.extra to others
NOTICE = "assets.extra/NOTICE"  # of weights that are others' work
# Signatures. Regions have their own, since they take 6 % more time (docs/serving.md).
CALIBRATION, REGIONS, REGIONS_BYTES = "calibration", "regions", "regions_bytes"


def export(
    model: Detector,
    directory: str | os.PathLike,
    *,
    image_shape: tuple[int, int, int],
    resized: bool,
    metadata: dict[str, Any],
    depth: int | None = None,
    fit: str = STRETCH,
) -> Path:
    """Writes the next version of a model, whole or not at all.

    Args:
        model: fitted and calibrated.
        directory: of all versions; it is made if it is not there.
        image_shape: `(height, width, channels)` of the training images.
        resized: whether images are resized to `image_shape` first, and their maps back to the
            images' size; if not, images are scored at native resolution.
        metadata: further entries of `METADATA`: the model's `method` and `data`, the sizes of the
            data set's parts as `images`, `versions`.
        depth: bits of PNG files of 16 bits, for `score_bytes` and for programs that read files for
            the model; see `tfgad.data.pixels.scaled`.
        fit: how images are resized to another aspect ratio; see `tfgad.data.pixels.resize`.

    Returns:
        The folder of the version, `directory/<number>`.

    Raises:
        UsageError: the model is not calibrated, or the directory cannot be written.
    """
    model.calibration.require_calibrated()
    directory = Path(directory)
    metadata = {**metadata, **metadata_of_model(model, image_shape, resized, depth)}
    if fit != STRETCH:
        metadata["fit"] = fit
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Servers load folders named by a number; this one is not until it is renamed.
        with tempfile.TemporaryDirectory(dir=directory, prefix=".partial-") as partial:
            unfinished = Path(partial) / "version"
            _save(model, _Endpoints(model, image_shape, resized, depth, fit), unfinished)
            files.write_json(unfinished / METADATA, metadata)
            if model.notice:
                (unfinished / NOTICE).write_text(model.notice, encoding="utf-8")
            warmup.write(unfinished, image_shape)
            return unfinished.rename(directory / str(_next_version(directory)))
    except (OSError, tf.errors.OpError) as error:
        hint = "name a folder you can write"
        raise files.unwritable("directory", directory, error, hint) from error


def export_run(run: Run, directory: str | os.PathLike, name: str | None = None) -> Path:
    """Exports a run's model with all metadata of the run, and the product's name; see `export`."""
    return export(
        run.model,
        directory,
        image_shape=tuple(run.config["image_shape"]),
        resized=run.config["resized"],
        metadata={**_metadata_of_training(run), **({"name": name} if name else {})},
        depth=run.config.get("depth"),
        fit=run.config.get("fit", STRETCH),
    )


def metadata_of_run(run: Run) -> dict[str, Any]:
    """Returns the metadata that an exported run has in its file `METADATA`."""
    shape, resized = run.config["image_shape"], run.config["resized"]
    depth = run.config.get("depth")
    return {**_metadata_of_training(run), **metadata_of_model(run.model, shape, resized, depth)}


def _metadata_of_training(run: Run) -> dict[str, Any]:
    metadata = {key: run.config[key] for key in ("method", "data", "images", "versions")}
    metadata |= {key: run.config[key] for key in keys_of("features") if key in run.config}
    # What the threshold was set from; runs of an earlier tfgad do not know its groups.
    known = {key: value for key, value in run.calibration.items() if key in RECORD}
    return {**metadata, **({"calibration": known} if "rate_interval" in known else {})}


def metadata_of_model(
    model: Detector, image_shape: Sequence[int], resized: bool, depth: int | None = None
) -> dict[str, Any]:
    """Returns the metadata of a calibrated model that programs need to score with it.

    The arguments are those of `export`.
    """
    thresholds = [list(pair) for pair in model.calibration.known_thresholds.items()]
    return {
        "image_shape": list(image_shape),
        "resized": resized,
        "window": list(model.window),
        "stride": model.stride,
        "tile": list(model.tile),
        "score": model.score,
        "by_block": True,  # a large image takes no more memory than a block, beside its map
        **calibration_numbers(model),
        "scale": float(model.calibration.scale),
        # Of images; a model of an earlier tfgad has none.
        **({"depth": depth} if depth else {}),
        # At other false-positive rates: pairs of rate and threshold, where they are known.
        **({"thresholds": thresholds} if thresholds else {}),
    }


def _next_version(directory: Path) -> int:
    return 1 + max((int(p.name) for p in directory.iterdir() if p.name.isdecimal()), default=0)


def _save(model: Detector, endpoints: _Endpoints, folder: Path) -> None:
    """Writes the signatures and the weights they use, not the model with all it holds.

    Each signature is traced once. `keras.export.ExportArchive` traces each twice, and every graph
    of the model again.
    """
    channels = model.window[2]
    images = tf.TensorSpec([None, None, None, channels], tf.uint8, name="images")
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    forms = {
        "serving_default": (endpoints.score, [images]),
        "score_bytes": (endpoints.score_bytes, [image_bytes]),
        REGIONS: (endpoints.regions, [images]),
        REGIONS_BYTES: (endpoints.regions_bytes, [image_bytes]),
        CALIBRATION: (endpoints.calibration, []),
    }
    if model.reconstructs:
        forms["reconstruct"] = endpoints.reconstruct, [images]
    signatures = {
        name: tf.function(function, form, autograph=False).get_concrete_function()
        for name, (function, form) in forms.items()
    }
    used = {id(weight): weight for each in signatures.values() for weight in each.variables}
    module = tf.Module()
    module.weights = list(used.values())
    tf.saved_model.save(module, str(folder), signatures)


class _Endpoints:
    """The functions of the signatures. They return dicts, whose keys name the outputs.

    Args:
        model: the arguments are those of `export`.
    """

    def __init__(
        self,
        model: Detector,
        image_shape: tuple[int, int, int],
        resized: bool,
        depth: int | None,
        fit: str,
    ):
        self.model, self.resized, self.depth = model, resized, depth
        self.is_letterboxed = resized and fit == LETTERBOX
        self.anomaly = model.traced_anomaly(model.score)
        self._threshold = model.calibration.threshold.value
        self.size, self.channels = image_shape[:2], image_shape[2]

    def score(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._predictions(self._prepared(_from_uint8(images)), tf.shape(images)[1:3])

    def score_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, sizes = self._decoded(image_bytes)
        alike = tf.reduce_all(sizes == sizes[:1])
        # The maps of a batch have one size: the model's own, if the files differ.
        return self._predictions(images, tf.where(alike, sizes[0], tf.shape(images)[1:3]))

    def _decoded(self, image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns files as prepared images `[B, H, W, C]`, and their own sizes int32 `[B, 2]`."""

        def decoded(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = decoding.decode(file, self.channels, self.depth)
            return self._prepared(image[None])[0], tf.shape(image)[:2]

        side = self.size if self.resized else (None, None)
        form = tf.TensorSpec((*side, self.channels)), tf.TensorSpec(2, tf.int32)
        return tf.map_fn(decoded, image_bytes, fn_output_signature=form)

    def regions(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        predictions = self.score(images)
        return self._with_regions(predictions, find_regions(predictions["map"], self._threshold))

    def regions_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, sizes = self._decoded(image_bytes)
        predictions = self._predictions(images, tf.shape(images)[1:3])
        if self.resized:  # each map to the size of its file
            found = find_at_sizes(predictions["map"], sizes, self._threshold, self._resized_back)
        else:
            found = find_regions(predictions["map"], self._threshold)
        return self._with_regions(predictions, found)

    def _with_regions(
        self, predictions: dict[str, tf.Tensor], found: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Returns predictions with the regions in place of the map."""
        size = tf.constant(self.size) if self.resized else tf.shape(predictions["map"])[1:3]
        is_peak = tf.constant(self.model.score in PEAKS) | (size != self.model.window[:2])
        del predictions["map"]
        return {**predictions, **known_if(tf.reduce_any(is_peak), found)}

    def reconstruct(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        reconstruction = self.model.reconstruct_in_graph(self._prepared(_from_uint8(images)))
        reconstruction = self._resized_back(tf.shape(images)[1:3], reconstruction)
        grey_levels = tf.clip_by_value(tf.round((reconstruction + 1) * 127.5), 0, 255)
        return {"reconstruction": tf.cast(grey_levels, tf.uint8)}

    def calibration(self) -> dict[str, tf.Tensor]:
        weights = self.model.calibration
        return {
            "threshold": tf.identity(weights.threshold.value),
            "scale": tf.identity(weights.scale.value),
            "false_positive_rate": tf.identity(weights.false_positive_rate.value),
            "rates": tf.constant(RATES, tf.float32),
            "thresholds": tf.identity(weights.thresholds.value),
            "quantiles": tf.identity(weights.quantiles.value),
            "calibration_images": tf.identity(weights.images.value),
            "calibration_groups": tf.identity(weights.groups.value),
        }

    def _prepared(self, images: tf.Tensor) -> tf.Tensor:
        """Returns images `[B, H, W, C]` in [-1, 1], resized if need be, refused if too small."""
        if self.is_letterboxed:
            images = letterbox.letterboxed(images, self.size)
        else:
            images = self._resized_to(self.size, images)
        smallest = self.model.window[:2]
        message = f"images are smaller than {smallest[0]}x{smallest[1]} pixels"
        enough = tf.debugging.assert_greater_equal(tf.shape(images)[1:3], smallest, message)
        with tf.control_dependencies([enough]):
            return tf.identity(images)

    def _predictions(self, images: tf.Tensor, map_size: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the predictions of images that `_prepared` returned, with maps of a size."""
        scored = self.anomaly(images)
        anomaly_map = self._resized_back(map_size, scored["map"][..., None])[..., 0]
        prediction = self.model.prediction(images, scored["score"])
        return {"score": scored["score"], **prediction, "map": anomaly_map}

    def _resized_back(self, size: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """Returns images or maps of the model's size at that of the images they belong to."""
        if self.is_letterboxed:
            images = letterbox.without_padding(images, size)
        return self._resized_to(size, images)

    def _resized_to(self, size: Any, images: tf.Tensor) -> tf.Tensor:
        # The filter of `tfgad.data.pixels.resize`.
        return tf.image.resize(images, size, antialias=True) if self.resized else images


def _from_uint8(images: tf.Tensor) -> tf.Tensor:
    return decoding.from_levels(images, 127.5)
