"""What the formats for other runtimes share: one image size, and scores compared before writing.

A SavedModel takes images of any size and is Python's own graph. Other runtimes get a graph for
images of the run's size, one at a time:

    images uint8 [1, H, W, C] -> score, probability float32 [1], is_anomalous bool [1],
                                 map float32 [1, H, W], reason int32 [1]

Callers resize other images, or cut them into tiles. The reason is the place of a text in the list
`reasons` of `tfgad.json`, the last of which is empty. Before anything is written, each file scores
images that were not trained on, in its own runtime, and its scores are compared with the model's.

Read beside it: `litert.py` and `onnx.py`, the two formats.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfgad import files
from tfgad.core.detector import Detector
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.ignored import ignoring
from tfgad.data.pixels import from_uint8, to_uint8
from tfgad.data.sampling import batched, spread
from tfgad.errors import UsageError
from tfgad.evaluation import metrics
from tfgad.export.saved_model import metadata_of_run
from tfgad.scores.image_quality import REASONS
from tfgad.training import Run

METADATA = "tfgad.json"
NOTICE = "NOTICE"  # of weights that are others' work
# Of the scale of the calibration, which moves no probability by more than 0.0025. Other runtimes
# sum in another order; the small models of the tests come to 0.0004 at most.
TOLERANCE = 0.01
# Images to compare scores on, if there is no test set; all images of a test set are compared.
COMPARED = 64


@dataclasses.dataclass(frozen=True)
class Variant:
    """One file and its measurements.

    Attributes:
        name: of the file.
        size: in bytes.
        largest_difference: between its scores and the model's own.
        milliseconds: per image, the median, with all threads of this machine.
        image_auroc: of the test set; None without labelled test images of both kinds.
        auroc_loss: the difference of the model's own to that.
    """

    name: str
    size: int
    largest_difference: float
    milliseconds: float
    image_auroc: float | None
    auroc_loss: float | None


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format and its runtime.

    Attributes:
        name: of the format, for messages.
        files: their names. The scores of the first have to equal the model's.
        convert: from a calibrated model and its `image_shape` to the content of each file.
        scores_of: from the content of a file and images uint8 `[N, H, W, C]` to their scores
            float32 `[N]`, by the runtime, and the median of milliseconds per image.
    """

    name: str
    files: tuple[str, ...]
    convert: Callable[[Detector, tuple[int, int, int]], dict[str, bytes]]
    scores_of: Callable[[bytes, np.ndarray], tuple[np.ndarray, float]]


def export(
    run: Run, images: AnomalyData, directory: str | os.PathLike, file_format: Format
) -> list[Variant]:
    """Writes a run's model in a format, whole or not at all.

    Args:
        run: calibrated; its networks compute in float32.
        images: the run's data set. Its test images are scored, or if there are none, some of those
            that are held out for calibration.
        directory: folder for the files and `tfgad.json`; none of them may exist.
        file_format: the format.

    Returns:
        The measurements of each file.

    Raises:
        UsageError: a file exists, the run has no threshold or several products, the images are of
            another size, the format does not have an operation that the method needs, the scores
            of the first file differ from the model's, or the directory cannot be written. Nothing
            is left then.
    """
    directory, image_shape = Path(directory), tuple(run.config["image_shape"])
    names = (*file_format.files, METADATA, *([NOTICE] if run.model.notice else []))
    _refuse_to_replace(directory, names)
    run.model.calibration.require_calibrated()
    if run.model.product_names:
        problem = f"is of several products, which tfgad does not recognise in {file_format.name}"
        raise UsageError("run", run.folder, problem, "export it as a SavedModel")
    if images.image_shape != image_shape:
        hint = "give a data set of that size"
        raise UsageError("data", images.image_shape, f"but the run has {image_shape}", hint)
    images = ignoring(images, run.model.ignored)
    converted = file_format.convert(run.model, image_shape)
    pixels, labels, images_of = _held_out(images)
    own = _own_scores(run.model, pixels)

    def auroc_of(scores: np.ndarray) -> float | None:
        return metrics.image_metrics(*metrics.by_image(labels, scores, images_of))["image_auroc"]

    own_auroc = auroc_of(own)
    variants = [
        _measured(
            name, file_format.scores_of(content, pixels), len(content), own, own_auroc, auroc_of
        )
        for name, content in converted.items()
    ]
    tolerance = TOLERANCE * float(run.model.calibration.scale)
    worst = variants[0].largest_difference
    if not worst <= tolerance:
        differ = f"differ by up to {worst:.2g}, more than {tolerance:.2g}"
        problem = f"its scores as {file_format.name} {differ}"
        raise UsageError("run", run.folder, problem, "export it as a SavedModel")
    metadata = {
        **metadata_of_run(run),
        "format": file_format.name,
        "reasons": REASONS,
        "compared_images": len(pixels),
        "tolerance": tolerance,
        "threads": threads(),
        "image_auroc": own_auroc,
        "variants": [dataclasses.asdict(each) for each in variants],
    }
    _write(directory, converted, metadata, run.model.notice)
    return variants


def score_function(model: Detector, image_shape: tuple[int, int, int]) -> Any:
    """Returns the predictions for one image of that size as a `tf.function`.

    Its inputs and outputs are those of this module's docstring.

    Args:
        model: calibrated.
        image_shape: `(height, width, channels)`.
    """

    def score(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # Not `anomaly_in_graph`, which hides the size of the images: converters have to know it.
        # LiteRT's converter multiplies by the inverse, which moves the last bit of 111 of 256
        # levels, with `decoding.from_levels` too. `TOLERANCE` covers the difference.
        images = model.filled(tf.cast(images, tf.float32) / 127.5 - 1)
        errors = model.error_maps(images, model.score)
        scored = _without_ignored(model, model.scored_by(model.score)(images, errors))
        # LiteRT hardly supports strings: the reason is its place in the list of `METADATA`.
        reason = model.image_quality.reason_index(images)
        prediction = model.calibration.decide(scored["score"], reason < len(REASONS) - 1)
        return {**scored, **prediction, "reason": reason}

    spec = tf.TensorSpec([1, *image_shape], tf.uint8, name="images")
    return tf.function(score, [spec], autograph=False)


def timed(
    predict: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray
) -> tuple[np.ndarray, float]:
    """Scores images one after another, and takes the time.

    Args:
        predict: from an image uint8 `[1, H, W, C]` to its score `[1]`.
        pixels: uint8 `[N, H, W, C]`.

    Returns:
        Scores float32 `[N]`, and the median of milliseconds per image.
    """
    predict(pixels[:1])  # the first call prepares the weights
    scores, seconds = np.empty(len(pixels), np.float32), np.empty(len(pixels))
    for i, image in enumerate(pixels):
        start = time.perf_counter()
        scores[i] = predict(image[None])[0]
        seconds[i] = time.perf_counter() - start
    return scores, 1000 * float(np.median(seconds))


def threads() -> int:
    """Returns the number of threads of a runtime: those of this machine."""
    return os.cpu_count() or 1


def _without_ignored(model: Detector, scored: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns score and map without the ignored pixels, as `Detector.anomaly_in_graph` does."""
    if model.ignored is None:
        return scored
    anomaly_map = model.left_out(scored["map"])
    if not model.scored_by(model.score).is_peak and model.tile == model.window[:2]:
        return {"score": scored["score"], "map": anomaly_map}
    return {"score": tf.reduce_max(anomaly_map, axis=[1, 2]), "map": anomaly_map}


def _held_out(images: AnomalyData) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns images that were not trained on, their labels, and `AnomalyData.images_of` of them.

    Returns:
        uint8 `[N, H, W, C]`, int32 `[N]`, and int `[N]` or None.
    """
    if images.test_size:
        rows = list(images.test.as_numpy_iterator())
        pixels = np.stack([to_uint8(row["image"]) for row in rows])
        labels = np.array([row["label"] for row in rows], np.int32)
        return pixels, labels, images.images_of([row["name"].decode() for row in rows])
    some = spread(images.calibration, images.calibration_size, COMPARED)
    pixels = np.stack([to_uint8(image) for image in some.as_numpy_iterator()])
    return pixels, np.zeros(len(pixels), np.int32), None


def _own_scores(model: Detector, pixels: np.ndarray) -> np.ndarray:
    batches = batched(tf.data.Dataset.from_tensor_slices(pixels))
    anomaly = model.traced_anomaly(model.score)
    scored = [anomaly(tf.constant(from_uint8(x))) for x in batches.as_numpy_iterator()]
    return np.concatenate([each["score"].numpy() for each in scored])


def _measured(
    name: str,
    measured: tuple[np.ndarray, float],
    size: int,
    own: np.ndarray,
    own_auroc: float | None,
    auroc_of: Callable[[np.ndarray], float | None],
) -> Variant:
    """Returns the measurements of a file; its scores are compared with the model's own."""
    scores, milliseconds = measured
    auroc = auroc_of(scores)
    return Variant(
        name=name,
        size=size,
        largest_difference=float(np.abs(scores - own).max()),
        milliseconds=milliseconds,
        image_auroc=auroc,
        auroc_loss=None if auroc is None or own_auroc is None else own_auroc - auroc,
    )


def _refuse_to_replace(directory: Path, names: Sequence[str]) -> None:
    """Raises UsageError if the directory is a file, or holds one of the names."""
    for each in (directory, *directory.parents):
        if each.exists() and not each.is_dir():
            raise UsageError("directory", directory, f"{each} is a file", "name a folder")
    for name in names:
        if (directory / name).exists():
            hint = "name another folder, or remove it"
            raise UsageError("directory", directory, f"holds a {name} already", hint)


def _write(
    directory: Path, converted: dict[str, bytes], metadata: dict[str, Any], notice: str
) -> None:
    """Writes files and metadata, and the notice of others' weights if there is one, or none."""
    made = not directory.exists()
    if notice:
        converted = {**converted, NOTICE: notice.encode()}
    try:
        for name, content in converted.items():
            files.write_bytes(directory / name, content)
        files.write_json(directory / METADATA, metadata)
    except UsageError:
        for name in converted:
            with contextlib.suppress(OSError):
                (directory / name).unlink()
        if made and directory.is_dir():
            directory.rmdir()
        raise
