"""A finished run and its threshold."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfgad.core.detector import Detector
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.options import Size
from tfgad.data.origins import IMAGE, TILE, Origins
from tfgad.data.pixels import STRETCH
from tfgad.errors import UsageError
from tfgad.networks.pretrained import sha256_of
from tfgad.scores.calibration import Threshold
from tfgad.scores.rate_interval import PROMISE, RateInterval
from tfgad.training import held_out
from tfgad.training.lock import locked
from tfgad.training.run_config import absolute_spec
from tfgad.training.run_folder import RunFolder
from tfgad.training.saving import load_model, save_model

logger = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds that results wait for another process to finish its writing
LEAST_IMAGES = 2  # to train on, and to calibrate by: the variation of one image is not known
FALSE_POSITIVE_RATE = 0.01  # of the threshold that training sets; `tfgad calibrate` sets another


# Of the metadata of a threshold, what tells of the images that set it.
RECORD = (
    *("method", "images", "unit", "data", "groups", "group"),
    *("rate_interval", "rate_at_most", "effective_images", "groups_needed", "groups_needed_for"),
    "fewest_effective_images",
    "products",
)


@dataclasses.dataclass
class Run:
    """A run with its model in memory.

    Attributes:
        folder: path of its folder.
        config: its configuration; see `tfgad.training.run_config`.
        model: the detector.
        digest: of the file that holds the model; None of a run that has none yet.
    """

    folder: Path
    config: dict[str, Any]
    model: Detector
    digest: str | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def calibration(self) -> dict[str, Any]:
        """Metadata of the threshold.

        Its numbers come from the model, which predicts with them: `save` may have been killed
        between the two files.
        """
        return {**self.config.get("calibration", {}), **calibration_numbers(self.model)}

    def save(self) -> None:
        """Writes the configuration and the model, each whole or not at all.

        The model comes last: a run counts as finished once it exists.
        """
        folder = RunFolder(self.folder)
        folder.write_config(self.config)
        save_model(self.model, folder.model)
        self.digest = digest_of(folder.model)

    def check_unchanged(self) -> None:
        """Raises UsageError if the folder holds another model than the one that was loaded."""
        if self.digest is None:
            return
        digest = digest_of(RunFolder(self.folder).model)
        if digest is None:
            problem = "is being trained since it was loaded, or its model was removed"
            raise UsageError("run", self.folder, problem, "start again when its training has ended")
        if digest != self.digest:
            problem = "has been trained or calibrated since it was loaded"
            raise UsageError("run", self.folder, problem, "start again")

    @contextlib.contextmanager
    def writing(
        self, out: str | os.PathLike[str] | None = None, patience: float = 0.0
    ) -> Iterator[None]:
        """Holds the lock on the folder while something made with the model is written there.

        Args:
            out: the folder that is written, if it may be another one. That is not locked.
            patience: seconds to wait for another process that writes.

        Raises:
            UsageError: another process trains the run or writes into its folder, or has since the
                model was loaded.
        """
        if out is not None and Path(out).resolve() != self.folder.resolve():
            yield
            return
        with locked(self.folder, "run", "wait until it is finished", patience):
            self.check_unchanged()
            yield


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Loads a finished run.

    Raises:
        UsageError: the folder does not exist, is no run, or its training is not finished.
    """
    run = RunFolder(folder)
    digest = digest_of(run.model)  # first: the file may be replaced while it is read
    config = run.read_finished()
    return Run(run.path, config, load_model(run.model), digest)


def digest_of(path: Path) -> str | None:
    """Returns the start of a file's SHA-256; None if there is no file."""
    try:
        return sha256_of(path)
    except OSError:
        return None


def calibrate(
    run: Run, images: AnomalyData, false_positive_rate: float, per: str | None = None
) -> dict[str, Any]:
    """Sets the threshold of a run anew from normal images, and returns its metadata.

    Uses all good images that the run was not trained on and that the test does not need.

    Args:
        run: its folder is written.
        images: the data set.
        false_positive_rate: the share of good images that may be called anomalous.
        per: `"tile"` or `"image"`: whether it is a share of the tiles or of the whole images; by
            default see `default_per`.

    Raises:
        UsageError: images of another shape, too few of them, or some that the run was trained on;
            or another `per`. Or the run is being trained, or has been since it was loaded.
    """
    with run.writing():
        return _calibrated(run, images, false_positive_rate, per)


def _calibrated(
    run: Run, images: AnomalyData, false_positive_rate: float, per: str | None
) -> dict[str, Any]:
    """Calibrates as `calibrate` does, in a folder that is locked."""
    check_shape(run, images)
    if run.config.get("learned"):
        text = "the threshold is set on %s alone, without the images that were learned since"
        logger.warning(text, images.spec)
    images = held_out.for_calibration(run, images)
    check_enough(images.spec, images.calibration_size)
    origins, per = images.calibration_origins, per or default_per(run)
    threshold = run.model.calibrate(
        images.calibration,
        false_positive_rate,
        origins=origins,
        per=per,
        products=products_of(run, images),
    )
    spec = absolute_spec(images.spec)
    run.config["calibration"] = calibration_metadata(
        threshold, false_positive_rate, spec, origins, per
    )
    run.save()
    return run.config["calibration"]


def default_per(run: Run) -> str:
    """Returns what a false-positive rate is a share of: images if they are resized, else tiles."""
    return IMAGE if run.config["resized"] else TILE


def calibration_metadata(
    threshold: Threshold,
    false_positive_rate: float,
    spec: str,
    origins: Origins | None = None,
    per: str = TILE,
) -> dict[str, Any]:
    """Returns what the configuration records of a threshold and of the data that set it.

    Args:
        threshold: with the interval of its rate.
        false_positive_rate: that was asked for.
        spec: of the data set.
        origins: of its calibration images; None if each has a group of its own.
        per: what the rate is a share of, `"tile"` or `"image"`.
    """
    metadata = {
        "threshold": threshold.value,
        "false_positive_rate": false_positive_rate,
        "per": per,
        "method": threshold.method,
        "images": threshold.n,
        # What `images` counts. A tile that was not cut from an image is one itself.
        "unit": TILE if per == TILE and origins and origins.images is not None else IMAGE,
        "data": spec,
    }
    if threshold.of_products:
        metadata["products"] = {
            name: {
                "threshold": each.value,
                "method": each.method,
                "images": each.n,
                **_rate_metadata(each.interval),
            }
            for name, each in threshold.of_products.items()
        }
        known = [each.interval for each in threshold.of_products.values() if each.interval]
        if known:  # of the product that has fewest: they limit the probability
            fewest = min(each.effective for each in known)
            metadata["fewest_effective_images"] = round(fewest, 1)
    interval = threshold.interval
    if interval is None:
        return metadata
    return metadata | {
        **_rate_metadata(interval),
        "group": origins.kind if origins else "image",
        "groups_needed_for": PROMISE * false_positive_rate,
    }


def _rate_metadata(interval: RateInterval | None) -> dict[str, Any]:
    """Returns what the configuration records of the interval of a rate, nothing without one."""
    if interval is None:
        return {}
    return {
        "groups": interval.groups,
        "rate_interval": [round(interval.low, 6), round(interval.high, 6)],
        "rate_at_most": round(interval.at_most, 6),
        "effective_images": round(interval.effective, 1),
        "groups_needed": interval.groups_needed,
    }


def calibration_numbers(model: Detector) -> dict[str, Any]:
    """Returns threshold, false-positive rate and `per`: weights of a calibrated model.

    `per` is `"tile"` or `"image"`, what the rate is a share of.
    """
    weights = model.calibration
    return {
        "threshold": float(weights.threshold),
        # Six digits, since 0.01 as float32 is 0.009999999776.
        "false_positive_rate": float(f"{float(weights.false_positive_rate):.6g}"),
        "per": weights.per,
    }


def check_enough(spec: str, count: int, purpose: str = "for a threshold") -> None:
    """Raises UsageError if there are too few good images for a purpose."""
    if count < LEAST_IMAGES:
        problem = f"leaves too few good images ({count}) {purpose}"
        raise UsageError("data", spec, problem, "add good images")


def check_enough_of_each(images: AnomalyData) -> None:
    """Raises UsageError if there are too few good images of a product."""
    for part, purpose in (
        (images.train_products, "to train on"),
        (images.calibration_products, "for a threshold"),
    ):
        for number, name in enumerate(images.products):
            count = int(np.sum(part == number))
            if count < LEAST_IMAGES:
                problem = f"leaves too few good images ({count}) of {name} {purpose}"
                raise UsageError("data", images.spec, problem, f"add good images of {name}")


def check_several(images: AnomalyData) -> None:
    """Raises UsageError if a data set to train on names one product."""
    if len(images.products) == 1:
        problem = "is one product"
        hint = "name two or more, such as bolt+nut, or give its data alone"
        raise UsageError("data option products", images.products[0], problem, hint)


def products_of(run: Run, images: AnomalyData, of: np.ndarray | None = None) -> np.ndarray | None:
    """Returns the product of each calibration image, as the run's model numbers them.

    None of a model of one product, or of data whose products are to be recognised.

    Args:
        run: the run.
        images: the data set.
        of: int `[N]`, indices of `images.products`, of other images than those of calibration.

    Raises:
        UsageError: a product that the model does not know.
    """
    if not run.model.product_names or not images.products:
        return None
    numbers = run.model.product_indices(images.products, len(images.products))
    return np.asarray(numbers)[images.calibration_products if of is None else of]


def check_shape(run: Run, images: AnomalyData) -> None:
    """Raises UsageError unless the images have the shape that the run's model was trained on."""
    check_form(run.config, images)


def check_form(config: Mapping[str, Any], images: AnomalyData) -> None:
    """Raises UsageError unless images have the size and channels that a model takes.

    Args:
        config: of a run, or the metadata of an exported model.
        images: the data set.
    """
    trained_on, given = tuple(config["image_shape"]), images.image_shape
    if given != trained_on and (config["resized"] or given[2] != trained_on[2]):
        size = Size(*trained_on[:2])
        form = f"size={size}" if config["resized"] else f"tile={size.height}"
        hint = f"load the data with {form} and channels={trained_on[2]}"
        raise UsageError("data", f"images of {given}", f"but the model has {trained_on}", hint)
    fit = config.get("fit", STRETCH)
    if config["resized"] and images.resized and images.fit != fit:
        hint = f"load the data with fit={fit}"
        raise UsageError("data", f"fit={images.fit}", f"but the model has fit={fit}", hint)
