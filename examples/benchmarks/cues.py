"""Constants of `tfgad/scores/cues.py`: selected on procedural fabric only.

    python examples/benchmarks/cues.py --out examples/benchmarks/results/cues.json

Trains GANomaly once on each of two weaves other than the demo's, keeps the error maps of normal
tiles and of a test set from another seed than the default, and varies one constant at a time.
Prints and writes image AUROC, AP, pixel AUROC and AUPRO. About 6 minutes of two CPU cores.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import numpy as np
import tensorflow as tf

from tfgad import files, training
from tfgad.data.sampling import batched
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import metrics
from tfgad.scores import cues
from tfgad.training import run_config

WEAVES = ("plain", "satin")
SEED = 7  # the tests of everything else are seed 0's
FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
VARIANTS = {
    "ERROR_SIGMA": (3.0, 5.0, 8.0),
    "TONE_SIGMA": (4.0, 8.0, 12.0),
    "LEVEL_QUANTILE": (0.1, 0.25, 0.5),
    "PEAK_QUANTILE": (0.5, 0.9, 1.0),
}
# Terms of the texture cue: the error maps that they take, and how these are grouped.
TERMS = {
    "pixels": ([0], (1,)),
    "features": ([1, 2, 3], (3,)),
    "code": ([4], (1,)),
    "pixels, features": ([0, 1, 2, 3], (1, 3)),
    "pixels, code": ([0, 4], (1, 1)),
    "pixels, features, code": ([0, 1, 2, 3, 4], (1, 3, 1)),
    "five maps alike": ([0, 1, 2, 3, 4], (5,)),
}
ALL_TERMS = TERMS["pixels, features, code"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--steps", default="1500", help="training steps a weave")
    arguments = parser.parse_args()
    tests = [seen(weave, arguments.steps) for weave in WEAVES]
    results = {"versions": run_config.versions(), "weaves": WEAVES, "seed": SEED}
    for name, terms in TERMS.items():
        results[name] = report(name, tests, terms)
    for constant, values in VARIANTS.items():
        kept = getattr(cues, constant)
        for value in values:
            setattr(cues, constant, value)
            name = f"{constant} = {value}"
            results[name] = report(name, tests, ALL_TERMS)
        setattr(cues, constant, kept)
    files.write_json(arguments.out, results)


def seen(weave, steps):
    """Trains on a weave; returns normal and test images with their error maps, masks, labels."""
    with tempfile.TemporaryDirectory() as folder:
        spec = f"weave:{weave}?seed={SEED}"
        run = training.train("ganomaly", spec, Path(folder) / "run", settings={"steps": steps})
    data, model = tfgad.load(run.config["data"]), run.model
    normal = [(x, model.error_maps(x, "cues")) for x in batched(data.train.take(128))]
    test = [(x, model.error_maps(x["image"], "cues")) for x in batched(data.test)]
    return {
        "normal": [np.concatenate(column) for column in zip(*normal, strict=True)],
        "images": np.concatenate([x["image"] for x, _ in test]),
        "masks": np.concatenate([x["mask"] for x, _ in test]),
        "labels": np.concatenate([x["label"] for x, _ in test]),
        "errors": np.concatenate([errors for _, errors in test]),
    }


def report(name, tests, terms):
    """Prints and returns the mean figures over the weaves."""
    figures = [figures_of(test, *terms) for test in tests]
    result = {key: round(mean(one[key] for one in figures), 4) for key in FIGURES}
    print(f"{name:28s}", *result.values(), flush=True)
    return result


def figures_of(test, errors, groups):
    """Scores a test set with the constants in force and some of the errors."""
    images, maps = test["normal"][0], test["normal"][1][..., errors]
    layer = cues.Cues(groups)
    layer.adapt(images, maps)
    predicted = [
        layer(tf.constant(test["images"][i : i + 16]), tf.constant(chunk)).numpy()
        for i in range(0, len(test["labels"]), 16)
        for chunk in [test["errors"][i : i + 16][..., errors]]
    ]
    anomaly_maps = np.concatenate(predicted)
    scores = anomaly_maps.max(axis=(1, 2))
    return metrics.evaluate(test["labels"], scores, test["masks"], anomaly_maps, bootstrap=0)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
