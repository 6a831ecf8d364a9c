"""The drift test: alarms on good images, and images until it notices a change.

    python examples/benchmarks/drift.py saved_models/weave_twill_ganomaly ... --cache scores

For each exported model of a weave it scores the model's calibration tiles, 5,000 good tiles of
other seeds, tiles under another light or lens, and defective tiles. Scores and brightness are kept
in `--cache`. The drift tests of `tfgad/scores/drift.py` read streams that are drawn from them; an
alarm is that of either.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from tfgad.data.datasets.weave.weave import DEFECTS, render
from tfgad.data.spec import Spec
from tfgad.errors import exit_on_usage_error
from tfgad.inference.predictor import SavedModelPredictor, saved_model_folder
from tfgad.scores import drift
from tfgad.scores.drift import BRIGHTNESS, QUANTITIES, CalibrationScores, DriftTest

RESULTS = Path(__file__).parent / "results" / "drift.json"
GOOD, CHANGED, DEFECTIVE = 5000, 400, 240  # tiles
SEEDS = (1, 2, 3, 4, 5)  # of the good tiles; the models were trained with 0
BEFORE = 437  # good images before a change; no multiple of a window
CALIBRATION_SIZES = (25, 100, 400, 1600)
DIMMED = ("lamp at 0.9", "lamp at 0.8")  # the changes that are tried with each size
BATCH = 8
EVERY = drift.WINDOWS[0] // drift.STEPS  # images after which the stream is tested


def blurred(sigma):
    return lambda x: ndimage.gaussian_filter(x, (sigma, sigma, 0))


CHANGES = {
    "lamp at 0.95": lambda x: 0.95 * x,
    "lamp at 0.9": lambda x: 0.9 * x,
    "lamp at 0.8": lambda x: 0.8 * x,
    "lamp at 0.7": lambda x: 0.7 * x,
    "lamp at 1.2": lambda x: 1.2 * x,
    "blur of 1 pixel": blurred(1),
    "20 grey levels added": lambda x: x + 20,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", type=Path, help="folders of exported models")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the scores")
    parser.add_argument("--streams", type=int, default=100, help="streams of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    figures = {}
    for model in given.models:
        figures[model.name] = measure(*scored_images(model, given.cache), given.streams)
        print(model.name, json.dumps(figures[model.name], indent=2))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(figures, indent=2) + "\n")


def scored_images(model, cache):
    """Returns what `scored` does, by name of the images, and the threshold.

    It is taken from the cache, if it is there.
    """
    predictor = SavedModelPredictor(saved_model_folder(model))
    fabric = Spec.parse(predictor.metadata["data"]).name
    shape = predictor.image_shape

    def tile(**which):
        return render(fabric, size=shape[0], channels=shape[2], **which)[0]

    def changed(change):
        for index in range(CHANGED):
            image = change(tile(seed=SEEDS[-1] + 1, index=index).astype(float))
            yield (image + 0.5).clip(0, 255).astype("uint8")

    each = GOOD // len(SEEDS)
    wanted = {
        "calibration": (tile(seed=0, split="calibration", index=i) for i in range(100)),
        **{name: changed(change) for name, change in CHANGES.items()},
        "defective": (
            tile(seed=SEEDS[0], split="test", index=i, defect=DEFECTS[i % len(DEFECTS)])
            for i in range(DEFECTIVE)
        ),
        "good": (tile(seed=seed, index=i) for seed in SEEDS for i in range(each)),
    }
    cache.mkdir(parents=True, exist_ok=True)
    for name, images in wanted.items():
        path = cache / f"{model.name}, {name}.npy"
        if not path.exists():
            np.save(path, scored(predictor, images))
        wanted[name] = np.load(path)
    return wanted, predictor.threshold


def scored(predictor, images):
    """Returns score and brightness of images uint8 `[H, W, C]`, float `[N, 2]`."""
    found, images = [], iter(images)
    while batch := list(itertools.islice(images, BATCH)):
        found += predictor.predict_batch(np.stack(batch))
    return np.array([[each[quantity.name] for quantity in QUANTITIES] for each in found])


def calibration_of(images):
    """Returns what a model stores of images whose scores and brightness are `[N, 2]`."""
    return CalibrationScores.of(images[:, 0], brightness=images[:, 1])


def measure(images, threshold, streams):
    """Returns alarms and delays, with the model's calibration and with others drawn anew."""
    rng = np.random.default_rng(0)
    good, own = images["good"], calibration_of(images["calibration"])
    with_defects = with_defective(rng, good, images["defective"])
    return {
        "images of the model's calibration": own.images,
        "streams of each change": streams,
        "images until an alarm": {
            "good": first_alarm(own, good),
            "5 % defective": first_alarm(own, with_defects),
        },
        "changes, model's calibration": {
            name: {
                "mean rank": mean_rank(own.ranks(images[name][:, 0])),
                "mean rank of the brightness": mean_rank(own.ranks(images[name][:, 1], BRIGHTNESS)),
                "called anomalous": round(float(np.mean(images[name][:, 0] > threshold)), 4),
                **delays(rng, lambda: own, good, images[name], streams),
            }
            for name in CHANGES
        },
        "calibration images drawn from the good ones": {
            size: with_size(rng, images, size, streams) for size in CALIBRATION_SIZES
        },
    }


def mean_rank(ranks):
    return round(float(ranks.mean()), 3)


def with_size(rng, images, size, streams):
    """Returns the same figures for calibrations with a number of images, each drawn anew."""
    alarms = []
    for _ in range(streams):
        order = rng.permutation(images["good"])
        stream = with_defective(rng, order[size:], images["defective"])
        alarms.append(first_alarm(calibration_of(order[:size]), stream) is not None)

    def drawn():
        return calibration_of(rng.choice(images["good"], size, replace=False))

    return {
        "streams": streams,
        "images of a stream": GOOD - size,
        "streams with an alarm, 5 % defective": float(np.mean(alarms)),
        "changes": {
            name: delays(rng, drawn, images["good"], images[name], streams) for name in DIMMED
        },
    }


def with_defective(rng, good, defective):
    """Returns good images, of which a share is replaced by defective ones."""
    is_defective = rng.random(len(good)) < drift.DEFECTIVE
    return np.where(is_defective[:, None], rng.choice(defective, len(good)), good)


def delays(rng, calibration, good, changed, streams):
    """Returns how many changed images are read until the alarm, at most `CHANGED`."""
    counts = []
    for _ in range(streams):
        before = rng.choice(good, BEFORE, replace=False)
        found = first_alarm(calibration(), np.concatenate([before, rng.permutation(changed)]))
        counts.append(np.inf if found is None else found - BEFORE)
    counts = np.array(counts)
    counts = counts[counts > 0]  # an alarm before the change is no answer to it
    median, most = np.quantile(counts, [0.5, 0.95], method="higher")
    return {
        "noticed": round(float(np.isfinite(counts).mean()), 3),
        "within 50": round(float((counts <= 50).mean()), 3),
        "median": int(median) if np.isfinite(median) else None,
        "95 %": int(most) if np.isfinite(most) else None,
    }


def first_alarm(calibration, images):
    """Returns the number of images that are read until the alarm; None if there is none."""
    tests = [DriftTest(calibration, quantity) for quantity in QUANTITIES]
    for start in range(0, len(images), EVERY):
        for test, values in zip(tests, images[start : start + EVERY].T, strict=True):
            test.add(values)
        if any(test.drift for test in tests):
            return start + EVERY
    return None


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
