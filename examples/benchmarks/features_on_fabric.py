"""Pretrained features on fabric: PCA of features alone, and as a third map beside `joint`.

    python examples/benchmarks/features_on_fabric.py RUNS/* \
        --lite0-weights efficientnet-lite0-57934424.pth \
        --out examples/benchmarks/results/features_on_fabric.json

For each run of `ganomaly_unet` on tiles it evaluates the run's own map; that of PCA of features
(`tfgad/evaluation/feature_pca.py`), fitted to 500 training tiles; and the sum of both. Each map is
standardised first, by mean and deviation over all pixels of held-out good tiles. The residual of
features is added as it is, and by its logarithm. Nothing is trained, and no label chooses anything.
The JSON holds four figures of each. A run takes two to three minutes of a core.
"""

import argparse
import math
import re
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import numpy as np

from tfgad import files
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import metrics, predict_test_set
from tfgad.evaluation.baselines import scores
from tfgad.evaluation.feature_pca import FeaturePCA
from tfgad.training import load_run, run_config

FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
TRAIN_TILES, BATCH = 500, 32


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs of ganomaly_unet")
    parser.add_argument("--lite0-weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    given = parser.parse_args()
    results = {**files.read_results(given.out), "versions": run_config.versions()}
    for folder in given.runs:
        run = load_run(folder)
        spec, seed = run.config["data"], str(run.config["seed"])
        found = figures_of(run.model, tfgad.load(spec, seed=int(seed)), given.lite0_weights)
        results.setdefault(re.sub(r"seed=\d+&?", "", spec).rstrip("?&"), {})[seed] = found
        files.write_json(given.out, results)
        for name, figures in found.items():
            print(spec, name, *(f"{figures[key]:.3f}" for key in FIGURES), flush=True)


def figures_of(model, data, weights):
    """Returns the figures of both maps and of their sums, by name."""
    test = predict_test_set(model, data)
    held_out = stacked(data.calibration)
    own = in_batches(lambda x: model.anomaly(x)["map"].numpy(), held_out)
    every = math.ceil(data.train_size / TRAIN_TILES)
    detector = FeaturePCA(weights).fit(stacked(data.train.shard(every, 0)))
    good, features = detector.maps(held_out), in_batches(detector.maps, test.images)
    joint = standardised(test.maps, own)
    maps = {
        "joint": test.maps,
        "features": features,
        "sum": joint + standardised(features, good),
        "sum with the logarithm": joint + standardised(np.log(features), np.log(good)),
    }
    return {name: evaluated(test, each) for name, each in maps.items()}


def standardised(maps, good):
    return (maps - good.mean()) / good.std()


def evaluated(test, maps):
    found = metrics.evaluate(
        test.labels, scores(maps), test.masks, maps, masked=test.masked, bootstrap=0
    )
    return {key: found[key] for key in FIGURES}


def stacked(images):
    return np.concatenate(list(images.batch(BATCH).as_numpy_iterator()))


def in_batches(function, images):
    starts = range(0, len(images), BATCH)
    return np.concatenate([function(images[start : start + BATCH]) for start in starts])


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
