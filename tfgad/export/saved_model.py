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
    map_png           image_bytes as for `score_bytes` -> the same outputs, the map as a grey PNG
                      of the file's size, map_bytes string [B], and the values of black and white,
                      map_low and map_high float32 [B]; see `tfgad.export.map_png`
    score_product     only of a model of several products: images as for `serving_default`, and
                      product string [B], the name of each image's product, or "" to recognise it
    reconstruct       images uint8 [B, H, W, C] -> reconstruction, the same; only where the method
                      reconstructs images
    calibration       no input -> threshold, scale, false_positive_rate, largest_probability
                      (1, or less where few images set the threshold) float32 []; the
                      thresholds at other rates: rates, thresholds float32 [R], NaN if unknown;
                      of the calibration images, to notice drift: quantiles of their scores and
                      brightness_quantiles, float32 [101], at 0, 0.01, ... 1, NaN if unknown,
                      their number calibration_images and that of independent groups
                      calibration_groups, float32 [], 0 if unknown; of a model of several products
                      their names, products string [P], and the threshold and scale of their raw
                      scores, product_thresholds and product_scales float32 [P]

The first two return `score`, `probability` float32 [B], `is_anomalous` bool [B], `map` float32
[B, H, W], `reason` string [B]: why an image is unlike any good one, such as "too dark"; empty
where it is not; and `brightness` float32 [B], the mean grey level of the image as the model sees
it, from 0 to 255. Of a model of several products they return `product` string [B], too. All images
of a batch have one size, at least the window's. Where the model was trained on resized images,
files of one batch may differ in size, and no size is too small. Their maps have the model's own
size then, with the padding of letterboxed images; `regions_bytes` has the places in each file.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfgad import files
from tfgad.core.detector import Detector
from tfgad.data.ignored import as_config
from tfgad.data.pixels import STRETCH
from tfgad.export import warmup
from tfgad.export.endpoints import Endpoints
from tfgad.export.versions import Forms, save_signatures, write_version
from tfgad.networks.pretrained import keys_of
from tfgad.scores.calibration import LARGEST_PROBABILITY
from tfgad.scores.cue_weights import EQUAL, SETTING
from tfgad.training import Run
from tfgad.training.run import RECORD, calibration_numbers

METADATA = "assets.extra/tfgad.json"  # TensorFlow leaves the folder assets.extra to others
NOTICE = "assets.extra/NOTICE"  # of weights that are others' work
# Signatures. Regions have their own, since they take 6 % more time (docs/serving.md).
CALIBRATION, REGIONS, REGIONS_BYTES = "calibration", "regions", "regions_bytes"
MAP_PNG = "map_png"
SCORE_PRODUCT = "score_product"


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
    metadata = {**metadata, **metadata_of_model(model, image_shape, resized, depth, fit)}

    def write(version: Path) -> None:
        _save(model, Endpoints(model, image_shape, resized, depth, fit), version)
        files.write_json(version / METADATA, metadata)
        if model.notice:
            (version / NOTICE).write_text(model.notice, encoding="utf-8")
        warmup.write(version, image_shape)

    return write_version(directory, write)


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
    form = run.config.get("depth"), run.config.get("fit", STRETCH)
    return {**_metadata_of_training(run), **metadata_of_model(run.model, shape, resized, *form)}


def _metadata_of_training(run: Run) -> dict[str, Any]:
    metadata = {key: run.config[key] for key in ("method", "data", "images", "versions")}
    known = (*keys_of("features"), "learned")
    metadata |= {key: run.config[key] for key in known if key in run.config}
    # What the threshold was set from; runs of an earlier tfgad do not know its groups.
    record = {key: value for key, value in run.calibration.items() if key in RECORD}
    return {**metadata, **({"calibration": record} if "rate_interval" in record else {})}


def metadata_of_model(
    model: Detector,
    image_shape: Sequence[int],
    resized: bool,
    depth: int | None = None,
    fit: str = STRETCH,
) -> dict[str, Any]:
    """Returns the metadata of a calibrated model that programs need to score with it.

    The arguments are those of `export`.
    """
    thresholds = [list(pair) for pair in model.calibration.known_thresholds.items()]
    largest = float(model.calibration.largest_probability)
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
        **({LARGEST_PROBABILITY: largest} if largest < 1 else {}),
        # Of images; a model of an earlier tfgad has none.
        **({"depth": depth} if depth else {}),
        **({"fit": fit} if fit != STRETCH else {}),
        **as_config(model.ignored),  # the graphs hold it; for pictures
        **({"products": list(model.product_names)} if model.product_names else {}),
        **({} if model.cue_weights == EQUAL else {SETTING: model.cue_weights}),
        # At other false-positive rates: pairs of rate and threshold, where they are known.
        **({"thresholds": thresholds} if thresholds else {}),
    }


def _save(model: Detector, endpoints: Endpoints, folder: Path) -> None:
    """Writes the signatures of a model."""
    channels = model.window[2]
    images = tf.TensorSpec([None, None, None, channels], tf.uint8, name="images")
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    forms: Forms = {
        "serving_default": (endpoints.score, [images]),
        "score_bytes": (endpoints.score_bytes, [image_bytes]),
        REGIONS: (endpoints.regions, [images]),
        REGIONS_BYTES: (endpoints.regions_bytes, [image_bytes]),
        MAP_PNG: (endpoints.map_png, [image_bytes]),
        CALIBRATION: (endpoints.calibration, []),
    }
    if model.products is not None:
        product = tf.TensorSpec([None], tf.string, name="product")
        forms[SCORE_PRODUCT] = endpoints.score_product, [images, product]
    if model.reconstructs:
        forms["reconstruct"] = endpoints.reconstruct, [images]
    save_signatures(forms, folder)
