"""Evaluation of a run: figures of its test set, trivial detectors beside it, report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfgad import files, plots
from tfgad.core.detector import Detector
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.ignored import ignoring, percent
from tfgad.data.products import SEPARATOR
from tfgad.data.spec import Spec
from tfgad.data.titles import product_name
from tfgad.errors import UsageError
from tfgad.evaluation import metrics, report
from tfgad.evaluation.baselines import scored_baselines
from tfgad.evaluation.findings import findings_of
from tfgad.evaluation.gallery import gallery
from tfgad.evaluation.predictions import (
    Progress,
    TestPredictions,
    check_test_images,
    figures_of,
    heat_maps,
    no_progress,
    predict_test_set,
    reconstructions,
)
from tfgad.evaluation.scores_table import scores_table
from tfgad.evaluation.units import units_of
from tfgad.scores.score import is_largest_of_map
from tfgad.training import Run, held_out
from tfgad.training.run import PATIENCE, check_shape
from tfgad.training.run_config import absolute_spec as from_anywhere
from tfgad.training.run_folder import RESULTS

METRICS, REPORT, SCORES, GALLERY = RESULTS
SHOWN = 16  # images in the report's heat maps: half of them normal


def evaluate(
    run: Run, images: AnomalyData, out: Path | None = None, progress: Progress = no_progress
) -> dict[str, Any]:
    """Scores the test set, beside the trivial detectors, and writes the files of `RESULTS`.

    Args:
        run: a finished run.
        images: the data set; nothing of its test was used before.
        out: folder for the files; the run's folder if not given.
        progress: called with a step's name, how much of it is done, and of how much.

    Returns:
        The content of `metrics.json`: the `unit` counted, `"image"` or `"tile"`, also by the
        figures named `image_...`; the figures of `metrics.evaluate`; for a model with a
        `pixel_threshold` also those of `metrics.segmentation` at it, and `iou_at_threshold`, that
        at the threshold of images; under `reasons`, how many images were unlike any good one,
        which count as anomalous at the threshold; `baseline_image_auroc`, and all figures of the
        trivial detectors under `baselines`.

        And what `findings_of` adds: the comparison with the best trivial detector, the rate of
        false alarms beside the one asked for, the figures by kind, and all that in words.

    Raises:
        UsageError: images of another form, or test images that the model was trained on. Or files
            of the run's folder, which is being trained, or has been since the run was loaded.
    """
    out = out or run.folder
    with run.writing(out):  # refused now rather than after all the work
        pass
    check_shape(run, images)
    check_untrained(run, images.spec)
    images = ignoring(held_out.for_test(run, images), run.model.ignored)
    check_test_images(images)
    # First, for it may find fault with a file of weights: the scores would be lost.
    of_baselines, baseline_scores = scored_baselines(images, progress=progress)
    predictions = predict_test_set(run.model, images, progress=progress)
    progress("computing figures", 0, 0)
    threshold = float(run.model.calibration.threshold)
    figures = figures_of(predictions, images, threshold) | of_baselines
    if run.model.pixel_threshold is not None and images.has_masks:
        figures |= _segmentation(predictions, run.model, threshold)
    units = units_of(predictions, images)
    figures |= findings_of(run, images, predictions, units, baseline_scores, figures)
    progress("drawing pictures", 0, 0)
    mistakes = gallery(predictions, images, units[images.counted_unit], threshold)
    pictures = _pictures(run, images, predictions, threshold)
    known = is_largest_of_map(run.model.score, images.image_shape, run.model.window)
    table = scores_table(predictions, images, threshold, threshold if known else None)
    with run.writing(out, patience=PATIENCE):
        files.write_json(out / METRICS, figures)
        files.write_text(out / SCORES, table)
        if mistakes:
            plots.save(mistakes, out / GALLERY)
        else:
            (out / GALLERY).unlink(missing_ok=True)  # of an earlier evaluation
        report.write_report(
            out / REPORT,
            title=f"{run.config['method']} on {product_name({'data': str(images.spec)})}",
            metrics=figures,
            baselines=figures["baselines"],
            pictures=[*_of_mistakes(mistakes), *pictures],
            data=_data_metadata(run, images),
            configuration={
                "Settings": {"method": run.config["method"], **run.config["settings"]},
                "Calibration": run.calibration,
                "Versions": run.config["versions"],
            },
        )
    return figures


def written(folder: Path) -> list[Path]:
    """Returns the files of `RESULTS` that an evaluation wrote into a folder."""
    return [folder / name for name in RESULTS if (folder / name).exists()]


def check_untrained(run: Run, spec: str) -> None:
    """Raises UsageError if the model was trained on the test images of a data set."""
    learnt_from = [_test_sets(each) for each in run.config.get("learnt_from") or ()]
    if _test_sets(spec) & set().union(*learnt_from):
        problem = "has test images that the model was trained on"
        hint = "give --data of another fabric, or another seed of a weave"
        raise UsageError("data", spec, problem, hint)


def _test_sets(spec: str) -> set[tuple[str, str, str | None]]:
    """Returns the parts of a spec that determine its test images, of each of its products."""
    parsed = Spec.parse(from_anywhere(spec))
    # The default of the weave's loader.
    seed = parsed.options.get("seed", "0") if parsed.kind == "weave" else None
    names = parsed.name.split(SEPARATOR) if parsed.kind in ("aitex", "weave") else [parsed.name]
    return {(parsed.kind, name, seed) for name in names}


def _segmentation(
    predictions: TestPredictions, model: Detector, threshold: float
) -> dict[str, float | None]:
    """Returns the figures of the pixels that are marked, on the images whose mask is known."""
    masks, maps = predictions.masks[predictions.masked], predictions.maps[predictions.masked]
    if model.ignored is not None:
        masks, maps = masks[:, ~model.ignored], maps[:, ~model.ignored]
    at_threshold = metrics.segmentation(masks, maps > threshold)
    return {
        **metrics.segmentation(masks, maps > model.pixel_threshold),
        "iou_at_threshold": at_threshold["iou"],
    }


def _pictures(
    run: Run, images: AnomalyData, predictions: TestPredictions, threshold: float
) -> Iterator[report.Picture]:
    """Yields the figures of the report: data, generator, reconstructions, maps, scores."""
    labels, scores = predictions.counted
    anomalous = labels == 1
    yield report.Picture(
        plots.image_grid(
            np.stack(list(images.train.take(8).as_numpy_iterator())), "Training images"
        ),
        "Training images: good ones alone.",
        "Eight training images",
    )
    if hasattr(run.model, "sample"):
        yield report.Picture(
            plots.samples(run.model.sample(16).numpy()),
            "Images that the generator makes of random codes.",
            "Sixteen generated images",
        )
    if run.model.reconstructs:
        yield report.Picture(
            reconstructions(run.model, predictions),
            "Test images, first good then anomalous ones, and their reconstructions.",
            "Images, their reconstructions and the differences",
        )
    places = _shown(predictions)
    yield report.Picture(
        heat_maps(
            predictions,
            images,
            places,
            threshold,
            None if predictions.images_of is not None else predictions.labels[places],
        ),
        "Test images taken evenly over the ranks of their scores, with the true outline.",
        "Heat maps beside the true masks",
    )
    if anomalous.any() and not anomalous.all():
        yield report.Picture(
            plots.roc(labels, scores, threshold),
            "Recall against false alarms for every threshold; the point is the calibrated one.",
            "Receiver operating characteristic",
        )
    yield report.Picture(
        plots.score_histogram(scores[~anomalous], scores[anomalous], threshold),
        f"Scores of good and anomalous {images.counted_unit}s about the threshold.",
        "Histogram of scores",
    )


def _of_mistakes(figure: Figure | None) -> list[report.Picture]:
    """Returns the gallery as a picture of the report, if there is one."""
    if figure is None:
        return []
    caption = (
        "The worst mistakes of the score, worst first: good images with the highest scores, then "
        "defective ones with the lowest. Those unlike any good image are left out."
    )
    return [report.Picture(figure, caption, "False alarms and misses, with their heat maps")]


def _shown(predictions: TestPredictions) -> np.ndarray:
    """Picks images evenly over the ranks of the scores, as many good as anomalous ones."""
    picked: list[int] = []
    for label in (1, 0):
        places = np.flatnonzero(predictions.labels == label)
        places = places[np.argsort(-predictions.scores[places], kind="stable")]
        count = min(SHOWN // 2, len(places))
        picked.extend(places[np.linspace(0, len(places) - 1, count).astype(int)] if count else [])
    return np.array(picked)


def _data_metadata(run: Run, images: AnomalyData) -> dict[str, Any]:
    """Returns the report's table of the data set."""
    height, width, channels = images.image_shape
    unit, counted = images.unit, images.counted_unit
    colour = "grey" if channels == 1 else "colour"
    counts = "" if counted == unit else f", counted by {counted}: the highest score of its {unit}s"
    return {
        "data set": images.spec,
        unit: f"{height} x {width}, {colour}",
        f"training {unit}s": images.train_size,
        f"calibration {unit}s": images.calibration_size,
        f"test {unit}s": f"{images.test_size:,}{counts}",
        **(
            {}
            if images.ignored is None
            else {"ignored": f"{percent(images.ignored.mean())} of each"}
        ),
        **({"defective images without a mask": len(images.unmasked)} if images.unmasked else {}),
        "kinds of anomaly": ", ".join(images.kinds) or "not named",
        "files left out": len(images.skipped),
        "training seconds": run.config["training_seconds"],
    }
