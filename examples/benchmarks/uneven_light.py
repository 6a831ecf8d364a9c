"""Detectors under light that falls off across the tile: figures against the slope of the light.

    python examples/benchmarks/uneven_light.py --data weave:denim weave:basket \
        --runs runs --out examples/benchmarks/results/uneven_light.json

Each fabric is compared with itself. A run is trained on unchanged good tiles; then every test tile,
good or defective, is multiplied by a ramp in a random direction, from 1 - a to 1 + a along rows or
columns, and up to 1.4 a from 1 in the corners of a diagonal one. The U-Net was trained with uneven
light; the trivial detectors are fitted to tiles without it. The JSON holds, for each a, the figures
of the scores and of the trivial detectors, and the false-positive rate at the run's threshold.
"""

import argparse
import dataclasses
from pathlib import Path

import tfgad
from tfgad import evaluation, files, training

# isort: split

import numpy as np
import tensorflow as tf

from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import baselines
from tfgad.training import run_config

SLOPES = (0.0, 0.1, 0.2, 0.3, 0.4)
SCORES = ("joint", "marks", "cues")
SHOWN = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro", "false_positive_rate")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="specs, such as weave:denim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slopes", nargs="+", type=float, default=SLOPES)
    parser.add_argument("--runs", type=Path, required=True, help="folder that keeps the runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    given = parser.parse_args()
    results = {"versions": run_config.versions(), "seed": given.seed}
    for spec in given.data:
        name = f"ganomaly_unet_{spec}_{given.seed}".translate(str.maketrans(":?=&/", "_____"))
        folder = given.runs / name
        run = training.train("ganomaly_unet", spec, folder, seed=given.seed, resume=True)
        images = tfgad.load(run.config["data"])
        results[spec] = {}
        for slope in given.slopes:
            figures = figures_of(run, under_ramps(images, slope))
            results[spec][str(slope)] = figures
            files.write_json(given.out, results)
            for detector, each in figures.items():
                row = " | ".join(cell(each.get(key)) for key in SHOWN)
                print(f"| {spec} | {slope} | {detector} | {row} |", flush=True)


def under_ramps(images, slope):
    """Returns the data set with ramps of light over its test images."""
    height, width, _ = images.image_shape
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype("float32")

    def lit(index, row):
        angle = tf.random.stateless_uniform([], [17, index], 0.0, 2 * np.pi)
        ramp = (tf.cos(angle) * columns + tf.sin(angle) * rows)[..., None]
        image = (row["image"] + 1.0) * (1.0 + slope * ramp) - 1.0
        return row | {"image": tf.clip_by_value(image, -1.0, 1.0)}

    return dataclasses.replace(images, test=images.test.enumerate().map(lit))


def figures_of(run, images):
    """Returns the figures of each score and each trivial detector."""
    found = {}
    for score in SCORES:
        threshold = run.config["calibration"]["threshold"] if score == run.model.score else None
        predicted = evaluation.predict_test_set(run.model, images, score)
        found[score] = evaluation.figures_of(predicted, images, threshold)
    trivial = baselines.evaluate_baselines(images, bootstrap=0)["baselines"]
    found |= {baselines.NAMES[name]: each for name, each in trivial.items()}
    return {
        detector: {key: each[key] for key in SHOWN if each.get(key) is not None}
        for detector, each in found.items()
    }


def cell(value):
    return "–" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
