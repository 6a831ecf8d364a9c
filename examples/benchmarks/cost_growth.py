"""Time and memory of scoring, training and AnoGAN's search, as the work grows.

    taskset -c 0 python examples/benchmarks/cost_growth.py \
        --out examples/benchmarks/results/cost_growth.json \
        --picture examples/pictures/cost_growth.png

About 5 minutes of one core, 16 where two other programs share it. Each measurement is a process of
its own, so that its peak memory is its own. The clock starts after a first, small run of the same
work, which builds the graph. Seconds are of the processor, of all threads, so that other work on
the machine counts little. The detector is a small GANomaly with the paper's score.

Writes the JSON file and the picture; `--only` measures a part anew. Prints the fitted exponent e of
seconds ~ size^e, over all sizes and between the two largest: 1 is linear, less is a fixed cost that
spreads over more work.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import keras
import numpy as np
from PIL import Image

from tfgad import files, training
from tfgad.data.datasets.weave.weave import render
from tfgad.errors import exit_on_usage_error
from tfgad.inference import predictor, results, scoring
from tfgad.training import run_config

SIZES = {
    "images": (16, 64, 256, 1024),
    "megapixels": (3.2, 12.8, 51.2, 204.8),
    "batch": (4, 16, 64, 256),
    "training steps": (25, 50, 100, 200),
    "search steps": (25, 100, 400),
    "search restarts": (1, 4, 16),
}
TITLES = {
    "images": "scoring: images of 128x128",
    "megapixels": "scoring: megapixels of one image",
    "batch": "scoring: images of 64x64 at once",
    "training steps": "training: steps",
    "search steps": "AnoGAN: steps of the search",
    "search restarts": "AnoGAN: restarts of the search",
}
# A small network: the growth is measured, not the speed.
SMALL = {"width": "8", "batch_size": "16", "stride": "32", "score": "latent"}
SPEC = "weave:twill?train=100&calibration=20&test=2"
WARM_UP = 10  # training steps that are not timed
STRIP = 4096  # pixels of a strip's width; it is as long as needed
SEARCHED = 16  # images of 32x32


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file; it is added to")
    parser.add_argument("--picture", type=Path, help="PNG file")
    parser.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES), metavar="WHAT")
    parser.add_argument("--part", nargs=3, help="one measurement: what, size, folder")
    given = parser.parse_args()
    if given.part:
        what, size, folder = given.part
        return print(json.dumps(WORK[what](float(size), Path(folder))))
    if not given.out or not given.picture:
        parser.error("give --out and --picture")
    measured = files.read_results(given.out).get("measured", {})
    with tempfile.TemporaryDirectory() as folder:
        training.train("ganomaly", SPEC, Path(folder, "run"), settings={**SMALL, "steps": "20"})
        for what in given.only:
            points = [in_a_process(what, size, folder) for size in SIZES[what]]
            measured[what] = {"points": points, **exponents(points)}
            print(what, json.dumps(measured[what]), flush=True)
    cores = len(os.sched_getaffinity(0))
    files.write_json(
        given.out, {"measured": measured, "cores": cores, "versions": run_config.versions()}
    )
    draw(measured, given.picture)
    return None


def in_a_process(what, size, folder):
    """Returns what a process of its own measured."""
    command = [sys.executable, __file__, "--part", what, str(size), folder]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"size": size, **json.loads(ended.stdout.splitlines()[-1])}


def exponents(points):
    """Returns the exponent of a power law, fitted to all points, and of the two largest."""
    sizes, seconds = np.log([[each["size"], each["cpu_seconds"]] for each in points]).T
    over_all = np.polyfit(sizes, seconds, 1)[0]
    at_the_end = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])
    return {"exponent": round(over_all, 2), "exponent_of_the_largest": round(at_the_end, 2)}


class Meter:
    """Takes time and memory of work; `base_mb` is the memory before it."""

    def __init__(self):
        self.base, self.started, self.cpu = peak_mb(), time.monotonic(), time.process_time()

    def read(self):
        """Returns what the work took."""
        return {
            "cpu_seconds": round(time.process_time() - self.cpu, 3),
            "seconds": round(time.monotonic() - self.started, 3),
            "base_mb": self.base,
            "peak_mb": peak_mb(),
        }


def peak_mb():
    """Returns the largest memory so far of this process, on Linux.

    `ru_maxrss` of `resource` would start at the memory of the process that started this one.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) // 1024


def of_images(count, folder):
    """Scores so many files, as `tfgad score` does."""
    pixels, _ = render("twill", seed=0, index=0, size=128, channels=1)
    return score_all(folder, [pixels.squeeze()] * int(count))


def of_megapixels(size, folder):
    """Scores one strip of so many megapixels."""
    pixels, _ = render("twill", seed=0, index=0, size=1024, channels=1)
    across = np.tile(pixels.squeeze(), (1, STRIP // 1024))
    rows = round(size * 1e6 / STRIP)
    return score_all(folder, [np.tile(across, (math.ceil(rows / 1024), 1))[:rows]])


def score_all(folder, images):
    """Writes images as PNG, and measures their scoring into a table."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        paths = [Path(place, f"{number:05}.png") for number in range(len(images))]
        for path, pixels in zip(paths, images, strict=True):
            Image.fromarray(pixels).save(path, compress_level=1)
        first = Path(place, "first.png")
        Image.fromarray(images[0][:1024, :1024]).save(first)
        del images
        model = predictor.load_predictor(folder / "run")
        write_table(model, [first], folder)
        meter = Meter()
        write_table(model, paths, folder)
        return meter.read()


def write_table(model, paths, folder):
    """Scores files, finds regions, and writes the table."""
    verdicts = scoring.score_files(model, paths)
    rows = [results.row(each, scoring.regions_of(each)) for each in verdicts]
    results.write_csv(folder / "scores.csv", rows)


def of_batch(count, folder):
    """Scores so many images of 64x64 in one call."""
    model = training.load_run(folder / "run").model
    images = np.random.default_rng(0).uniform(-1, 1, (int(count), 64, 64, 1)).astype(np.float32)
    return twice(lambda: model.anomaly(images)["score"].numpy())


class Watch(keras.callbacks.Callback):
    """Measures training from the end of the warm-up."""

    def on_train_batch_end(self, batch, logs=None):
        """Starts the meter, or reads it."""
        if batch == WARM_UP - 1:
            self.meter = Meter()

    def on_train_end(self, logs=None):
        """Reads the meter."""
        self.found = self.meter.read()


def of_training(steps, folder):
    """Trains for so many steps after the warm-up."""
    watch = Watch()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        settings = {**SMALL, "steps": str(int(steps) + WARM_UP)}
        callbacks = {"callbacks": lambda stage, remaining_steps: [watch]}
        training.train("ganomaly", SPEC, Path(place, "run"), settings=settings, **callbacks)
    return watch.found


def of_search_steps(steps, folder):
    """Searches the codes of some images by so many steps."""
    return search(search_steps=int(steps))


def of_search_restarts(restarts, folder):
    """Searches the codes of some images from so many starts."""
    return search(search_steps=50, restarts=int(restarts))


def search(**settings):
    """Measures the search of an untrained AnoGAN, which runs to its last step."""
    model = tfgad.build("anogan", (32, 32, 1), start="pool", width=8, **settings)
    shape = (SEARCHED, 32, 32, 1)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    return twice(lambda: model.anomaly(images, "loss")["score"].numpy())


def twice(work):
    """Measures work the second time: the first builds its graph."""
    base = peak_mb()
    work()
    meter = Meter()
    work()
    return {**meter.read(), "base_mb": base}


WORK = {
    "images": of_images,
    "megapixels": of_megapixels,
    "batch": of_batch,
    "training steps": of_training,
    "search steps": of_search_steps,
    "search restarts": of_search_restarts,
}


def draw(measured, path):
    """Draws seconds and peak memory against size, with a line of slope 1."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, 3, figsize=(11, 12), layout="constrained")
    for column, (what, found) in enumerate(measured.items()):
        row, column = 2 * (column // 3), column % 3
        of_time, of_memory = axes[row, column], axes[row + 1, column]
        sizes = [each["size"] for each in found["points"]]
        seconds = [each["cpu_seconds"] for each in found["points"]]
        of_time.loglog(sizes, seconds, "o-", label=f"time, exponent {found['exponent']:.2f}")
        linear = [seconds[0] * size / sizes[0] for size in sizes]
        of_time.loglog(sizes, linear, "--", color="grey", label="slope 1")
        of_time.set(title=TITLES[what], ylabel="seconds of the processor")
        memory = [each["peak_mb"] / 1024 for each in found["points"]]
        of_memory.loglog(sizes, memory, "o-", color="tab:orange", label="peak memory")
        linear = [memory[0] * size / sizes[0] for size in sizes]
        of_memory.loglog(sizes, linear, "--", color="grey", label="slope 1")
        of_memory.set(ylabel="GB", xlabel=what, ylim=(0.3, 20))
        for axis in (of_time, of_memory):
            axis.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
            axis.set_xticks([], minor=True)
            axis.grid(alpha=0.3)
            axis.legend()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
