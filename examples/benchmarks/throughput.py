"""Images per second: training and scoring with each method, and tiles from the data pipelines.

    python examples/benchmarks/throughput.py --out examples/benchmarks/results/throughput.json

About 3 minutes on two CPU cores. Absolute figures depend on the machine; compare those of one run.
"""

import argparse
import time
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import numpy as np
import tensorflow as tf

from tfgad import files
from tfgad.errors import UsageError, exit_on_usage_error
from tfgad.training import run_config

WINDOW, TILE, BATCH = (32, 32, 1), (128, 128, 1), 64
PIPELINES = ("weave:twill", "aitex:03?tile=128", "mnist:8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    out = parser.parse_args().out
    results = {"versions": run_config.versions(), "training": {}, "judging": {}, "pipeline": {}}
    for method in ("wgan_gp", "fanogan", "ganomaly"):
        model = tfgad.build(method, TILE)
        for stage in model.stages:
            results["training"][f"{method}/{stage}"] = training_rate(model, stage)
        results["judging"][f"{method}/tiles of 128x128"] = scoring_rate(model, 16, TILE)
        of_windows = tfgad.build(method, WINDOW)
        results["judging"][f"{method}/images of 32x32"] = scoring_rate(of_windows, 256, WINDOW)
        print(method, results["training"], results["judging"], sep="\n", flush=True)
    for spec in PIPELINES:
        try:
            results["pipeline"][spec] = pipeline_rate(tfgad.load(spec))
        except UsageError as error:  # the set is not on this machine
            print(error)
    print(results["pipeline"])
    files.write_json(out, results)


def rate(count, work, repeats=5):
    """Returns images per second, by the median of some repeats after one to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return round(count / float(np.median(seconds)), 1)


def training_rate(model, stage, steps=10):
    """Real images per second through `train_step`, in batches of 64."""
    model.begin(stage)
    batch = BATCH * (model.images_per_step // model.config.batch_size)
    images = tf.random.stateless_uniform((batch, *WINDOW), [0, 0], -1, 1)
    endless = iter(tf.data.Dataset.from_tensors(images).repeat())
    train = model.make_train_function() or model.train_function
    return rate(steps * batch, lambda: [train(endless) for _ in range(steps)])


def scoring_rate(model, count, shape):
    """Images per second through `anomaly_in_graph`."""
    images = tf.random.stateless_uniform((count, *shape), [0, 0], -1, 1)
    return rate(count, lambda: model.anomaly_in_graph(images, model.score)["score"].numpy())


def pipeline_rate(data, count=2000):
    """Windows a second out of the training pipeline, once its cache is full."""
    window = WINDOW if data.image_shape[0] > WINDOW[0] else data.image_shape
    batches = iter(tfgad.training_batches(data, window, batch_size=BATCH))
    for _ in range(data.train_size // BATCH + 1):
        next(batches)
    return rate(count, lambda: [next(batches) for _ in range(count // BATCH)])


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
