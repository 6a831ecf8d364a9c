"""Registration of whole parts before their places are compared: what it gains, and what it harms.

    python examples/benchmarks/registration.py --rendered \
        --data 'folder:magnetic_tile?size=256&channels=1&group=num_([0-9]+?)[0-9]{0,3}[.]' \
        --out examples/benchmarks/results/registration.json

Each photograph is moved so that it lies as the mean of the good training photographs does. The
shift is the peak of a phase correlation with this mean; a turn is searched from -4 to 4 degrees,
with the mean turned. A photograph stays as it is where the peak is not clear. What comes in at the
edge is a reflection. The map is moved back before it is compared with the mask. Training images are
registered, too. Scale is not looked at.

Three detectors on features of EfficientNet-Lite0, none of which is trained:

- `regions`: the score of `feature_regions` without its head, `tfgad/scores/regions.py`;
- `distance`: the mean square of (f - mean) / deviation of the features at each of 32x32 places, of
  which the head of `feature_regions` reads the numerator;
- `pca`: the trivial detector PCA of features, which compares no places.

Two kinds of data:

- a rendered flange of 256x256 pixels with bores, a groove, print, grain and light that differ from
  part to part: 64 to learn from; 60 good ones to test, and 120 with a scratch, a missing hole, a
  dent or a stain. Every part is rendered in each jitter: shifted by up to 0, 2, 4 or 8 pixels along
  both axes, and by up to 8 pixels and turned by up to 3 degrees;
- data sets of photographs. Beside the test set there are held-out good images with and without
  synthetic defects, by which to choose: the labels of the test set choose nothing.

The JSON holds the figures, how far the found pose is from the true one (rendered parts), the share
of photographs whose peak is clear, and milliseconds of processor time per image. What is in the
file is not done again. About 15 minutes of processor time.
"""

import argparse
import time
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import numpy as np
import tensorflow as tf
from rendered_parts import SIDE, rendered_parts, turning
from scipy import fft, ndimage
from scipy.signal import windows
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from tfgad import files
from tfgad.data.synthetic_defects import with_defects
from tfgad.errors import UsageError, exit_on_usage_error
from tfgad.evaluation import metrics
from tfgad.networks.efficientnet_lite0 import find_lite0_weights, lite0, load_lite0_weights
from tfgad.scores import regions
from tfgad.scores.place_statistics import LEAST_SHARE
from tfgad.training import run_config

STRIDES = ("stride_8", "stride_16", "stride_32")  # as `feature_regions`
BATCH = 8
JITTERS = ((0, 0), (2, 0), (4, 0), (8, 0), (8, 3))  # pixels, degrees
TURNS = {"none": None, "shift": (0.0,), "shift and turn": tuple(np.arange(-4.0, 4.1))}  # degrees
LARGEST_SHIFT = 16  # pixels
SMOOTHNESS = 2.0  # pixels, sigma of the peak
CLEAR = 1.5  # how often the peak is as high as everything that is not near it
NEAR = 8  # pixels
VARIANCE, VECTORS = 0.97, 50_000  # of `pca`
ROUNDS = 3  # of the mean: of the photographs as they are, then of the moved ones
DRAWS = 4  # synthetic defects per held-out good image
FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=[], help="specs of images with size=256")
    parser.add_argument("--rendered", action="store_true", help="rendered parts, too")
    parser.add_argument("--parts", type=float, default=1.0, help="share of the rendered parts")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    given = parser.parse_args()
    if find_lite0_weights() is None:
        raise UsageError("weights", "imagenet", "are not on this machine", "see docs/parts.md")
    results = {**files.read_results(given.out), "versions": run_config.versions()}
    sources = {spec: lambda spec=spec: photographs(spec) for spec in given.data}
    for jitter in JITTERS if given.rendered else ():
        name = "rendered, {} pixels, {} degrees".format(*jitter)
        sources[name] = lambda jitter=jitter: rendered_parts(*jitter, given.parts)
    features = Features(1)
    for source, load in sources.items():
        found, data = results.setdefault(source, {}), None
        for name, turns in TURNS.items():
            if name in found:
                continue
            data = data or load()
            found[name] = compared(features, *data, turns)
            files.write_json(given.out, results)
            for test, detectors in found[name]["figures"].items():
                for detector, each in detectors.items():
                    row = (f"{each[key]:.3f}" for key in FIGURES)
                    print(source, "|", name, "|", test, "|", detector, "|", *row, flush=True)
            print({key: each for key, each in found[name].items() if key != "figures"}, flush=True)


def compared(features, train, tests, turns):
    """Returns the figures of each detector with a registration, fitted to training images.

    Args:
        features: the network.
        train: images `[N, H, W, 1]`.
        tests: name -> a dict of `image`, `mask` and `label`, and where they are known of `masked`,
            `groups` and `pose`.
        turns: that are searched, in degrees; None without registration.
    """
    registration = Registration(turns).fit(train) if turns else None
    detectors = {"regions": RegionsAlone(), "distance": Distance(), "pca": PCAOfFeatures()}
    found = {"figures": {}}
    if turns:
        poses, is_clear = registration.poses(train)
        train, found["share_with_clear_peak"] = (
            moved(train, poses),
            {"train": float(is_clear.mean())},
        )
    seen = features(train, views=True)
    for detector in detectors.values():
        detector.fit(*seen)
    for name, test in tests.items():
        images, count = test["image"], len(test["image"])
        start = time.process_time()
        poses = np.zeros((count, 3))
        if turns:
            poses, is_clear = registration.poses(images)
            images = moved(images, poses)
        registered = time.process_time()
        cells, points, _ = features(images)
        done = time.process_time()
        found.setdefault("milliseconds_per_image", {})[name] = {
            "registration": 1000 * (registered - start) / count,
            "features": 1000 * (done - registered) / count,
        }
        if turns:
            found["share_with_clear_peak"][name] = float(is_clear.mean())
            found.setdefault("median_shift", {})[name] = float(np.median(displacements(poses)))
        if turns and "pose" in test:
            found.setdefault("pixels_off", {})[name] = pose_errors(poses, test["pose"])
        found["figures"][name] = {
            key: figures_of(test, moved_back(detector.maps(cells, points), poses))
            for key, detector in detectors.items()
        }
    return found


def figures_of(test, maps):
    """Returns the figures of maps `[N, H, W]`."""
    found = metrics.evaluate(
        test["label"],
        maps.max(axis=(1, 2)),
        test["mask"],
        maps,
        masked=test.get("masked"),
        groups=test.get("groups"),
    )
    return {key: found[key] for name in FIGURES for key in (name, f"{name}_ci")}


class Registration:
    """Estimates how a part lies, relative to the mean of good photographs.

    Args:
        turns: that are searched, in degrees.
    """

    def __init__(self, turns):
        self.turns = np.asarray(turns)
        rows, columns = (np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
        self.low = np.exp(-2 * (np.pi * SMOOTHNESS) ** 2 * (rows**2 + columns**2))
        taper = windows.tukey(SIDE, 0.25)
        self.window = taper[:, None] * taper[None]

    def fit(self, images):
        """Learns the mean, first of the images as they lie, and returns itself."""
        mean = images.mean(0)
        for _ in range(ROUNDS):
            self.spectra = np.stack(
                [self._phases(moved(mean[None], [[0, 0, -turn]])[0]) for turn in self.turns]
            ).conj()
            mean = moved(images, self.poses(images)[0]).mean(0)
        return self

    def poses(self, images):
        """Returns rows, columns and degrees `[N, 3]`, 0 if the peak is not clear, and if it is."""
        found = np.array([self._pose(image) for image in images])
        is_clear = found[:, 3] >= CLEAR
        return found[:, :3] * is_clear[:, None], is_clear

    def _phases(self, image):
        grey = image.mean(-1) - image.mean()
        spectrum = fft.rfft2((grey * self.window).astype("float32"))
        return spectrum / (np.abs(spectrum) + 1e-6)

    def _pose(self, image):
        """Returns rows, columns, degrees and how clear the peak is."""
        surfaces = fft.irfft2(self._phases(image) * self.spectra * self.low, s=(SIDE, SIDE))
        surfaces = fft.fftshift(surfaces, axes=(1, 2))
        middle = slice(SIDE // 2 - LARGEST_SHIFT, SIDE // 2 + LARGEST_SHIFT + 1)
        inner = surfaces[:, middle, middle]
        turn, row, column = np.unravel_index(np.argmax(inner), inner.shape)
        row, column = row + middle.start, column + middle.start
        surface = surfaces[turn]
        peak, others = surface[row, column], surface.copy()
        others[max(0, row - NEAR) : row + NEAR + 1, max(0, column - NEAR) : column + NEAR + 1] = 0
        down = parabola(surface[row - 1 : row + 2, column])
        across = parabola(surface[row, column - 1 : column + 2])
        degrees = self.turns[turn]
        if 0 < turn < len(self.turns) - 1:
            heights = inner[turn - 1 : turn + 2].max(axis=(1, 2))
            degrees += parabola(heights) * (self.turns[1] - self.turns[0])
        shift = row - SIDE // 2 + down, column - SIDE // 2 + across
        return *shift, degrees, peak / max(others.max(), 1e-12)


def parabola(values):
    """Returns where the peak of a parabola through three values is, from -0.5 to 0.5."""
    low, middle, high = values
    curvature = low - 2 * middle + high
    return 0.0 if curvature >= 0 else float(np.clip(0.5 * (low - high) / curvature, -0.5, 0.5))


def moved(images, poses):
    """Moves images `[N, H, W, C]`, that lie by rows, columns and degrees, back into place."""
    result = images.copy()
    for image, (row, column, degrees) in zip(result, poses, strict=True):
        if row or column or degrees:
            for channel in range(image.shape[-1]):
                image[..., channel] = warped(image[..., channel], row, column, degrees, 3)
    return np.clip(result, -1.0, 1.0)


def moved_back(maps, poses):
    """Moves maps `[N, H, W]` of images that were moved back to where their photographs lie."""
    result = maps.copy()
    for i in np.flatnonzero(np.any(poses, axis=1)):
        (row, column, degrees), turn = poses[i], turning(-poses[i][2])
        result[i] = warped(maps[i], *(turn @ (-row, -column)), -degrees, 1)
    return result


def warped(values, row, column, degrees, order):
    """Samples `[H, W]` at R (p - centre) + centre + shift for each place p."""
    matrix, centre = turning(degrees), (np.array(values.shape) - 1) / 2
    offset = np.add(centre, (row, column)) - matrix @ centre
    return ndimage.affine_transform(values, matrix, offset, order=order, mode="reflect")


def displacements(poses):
    """Returns how far each pose moves a place, root mean square over the image, in pixels."""
    poses = np.asarray(poses)
    spread = 2 * (SIDE**2 - 1) / 12 * np.deg2rad(poses[:, 2]) ** 2
    return np.sqrt((poses[:, :2] ** 2).sum(1) + spread)


def pose_errors(found, true):
    """Returns how far places are off after registration, and how far they were before.

    The mean lies where the parts lie on average. This is taken off.
    """
    found, true = (each - np.median(each, axis=0) for each in (np.asarray(found), true))
    after, before = displacements(found - true), displacements(true)
    return {
        "median": float(np.median(after)),
        "largest": float(after.max()),
        "median_before": float(np.median(before)),
    }


class Features:
    """EfficientNet-Lite0 as `feature_regions` uses it: cells and points of images."""

    def __init__(self, channels):
        self.network = lite0((SIDE, SIDE, channels), STRIDES)
        load_lite0_weights(self.network, find_lite0_weights())
        self.run = tf.function(self._run, reduce_retracing=True)

    def _run(self, images):
        maps = [self.network(images, training=False)[name] for name in STRIDES]
        on_grid = [tf.image.resize(each, [regions.GRID, regions.GRID]) for each in maps]
        return regions.cells_of(maps), tf.concat(on_grid, axis=-1)

    def __call__(self, images, views=False):
        """Returns cells, points in float16, and cells of the mirrored images, if asked for."""
        found = []
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            cells, points = self.run(tf.constant(batch))
            of_views = [batch[:, :, ::-1], batch[:, ::-1]] if views else []
            of_views = [self.run(tf.constant(view))[0].numpy() for view in of_views]
            found.append((cells.numpy(), points.numpy().astype("float16"), *of_views))
        cells, points, *of_views = map(np.concatenate, zip(*found, strict=True))
        return cells, points, of_views


class RegionsAlone:
    """The score `regions`."""

    def fit(self, cells, points, views):
        """Adapts the layer."""
        self.layer = regions.Regions(points.shape[-1])
        self.layer.adapt(cells, points, views)
        self.mean = tf.constant(points.mean(0, dtype="float64"), tf.float32)

    def maps(self, cells, points):
        """Returns maps `[N, SIDE, SIDE]`."""
        grids = [
            self.layer(cells[i : i + BATCH], tf.cast(points[i : i + BATCH], tf.float32), self.mean)
            for i in range(0, len(cells), BATCH)
        ]
        return enlarged(np.concatenate(grids))


class Distance:
    """The mean square of features, standardised at their place."""

    def fit(self, cells, points, views):
        """Estimates mean and deviation of each place."""
        mean = points.mean(0, dtype="float64")
        square = np.mean([np.square(each.astype("float64")) for each in points], axis=0)
        deviation = np.sqrt(np.maximum(square - np.square(mean), 0.0))
        least = LEAST_SHARE * np.median(deviation, axis=(0, 1))
        self.mean, self.deviation = mean, np.maximum(deviation, np.maximum(least, 1e-4))

    def maps(self, cells, points):
        """Returns maps `[N, SIDE, SIDE]`."""
        grids = [np.square((each - self.mean) / self.deviation).mean(-1) for each in points]
        return enlarged(np.float32(grids))


class PCAOfFeatures:
    """As `tfgad/evaluation/feature_pca.py`, of features that are there already."""

    def fit(self, cells, points, views):
        """Fits the components."""
        rng, per_image = np.random.default_rng(0), max(1, VECTORS // len(points))
        places = (rng.permutation(each.reshape(-1, each.shape[-1])) for each in points)
        some = np.concatenate([np.float32(each[:per_image]) for each in places])
        self.scaler = StandardScaler().fit(some)
        self.pca = PCA(VARIANCE, svd_solver="covariance_eigh").fit(self.scaler.transform(some))

    def maps(self, cells, points):
        """Returns maps `[N, SIDE, SIDE]`."""
        return enlarged(np.stack([self._residual(np.float32(each)) for each in points]))

    def _residual(self, points):
        vectors = self.scaler.transform(points.reshape(-1, points.shape[-1]))
        residual = vectors - self.pca.inverse_transform(self.pca.transform(vectors))
        return np.mean(residual**2, axis=1).reshape(points.shape[:2])


def enlarged(grids):
    """Returns maps `[N, SIDE, SIDE]` of grids `[N, h, w]`."""
    return tf.image.resize(np.float32(grids)[..., None], [SIDE, SIDE]).numpy()[..., 0]


def photographs(spec):
    """Returns the training images and the tests of a data set."""
    data = tfgad.load(spec)
    if data.image_shape != (SIDE, SIDE, 1):
        raise UsageError("data", spec, "has other images", f"add size={SIDE}&channels=1")
    train, held_out = (
        np.stack(list(each.as_numpy_iterator())) for each in (data.train, data.calibration)
    )
    rows = list(data.test.as_numpy_iterator())
    test = {key: np.stack([row[key] for row in rows]) for key in ("image", "mask", "label")}
    names = [row["name"].decode() for row in rows]
    test |= {"groups": data.groups_of(names), "masked": data.is_masked(names)}
    return train, {"synthetic": synthetic(held_out, data.calibration_origins), "test": test}


def synthetic(good, origins):
    """Returns good images, and each `DRAWS` times with a synthetic defect that is labelled."""
    images, masks = [good], [np.zeros((*good.shape[:3], 1), "float32")]
    for draw in range(DRAWS):
        defective, mask = with_defects(tf.constant(good), tf.constant([7, draw], tf.int64), 1.0)
        images.append(defective.numpy())
        masks.append(mask.numpy())
    groups = np.arange(len(good)) if origins is None else origins.groups
    groups = np.tile(np.unique(groups, return_inverse=True)[1], 1 + DRAWS)
    images, masks = np.concatenate(images), np.concatenate(masks)
    label = masks.any(axis=(1, 2, 3)).astype("int32")
    kept = (np.arange(len(label)) < len(good)) | (label == 1)
    found = {"image": images, "mask": masks, "label": label, "groups": groups}
    return {key: value[kept] for key, value in found.items()}


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
