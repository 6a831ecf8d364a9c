"""How well a model tells the test set's anomalies: figures, pictures, report."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfgad import files, plots
from tfgad.core.detector import Detector
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.sampling import batched
from tfgad.data.spec import Spec
from tfgad.data.stored import StoredRows, stored
from tfgad.errors import UsageError
from tfgad.evaluation import baselines, metrics, report
from tfgad.scores.score import DEFECT
from tfgad.training import held_out
from tfgad.training.runs import Run, check_shape, from_anywhere

EVEN_ODDS = 0.0  # of a segmenter's map
SHOWN = 16  # images in the report's heat maps: half of them normal


@dataclasses.dataclass(frozen=True)
class TestPredictions:
    """A test set and what a model says of it, as arrays of N images.

    Attributes:
        images: float32 `[N, H, W, C]`, in a file: read some at a time.
        masks: uint8 `[N, H, W, 1]`. labels: int32 `[N]`.
        names: N strings. scores: float32 `[N]`. maps: float32 `[N, H, W]`.
        reasons: N strings, why each is unlike any good image; empty where it is not.
        masked: bool `[N]`, of which the mask is known; None of all.
        images_of: int `[N]`, the image that each is a tile of, where images are counted.
    """

    images: StoredRows
    masks: np.ndarray
    labels: np.ndarray
    names: list[str]
    scores: np.ndarray
    maps: np.ndarray
    reasons: list[str] = dataclasses.field(default_factory=list)
    masked: np.ndarray | None = None
    images_of: np.ndarray | None = None

    @property
    def counted(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels and scores of what is counted: `[N]`, or fewer where N tiles make images."""
        return metrics.by_image(self.labels, self.scores, self.images_of)

    @property
    def image_auroc(self) -> float:
        """How well the scores rank anomalous above normal images."""
        return metrics.image_metrics(*self.counted)["image_auroc"]


def predict_test_set(
    model: Detector, images: AnomalyData, score: str | None = None
) -> TestPredictions:
    """Judges every image of the test set, by another score than the model's own if one is given."""
    if not images.test_size:
        hint = "add images of another kind beside the good ones"
        raise UsageError("data", images.spec, "has no test images", hint)
    maps = np.empty((images.test_size, *images.image_shape[:2]), np.float32)

    def scored():
        count = 0
        for batch in batched(images.test).as_numpy_iterator():
            image = batch["image"]
            found, reasons = model.anomaly(image, score), model.image_quality(image)
            maps[count : count + len(image)] = found["map"]
            count += len(image)
            yield {**batch, "score": found["score"].numpy(), "reason": reasons.numpy()}

    columns = stored(scored())
    names = [name.decode() for name in columns["name"]]
    return TestPredictions(
        images=columns["image"],
        masks=columns["mask"],
        labels=columns["label"],
        names=names,
        scores=columns["score"],
        maps=maps[: len(names)],
        reasons=[reason.decode() for reason in columns["reason"]],
        masked=images.is_masked(names),
        images_of=images.images_of(names),
    )


def reconstructions(model: Detector, judged: TestPredictions) -> Figure:
    """Shows what a method that `reconstructs` makes of four good and four anomalous test images."""
    places = [np.flatnonzero(judged.labels == label)[:4] for label in (0, 1)]
    shown = judged.images[np.concatenate(places)]
    rebuilt = model.reconstruct(shown).numpy()
    return plots.reconstructions(shown, rebuilt, np.abs(shown - rebuilt).mean(axis=-1))


def figures_of(
    judged: TestPredictions, images: AnomalyData, threshold: float | None = None
) -> dict:
    """Returns `metrics.evaluate` of a judged test set, and the `unit` that it counts."""
    masks = judged.masks if images.has_masks else None
    figures = metrics.evaluate(
        judged.labels,
        judged.scores,
        masks,
        judged.maps,
        threshold,
        masked=judged.masked,
        images_of=judged.images_of,
        outside=np.array(judged.reasons) != "",
    )
    return {"unit": images.counted_unit, **figures, "reasons": _reasons(judged)}


def _reasons(judged: TestPredictions) -> dict[str, dict[str, int]]:
    """Returns how many images are unlike any good one for which reason, by `good` and `anomalous`.

    With `tile=` tiles are counted, whatever the unit of the figures.
    """
    return {
        name: dict(
            collections.Counter(
                reason
                for reason, of_image in zip(judged.reasons, judged.labels, strict=True)
                if reason and of_image == label
            )
        )
        for name, label in (("good", 0), ("anomalous", 1))
    }


def _check_unlearnt(run: Run, spec: str) -> None:
    """Raises UsageError if a segmenter or its painter has learnt from a data set's test images."""
    for learner, specs in (("segmenter", "sources"), ("painter", "painter")):
        if _tested_by(spec) in map(_tested_by, run.config.get(specs) or ()):
            hint = "give --data of a fabric that it has not learnt from, or another seed of a weave"
            raise UsageError("data", spec, f"has taught the {learner} its defects", hint)


def _tested_by(spec: str) -> tuple[str, str, str | None]:
    """What two specs have in common whose test images are the same."""
    parsed = Spec.parse(from_anywhere(spec))
    seed = (
        parsed.options.get("seed", "0") if parsed.kind == "weave" else None
    )  # as its loader has it
    return parsed.kind, parsed.name, seed


def evaluate(run: Run, images: AnomalyData, out: Path | None = None) -> dict[str, Any]:
    """Judges the test set, beside the trivial detectors, and writes `metrics.json` and a report.

    Args:
        run: a finished run.
        images: the data set; nothing of its test was used before.
        out: where `metrics.json` and `report.html` go; the run's folder if not given.

    Returns:
        What `metrics.json` holds: the `unit` counted, `"image"` or `"tile"`, of which the figures
        named `image_...` are, too; the figures of `metrics.evaluate`, for a segmenter also
        those of `metrics.segmentation` at even odds and its `iou_at_threshold`; how many
        images were unlike any good one, under `reasons`, which count at the threshold as anomalous;
        `baseline_image_auroc`, and all figures of the trivial detectors under `baselines`.

    Raises:
        UsageError: images of another form, or a segmenter that has learnt from the test images.
    """
    check_shape(run, images)
    _check_unlearnt(run, images.spec)
    images = held_out.for_test(run, images)
    judged = predict_test_set(run.model, images)
    threshold = run.calibration["threshold"]
    figures = figures_of(judged, images, threshold) | baselines.evaluate_baselines(images)
    if run.model.score == DEFECT and images.has_masks:
        masks, maps = judged.masks[judged.masked], judged.maps[judged.masked]
        figures |= metrics.segmentation(masks, maps > EVEN_ODDS)
        above = metrics.segmentation(masks, maps > threshold)
        figures["iou_at_threshold"] = above["iou"]
    out = out or run.folder
    files.write_json(out / "metrics.json", figures)
    report.write_report(
        out / "report.html",
        title=f"{run.config['method']} on {images.spec}",
        metrics=figures,
        baselines=figures["baselines"],
        pictures=_pictures(run, images, judged, threshold),
        data=_facts(run, images),
        configuration={
            "Settings": {"method": run.config["method"], **run.config["settings"]},
            "Calibration": run.calibration,
            "Versions": run.config["versions"],
        },
    )
    return figures


def _pictures(run: Run, images: AnomalyData, judged: TestPredictions, threshold: float):
    """Makes the report's figures, in the order of the data's way."""
    labels, scores = judged.counted
    anomalous = labels == 1
    yield report.Picture(
        plots.image_grid(
            np.stack(list(images.train.take(8).as_numpy_iterator())), "Training images"
        ),
        "What the model learnt from: good images alone.",
        "Eight training images",
    )
    if hasattr(run.model, "sample"):
        yield report.Picture(
            plots.samples(run.model.sample(16).numpy()),
            "What the generator makes of random codes.",
            "Sixteen generated images",
        )
    if run.model.reconstructs:
        yield report.Picture(
            reconstructions(run.model, judged),
            "Test images, first good then anomalous ones, and what the model makes of them.",
            "Images, their reconstructions and the differences",
        )
    places = _shown(judged)
    yield report.Picture(
        plots.heat_maps(
            judged.images[places],
            judged.maps[places],
            judged.masks[places] if images.has_masks else None,
            judged.scores[places],
            threshold,
            [judged.names[i] for i in places],
            None if judged.images_of is not None else judged.labels[places],
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
        f"How the scores of good and anomalous {images.counted_unit}s spread about the threshold.",
        "Histogram of scores",
    )


def _shown(judged: TestPredictions) -> np.ndarray:
    """Picks images evenly over the ranks of the scores, good and anomalous ones alike."""
    picked = []
    for label in (1, 0):
        places = np.flatnonzero(judged.labels == label)
        places = places[np.argsort(-judged.scores[places], kind="stable")]
        count = min(SHOWN // 2, len(places))
        picked.extend(places[np.linspace(0, len(places) - 1, count).astype(int)] if count else [])
    return np.array(picked)


def _facts(run: Run, images: AnomalyData) -> dict[str, Any]:
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
        **({"defective images without a mask": len(images.unmasked)} if images.unmasked else {}),
        "kinds of anomaly": ", ".join(images.kinds) or "not named",
        "files left out": len(images.skipped),
        "training seconds": run.config["training_seconds"],
    }
