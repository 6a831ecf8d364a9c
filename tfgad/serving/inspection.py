"""What the inspection page knows: a batch of files, judged, and its verdicts at any threshold."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from tfgad import results
from tfgad.calibration import probability
from tfgad.data.images import FORMATS, ImageError
from tfgad.scoring import SavedModelJudge, Verdict, score_files

# What one visitor may ask for at once. A judged image takes 8 to 16 bytes a pixel of the disk, so
# that a batch stays below 2 GB; a pixel in float32 and its windows some 100 bytes of memory while
# it is read, so that one image stays below 4 GB.
MOST_FILES, MOST_BYTES = 200, 64 * 2**20
MOST_PIXELS, MOST_PIXELS_TOGETHER = 2**25, 2**27


class Models(Protocol):
    """The models in service, as the page needs them."""

    def names(self) -> list[str]:
        """Returns the names of the models, in the order to list them in."""

    def judge(self, name: str) -> SavedModelJudge:
        """Returns the version of a model that is in service now."""


class Batch:
    """The files that a visitor has had judged by one model.

    Images and maps lie on the disk and are mapped into memory, so that they take none. Their files
    have no name: they go with the batch, and with the process however it ends.

    Attributes:
        model: the model's name.
        facts: what `tfgad.export` says of the version that judges.
        results: a verdict at the model's own threshold of each file, or why there is none.
        threshold: that the visitor wants verdicts at.
        shown: the number, from 0, of the result that the visitor looks at.
        stopped: whether the visitor wants no more files judged.
        replaced: whether the visitor wants others instead, so that nothing of these is shown.
    """

    def __init__(self, model: str, judge: SavedModelJudge):
        self.model, self.facts = model, judge.facts
        self.results: list[Verdict | ImageError] = []
        self.threshold, self.shown = judge.threshold, 0
        self.stopped = self.replaced = False
        self._judge = judge
        self._folder = tempfile.TemporaryDirectory(prefix="tfgad-page-")
        self._pixels = 0
        self._rebuilt: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.results)

    def add(self, path: Path) -> None:
        """Judges one more file."""
        try:
            if len(self) >= MOST_FILES:
                raise ImageError(path, f"is more than {MOST_FILES} files at once")
            self._pixels += check_limits(path, MOST_PIXELS_TOGETHER - self._pixels)
            (result,) = score_files(self._judge, [path])
        except ImageError as error:
            result = error
        # The folder of an upload says nothing to the visitor.
        name = Path(path.name)
        if isinstance(result, Verdict):
            image, anomaly_map = _on_disk(result.image), _on_disk(result.map)
            result = dataclasses.replace(result, path=name, image=image, map=anomaly_map)
        else:
            result = ImageError(name, result.reason)
        self.results.append(result)

    @property
    def verdicts(self) -> list[Verdict | ImageError]:
        """What there is to say of each file at `threshold`."""
        if self.threshold == self.facts["threshold"]:
            return self.results
        scale = self.facts["scale"]
        return [
            at_threshold(result, self.threshold, scale) if isinstance(result, Verdict) else result
            for result in self.results
        ]

    @property
    def reconstructs(self) -> bool:
        """Whether the model can say what it makes of an image."""
        return self._judge.reconstructs

    def reconstruction(self, index: int) -> np.ndarray:
        """Returns what the model makes of an image that it has judged; float32 `[H, W, C]`."""
        if index not in self._rebuilt:
            rebuilt = self._judge.reconstruct(np.asarray(self.results[index].image))
            self._rebuilt[index] = _on_disk(rebuilt)
        return self._rebuilt[index]

    def write_csv(self) -> Path:
        """Writes the table that `tfgad score --csv` writes, and returns its path."""
        path = Path(self._folder.name) / "verdicts.csv"
        results.write_csv(path, rows(self.verdicts))
        return path


def rows(judged: Iterable[Verdict | ImageError]) -> list[dict[str, str]]:
    """Returns the table's rows, with the columns of `tfgad.results`."""
    return [results.row(result) for result in judged]


def at_threshold(verdict: Verdict, threshold: float, scale: float) -> Verdict:
    """Returns the verdict on an image's score at another threshold than that it was judged by.

    Args:
        verdict: at the model's own threshold.
        threshold: scores above it are anomalous.
        scale: of the model's calibration.
    """
    return dataclasses.replace(
        verdict,
        probability=float(probability(verdict.score, threshold, scale)),
        is_anomalous=verdict.score > threshold,
        map_threshold=None if verdict.map_threshold is None else threshold,
    )


def thresholds_of(facts: dict[str, Any]) -> dict[float, float]:
    """Returns false-positive rate -> threshold, the model's own rate among them, in order.

    Empty where the model was exported without, by an earlier tfgad.
    """
    if not facts.get("thresholds"):
        return {}
    known = {rate: threshold for rate, threshold in facts["thresholds"]}
    return dict(sorted({**known, facts["false_positive_rate"]: facts["threshold"]}.items()))


def check_limits(path: Path, pixels_left: int = MOST_PIXELS_TOGETHER) -> int:
    """Looks at a file's sizes before anything of it is decoded.

    Args:
        path: the file.
        pixels_left: how many the batch may still hold.

    Returns:
        The number of its pixels; 0 of what is no image, which reading it will tell.

    Raises:
        ImageError: it is too large.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ImageError(path, f"is larger than {MOST_BYTES // 2**20} MB")
        with Image.open(path, formats=FORMATS) as image:
            pixels = image.width * image.height
    except ImageError:
        raise
    except Image.DecompressionBombError:
        pixels = MOST_PIXELS + 1
    except Exception:  # on broken files Pillow raises almost anything
        return 0
    if pixels > MOST_PIXELS:
        raise ImageError(path, f"has more than {MOST_PIXELS / 1e6:.1f} megapixels")
    if pixels > pixels_left:
        limit = f"{MOST_PIXELS_TOGETHER / 1e6:.0f} megapixels"
        raise ImageError(path, f"is left out: all images together may have {limit}")
    return pixels


def _on_disk(array: np.ndarray) -> np.ndarray:
    """Returns an array as one that is mapped from a file without a name."""
    with tempfile.TemporaryFile() as file:
        array.tofile(file)
        file.flush()
        return np.memmap(file, array.dtype, "r", shape=array.shape)
