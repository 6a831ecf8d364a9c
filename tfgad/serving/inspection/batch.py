"""Batches of files that visitors of the inspection page have scored."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import threading
from pathlib import Path

import numpy as np

from tfgad.data.image_files import ImageError
from tfgad.data.pixels import from_uint8, to_uint8
from tfgad.inference import results
from tfgad.inference.predictor import region_at
from tfgad.inference.saved_model import SavedModelPredictor
from tfgad.inference.scoring import (
    Verdict,
    calibrated_size,
    drift_notice,
    regions_of,
    score_files,
)
from tfgad.serving.inspection import file_checks
from tfgad.serving.inspection.array_file import ArrayFile, ArrayRef
from tfgad.serving.inspection.thresholds import at_threshold

# Limits of all visitors' pictures together: the disk space of three of the largest batches, and one
# of the 1,024 file descriptors that a process usually has for each.
MAX_OPEN_BATCHES, MAX_OPEN_BYTES = 64, 4 * 2**30


class Batch:
    """The files of one visitor, scored by one model.

    Images and maps are on the disk until the batch is closed. The table remains.

    Args:
        model: name of the model.
        predictor: its version in service.
        visitor: session of the visitor.
        folder: folder that must contain the files, and that will contain the table; None for any.

    Attributes:
        model: name of the model.
        visitor: session of the visitor.
        metadata: metadata of the version that scores.
        reconstructs: whether the model makes reconstructions.
        results: for each file its verdict at the model's own threshold, or why there is none. Image
            and map of a verdict are zeros that take no memory; `with_pictures` reads the real ones.
        threshold: threshold that the visitor wants verdicts at.
        shown: index of the result that the visitor looks at.
        stopped: whether the visitor has stopped the scoring.
        replaced: whether the visitor has given other files, so that nothing of these is shown.
    """

    def __init__(
        self,
        model: str,
        predictor: SavedModelPredictor,
        visitor: str | None = None,
        folder: Path | None = None,
    ):
        self.model, self.visitor, self._root = model, visitor, folder
        self.metadata, self.reconstructs = predictor.metadata, predictor.reconstructs
        self.results: list[Verdict | ImageError] = []
        self.threshold, self.shown = predictor.threshold, 0
        self.stopped = self.replaced = False
        self._predictor: SavedModelPredictor | None = predictor
        self._calibration_scores = predictor.calibration_scores
        self._calibrated_size = calibrated_size(predictor)
        self._region_at = functools.partial(region_at, predictor.ignored)
        self._folder = tempfile.TemporaryDirectory(prefix="tfgad-table-", dir=folder)
        self._pixels = 0
        self._arrays = ArrayFile()
        self._images: dict[int, ArrayRef | None] = {}
        self._maps: dict[int, ArrayRef | None] = {}
        self._reconstructions: dict[int, ArrayRef | None] = {}
        self._rows: dict[tuple[int, float], dict[str, str]] = {}  # by index and threshold

    def __len__(self) -> int:
        return len(self.results)

    def add(self, path: Path) -> None:
        """Scores one more file."""
        result: Verdict | ImageError
        try:
            result = self._score(path)
        except ImageError as error:
            result = error
        # The visitor needs the name of the file, not the folder of uploads.
        name = Path(path.name)
        if isinstance(result, Verdict):
            self._images[len(self)] = self._arrays.write(to_uint8(result.image))
            self._maps[len(self)] = self._arrays.write(result.map)
            image, anomaly_map = _zeros(result.image.shape), _zeros(result.map.shape)
            result = dataclasses.replace(
                result, path=name, image=image, map=anomaly_map, ignored=None
            )
        else:
            result = ImageError(name, result.reason)
        self.results.append(result)

    def _score(self, path: Path) -> Verdict | ImageError:
        """Scores a file.

        Raises:
            ImageError: it cannot be scored.
        """
        predictor = self._predictor  # another visitor's thread may close the batch meanwhile
        if predictor is None:
            raise ImageError(path, "was not scored: the server was busy, so score it again")
        if len(self) >= file_checks.MAX_FILES:
            raise ImageError(path, f"was not scored: more than {file_checks.MAX_FILES} files")
        file_checks.check_file(path, self._root)
        left = file_checks.MAX_BATCH_PIXELS - self._pixels
        self._pixels += file_checks.check_limits(path, left)
        (result,) = score_files(predictor, [path])
        return result

    def drift(self) -> str:
        """Returns in words how the images differ from those of calibration; else empty.

        Nothing is said of a model that stores nothing of its calibration images.
        """
        if self._calibration_scores is None:
            return ""
        verdicts = [result for result in self.results if isinstance(result, Verdict)]
        scored = [(each.image.shape, each.score, each.brightness) for each in verdicts]
        return drift_notice(self._calibration_scores, self._calibrated_size, scored)

    @property
    def verdicts(self) -> list[Verdict | ImageError]:
        """For each file its verdict at `threshold`, or why there is none."""
        if self.threshold == self.metadata["threshold"]:
            return self.results
        return [
            at_threshold(each, self.threshold, self.metadata) if isinstance(each, Verdict) else each
            for each in self.results
        ]

    def rows(self) -> list[dict[str, str]]:
        """Returns the rows of the table, with the columns of `tfgad.inference.results`.

        Regions at a threshold that was not asked for before the batch was closed are left empty.
        """
        return [self._row(index, result) for index, result in enumerate(self.verdicts)]

    def _row(self, index: int, result: Verdict | ImageError) -> dict[str, str]:
        """Returns the row of a file at `threshold`; its regions are found once, in its map."""
        key = index, self.threshold
        if key in self._rows:
            return self._rows[key]
        anomaly_map = self._arrays.read(self._maps.get(index))
        if anomaly_map is None or isinstance(result, ImageError):
            return results.row(result)
        regions = regions_of(dataclasses.replace(result, map=anomaly_map))
        self._rows[key] = results.row(result, regions)
        return self._rows[key]

    def with_pictures(self, index: int) -> Verdict | None:
        """Returns the verdict on a scored image, with image and map; None if the batch is closed.

        Args:
            index: index of the result, which must be a verdict.
        """
        pixels = self._arrays.read(self._images[index])
        anomaly_map = self._arrays.read(self._maps[index])
        verdict = self.verdicts[index]
        if pixels is None or anomaly_map is None or not isinstance(verdict, Verdict):
            return None
        image, ignored = from_uint8(pixels), self._region_at(pixels.shape)
        return dataclasses.replace(verdict, image=image, map=anomaly_map, ignored=ignored)

    def reconstruction(self, index: int) -> np.ndarray | None:
        """Returns the reconstruction of a scored image; None if the batch is closed.

        Args:
            index: index of the result, which must be a verdict.

        Returns:
            float32 `[H, W, C]` in [-1, 1].
        """
        if index in self._reconstructions:
            reconstruction = self._arrays.read(self._reconstructions[index])
            return None if reconstruction is None else from_uint8(reconstruction)
        predictor, pixels = self._predictor, self._arrays.read(self._images[index])
        if predictor is None or pixels is None:
            return None
        image = predictor.reconstruct(from_uint8(pixels))
        self._reconstructions[index] = self._arrays.write(to_uint8(image))
        return image

    def write_csv(self) -> Path:
        """Writes the table in the form of `tfgad score --csv`; returns its path."""
        path = Path(self._folder.name) / "verdicts.csv"
        columns = results.columns(self.metadata.get("products", ()))
        results.write_csv(path, self.rows(), columns)
        return path

    @property
    def bytes(self) -> int:
        """Disk space of its pictures."""
        return self._arrays.bytes

    def close(self) -> None:
        """Frees the pictures, and the model, which may be retired. No more files are scored."""
        self._predictor = None
        self._arrays.close()


class Batches:
    """The open batches of all visitors: one each, within the limits of all together."""

    def __init__(self) -> None:
        self._open: list[Batch] = []  # the last used at the end
        self._lock = threading.Lock()

    def start(self, batch: Batch) -> None:
        """Adds a batch, and closes the visitor's previous one."""
        self.leave(batch.visitor)
        with self._lock:
            self._open.append(batch)
        self.use(batch)

    def use(self, batch: Batch) -> None:
        """Marks a batch as used; closes those unused for longest if the limits are exceeded."""
        with self._lock:
            if batch in self._open:  # not if it is closed
                self._open.remove(batch)
                self._open.append(batch)
            while len(self._open) > 1 and self._are_too_many():
                self._open.pop(0).close()

    def leave(self, visitor: str | None) -> None:
        """Closes a visitor's batch, and ends its scoring."""
        with self._lock:
            for batch in [each for each in self._open if each.visitor == visitor]:
                batch.replaced = True
                batch.close()
                self._open.remove(batch)

    def _are_too_many(self) -> bool:
        total = sum(batch.bytes for batch in self._open)
        return len(self._open) > MAX_OPEN_BATCHES or total > MAX_OPEN_BYTES


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 zeros that take no memory."""
    return np.broadcast_to(np.float32(0), shape)
