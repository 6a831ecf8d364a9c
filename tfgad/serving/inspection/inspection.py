"""What the inspection page knows: a batch of files, judged, and its verdicts at any threshold."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import stat
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from tfgad.data.image_files import FORMATS, ImageError
from tfgad.data.pixels import from_uint8, to_uint8
from tfgad.inference import results
from tfgad.inference.predictor import SavedModelPredictor, Verdict, score_files
from tfgad.scores.calibration import probability
from tfgad.serving.server.image_sizes import excess
from tfgad.serving.server.limits import Limits

# What one visitor may ask for at once. A judged image takes 5 to 10 bytes a pixel of the disk, so
# that a batch stays below 1.4 GB; a pixel in float32 and its windows some 100 bytes of memory while
# it is read, so that one image stays below 4 GB.
MOST_FILES, MOST_BYTES = 200, 64 * 2**20
MOST_PIXELS, MOST_PIXELS_TOGETHER = Limits.max_pixels, 2**27
# What all visitors' pictures may take together: the disk of three of the largest batches, and a
# descriptor each of the 1024 that a process usually has.
MOST_OPEN_BATCHES, MOST_OPEN_BYTES = 64, 4 * 2**30


class Models(Protocol):
    """The models in service, as the page needs them."""

    def names(self) -> list[str]:
        """Returns the names of the models, in the order to list them in."""

    def judge(self, name: str) -> SavedModelPredictor:
        """Returns the version of a model that is in service now."""


class Batch:
    """The files that a visitor has had judged by one model.

    Images and maps lie on the disk until the batch is closed. Its table stays.

    Args:
        model: the model's name.
        judge: the version of it that is in service.
        visitor: whose it is.
        folder: that the files must lie in, and its table; None for any.

    Attributes:
        model: the model's name.
        visitor: whose it is.
        metadata: what `tfgad.export.saved_model` says of the version that judges.
        reconstructs: whether the model can say what it makes of an image.
        results: a verdict at the model's own threshold of each file, or why there is none. In place
            of image and map, which `with_pictures` reads, are zeros that take no memory.
        threshold: that the visitor wants verdicts at.
        shown: the number, from 0, of the result that the visitor looks at.
        stopped: whether the visitor wants no more files judged.
        replaced: whether the visitor wants others instead, so that nothing of these is shown.
    """

    def __init__(
        self,
        model: str,
        judge: SavedModelPredictor,
        visitor: str | None = None,
        folder: Path | None = None,
    ):
        self.model, self.visitor, self._root = model, visitor, folder
        self.metadata, self.reconstructs = judge.metadata, judge.reconstructs
        self.results: list[Verdict | ImageError] = []
        self.threshold, self.shown = judge.threshold, 0
        self.stopped = self.replaced = False
        self._judge: SavedModelPredictor | None = judge
        self._folder = tempfile.TemporaryDirectory(prefix="tfgad-table-", dir=folder)
        self._pixels = 0
        self._disk = _Disk()
        self._images: dict[int, _Place | None] = {}
        self._maps: dict[int, _Place | None] = {}
        self._rebuilt: dict[int, _Place | None] = {}

    def __len__(self) -> int:
        return len(self.results)

    def add(self, path: Path) -> None:
        """Judges one more file."""
        judge = self._judge  # another visitor's thread may close the batch meanwhile
        try:
            if judge is None:
                raise ImageError(path, "is left out: others needed the room, so judge it again")
            if len(self) >= MOST_FILES:
                raise ImageError(path, f"is more than {MOST_FILES} files at once")
            check_file(path, self._root)
            self._pixels += check_limits(path, MOST_PIXELS_TOGETHER - self._pixels)
            (result,) = score_files(judge, [path])
        except ImageError as error:
            result = error
        # The folder of an upload says nothing to the visitor.
        name = Path(path.name)
        if isinstance(result, Verdict):
            self._images[len(self)] = self._disk.write(to_uint8(result.image))  # what the judge saw
            self._maps[len(self)] = self._disk.write(result.map)
            image, anomaly_map = _zeros(result.image.shape), _zeros(result.map.shape)
            result = dataclasses.replace(result, path=name, image=image, map=anomaly_map)
        else:
            result = ImageError(name, result.reason)
        self.results.append(result)

    @property
    def verdicts(self) -> list[Verdict | ImageError]:
        """What there is to say of each file at `threshold`."""
        if self.threshold == self.metadata["threshold"]:
            return self.results
        scale = self.metadata["scale"]
        return [
            at_threshold(result, self.threshold, scale) if isinstance(result, Verdict) else result
            for result in self.results
        ]

    def with_pictures(self, index: int) -> Verdict | None:
        """Returns the verdict on an image that was judged, with image and map.

        None if the batch is closed.
        """
        pixels = self._disk.read(self._images[index])
        anomaly_map = self._disk.read(self._maps[index])
        if pixels is None or anomaly_map is None:
            return None
        verdict = self.verdicts[index]
        return dataclasses.replace(verdict, image=from_uint8(pixels), map=anomaly_map)

    def reconstruction(self, index: int) -> np.ndarray | None:
        """Returns what the model makes of an image that it has judged; float32 `[H, W, C]`.

        None if the batch is closed.
        """
        if index in self._rebuilt:
            rebuilt = self._disk.read(self._rebuilt[index])
            return None if rebuilt is None else from_uint8(rebuilt)
        judge, pixels = self._judge, self._disk.read(self._images[index])
        if judge is None or pixels is None:
            return None
        image = judge.reconstruct(from_uint8(pixels))
        self._rebuilt[index] = self._disk.write(to_uint8(image))
        return image

    def write_csv(self) -> Path:
        """Writes the table that `tfgad score --csv` writes, and returns its path."""
        path = Path(self._folder.name) / "verdicts.csv"
        results.write_csv(path, rows(self.verdicts))
        return path

    @property
    def bytes(self) -> int:
        """What its pictures take of the disk."""
        return self._disk.bytes

    def close(self) -> None:
        """Gives up the pictures, and the model, which may be retired. No more files are judged."""
        self._judge = None
        self._disk.close()


class Batches:
    """The batches of all visitors that have their pictures yet: one each, and so many together."""

    def __init__(self):
        self._open: list[Batch] = []  # those used last at the end
        self._lock = threading.Lock()

    def start(self, batch: Batch) -> None:
        """Takes a batch in, in place of its visitor's other."""
        self.leave(batch.visitor)
        with self._lock:
            self._open.append(batch)
        self.use(batch)

    def use(self, batch: Batch) -> None:
        """Makes room for what was added to a batch: closes those that were not used for longest."""
        with self._lock:
            if batch in self._open:  # not if it is closed
                self._open.remove(batch)
                self._open.append(batch)
            while len(self._open) > 1 and self._are_too_many():
                self._open.pop(0).close()

    def leave(self, visitor: str | None) -> None:
        """Closes a visitor's batch, and lets it end if it is still being judged."""
        with self._lock:
            for batch in [each for each in self._open if each.visitor == visitor]:
                batch.replaced = True
                batch.close()
                self._open.remove(batch)

    def _are_too_many(self) -> bool:
        together = sum(batch.bytes for batch in self._open)
        return len(self._open) > MOST_OPEN_BATCHES or together > MOST_OPEN_BYTES


def rows(judged: Iterable[Verdict | ImageError]) -> list[dict[str, str]]:
    """Returns the table's rows, with the columns of `tfgad.inference.results`."""
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
        probability=1.0 if verdict.reason else float(probability(verdict.score, threshold, scale)),
        is_anomalous=verdict.score > threshold or bool(verdict.reason),
        map_threshold=None if verdict.map_threshold is None else threshold,
    )


def thresholds_of(metadata: dict[str, Any]) -> dict[float, float]:
    """Returns false-positive rate -> threshold, the model's own rate among them, in order.

    Empty where the model was exported without, by an earlier tfgad.
    """
    if not metadata.get("thresholds"):
        return {}
    known = {rate: threshold for rate, threshold in metadata["thresholds"]}
    return dict(sorted({**known, metadata["false_positive_rate"]: metadata["threshold"]}.items()))


def check_file(path: Path, folder: Path | None) -> None:
    """Checks that a path is a regular file, which alone can be read without waiting for ever.

    Args:
        path: the path, as somebody names it.
        folder: that it must lie in, with no symbolic link on the way; None for any.

    Raises:
        ImageError: it is not.
    """
    if folder is not None and not _is_inside(path, folder):
        raise ImageError(path, "is none of the files that were given")
    try:
        # The flags are those of POSIX: no link is followed, and no pipe's writer waited for.
        flags = getattr(os, "O_NOFOLLOW", 0) if folder is not None else 0
        file = os.open(path, os.O_RDONLY | flags | getattr(os, "O_NONBLOCK", 0))
        try:
            is_regular = stat.S_ISREG(os.fstat(file).st_mode)
        finally:
            os.close(file)
    except FileNotFoundError:
        raise ImageError(path, "is gone from the server: give it again") from None
    except OSError as error:
        raise ImageError(path, f"cannot be opened ({error.strerror})") from error
    if not is_regular:
        raise ImageError(path, "is no regular file")


def _is_inside(path: Path, folder: Path) -> bool:
    """Returns whether a path leads into a folder without links and detours."""
    try:
        real = os.path.realpath(path)
    except (OSError, ValueError):  # it is too long, or holds a zero byte
        return False
    return str(path) == real and Path(real).is_relative_to(os.path.realpath(folder))


def check_limits(path: Path, pixels_left: int = MOST_PIXELS_TOGETHER) -> int:
    """Looks at a file's sizes before anything of it is decoded.

    Args:
        path: the file.
        pixels_left: how many the batch may still hold.

    Returns:
        The number of its pixels; 0 of what is no image, which reading it will tell.

    Raises:
        ImageError: it is too large, or costs far more to decode than its pixels do.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ImageError(path, f"is larger than {MOST_BYTES // 2**20} MiB")
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
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
    reason = excess(content)
    if reason:
        raise ImageError(path, reason)
    return pixels


class _Place(NamedTuple):
    """Where an array lies in a file, and what it is."""

    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]


class _Disk:
    """Arrays in one file, thus in one descriptor, until it is closed.

    The file has no name: it goes with the process however that ends.

    Attributes:
        bytes: what they take.
    """

    def __init__(self):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._lock = threading.Lock()
        self.bytes = 0

    def write(self, array: np.ndarray) -> _Place | None:
        """Returns where the array lies now; None once it is closed."""
        with self._lock:
            if self._file.closed:
                return None
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(array))
            self._file.flush()  # a full disk shows here, not at the next array
            self.bytes = self._file.tell()
            return _Place(offset, array.dtype, array.shape)

    def read(self, place: _Place | None) -> np.ndarray | None:
        """Returns the array at a place; None once it is closed."""
        with self._lock:
            if place is None or self._file.closed:
                return None
            self._file.seek(place.offset)
            content = self._file.read(math.prod(place.shape) * place.dtype.itemsize)
            return np.frombuffer(content, place.dtype).reshape(place.shape)

    def close(self) -> None:
        """Frees the disk."""
        with self._lock:
            self._file.close()
            self.bytes = 0


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 zeros that take no memory."""
    return np.broadcast_to(np.float32(0), shape)
