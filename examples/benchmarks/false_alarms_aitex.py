"""False alarms on strips that set no threshold: AITEX, scored by trivial detectors.

    TFGAD_DATA_DIR=... python examples/benchmarks/false_alarms_aitex.py

Eight of the 14 training strips of each fabric train a trivial detector of
`tfgad.evaluation.baselines`. Each three of the other six set a threshold, 20 draws in all. The good
tiles of the test strips show the rate of false alarms, its defective tiles the recall. It writes
for each fabric, detector and asked rate the figures of all draws:

- `holds`: in which share of the draws the interval of `tfgad.scores.rate_interval`, which counts
  strips, holds the rate;
- `at most holds`: the same of its upper end where each strip counts as one tile;
- `as independent holds`: the same if tiles were independent;
- `levelled`: the figures with each strip's own median score subtracted, in calibration and test.
  The product does not do this: it was measured to see whether it should.

It takes about six minutes on two cores.
"""

import argparse
import itertools
import json
import logging
from pathlib import Path

import numpy as np

from tfgad.data.datasets.aitex import DEFECT_PIXELS
from tfgad.data.datasets.aitex_strips import fabrics, strips
from tfgad.data.split import hold_out
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation.baselines import MeanDeviation, PatchPCA, scores
from tfgad.scores.rate_interval import clopper_pearson, rate_interval
from tfgad.scores.thresholds import threshold_from_normals

RESULTS = Path(__file__).parent / "results" / "false_alarms_aitex.json"
TILE, STRIPS, RATES = 128, 3, (0.01, 0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fabrics", nargs="+", default=None)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    logging.getLogger("tfgad").setLevel(logging.ERROR)  # it warns of few images, rightly
    rows = []
    for fabric in given.fabrics or fabrics():
        of_fabric = strips(fabric)
        good = sorted([*of_fabric.train, *of_fabric.calibration], key=lambda strip: strip.name)
        kept, held = hold_out(len(good), 0.43, 0)
        for name, detector in (
            ("levelled deviation", MeanDeviation(remove_image_mean=True)),
            ("patch PCA", PatchPCA()),
        ):
            detector.fit(tiles_of([good[i] for i in kept])[0])
            of_held = Scored(detector, [good[i] for i in held])
            of_test = Scored(detector, of_fabric.test)
            for rate in RATES:
                for levelled in (False, True):
                    row = {"fabric": fabric, "detector": name, "rate": rate, "levelled": levelled}
                    rows.append(row | measured(of_held, of_test, rate, levelled))
                    print(json.dumps(rows[-1]), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"tile": TILE, "rows": rows}, indent=1) + "\n")


def measured(of_held, of_test, rate, levelled):
    """Returns the figures of thresholds by all triples of the strips held out."""
    scores_held, scores_test = of_held.scores(levelled), of_test.scores(levelled)
    defective, observed, recall = of_test.labels, [], []
    intervals, at_most, independent = [], [], []
    for triple in itertools.combinations(np.unique(of_held.strips), STRIPS):
        chosen = np.isin(of_held.strips, triple)
        normal = scores_held[chosen]
        threshold = threshold_from_normals(normal, rate).value
        found = rate_interval(normal, of_held.strips[chosen], threshold, rate)
        intervals.append((found.low, found.high))
        at_most.append((0.0, found.at_most))
        independent.append(clopper_pearson(int(np.sum(normal > threshold)), normal.size))
        observed.append(np.mean(scores_test[~defective] > threshold))
        recall.append(np.mean(scores_test[defective] > threshold) if defective.any() else np.nan)
    return {
        "draws": len(observed),
        "observed": [round(float(each), 4) for each in np.quantile(observed, [0, 0.5, 1])],
        "recall": round(float(np.mean(recall)), 4) if defective.any() else None,
        "defective tiles": int(defective.sum()),
        "upper end": round(float(np.median(intervals, axis=0)[1]), 4),
        "holds": share_held(intervals, observed),
        "at most holds": share_held(at_most, observed),
        "as independent holds": share_held(independent, observed),
    }


def share_held(intervals, rates):
    """Returns the share of intervals that hold their rate."""
    low, high = np.transpose(intervals)
    return round(float(np.mean((low <= rates) & (rates <= high))), 4)


class Scored:
    """The scores of the tiles of strips, with the strip and the label of each."""

    def __init__(self, detector, of):
        images, labels, self.strips = tiles_of(of)
        self.labels = np.array(labels, bool)
        self.raw = scores(detector.maps(images)).astype(np.float64)

    def scores(self, levelled):
        """Returns the scores `[N]`; if levelled, less the median of each one's strip."""
        if not levelled:
            return self.raw
        names, index = np.unique(self.strips, return_inverse=True)
        medians = np.array([np.median(self.raw[self.strips == name]) for name in names])
        return self.raw - medians[index]


def tiles_of(of):
    """Cuts strips into tiles in [-1, 1]; returns images, labels and strips."""
    images, labels, names = [], [], []
    for strip in of:
        for y in range(0, strip.image.shape[0] - TILE + 1, TILE):
            for x in range(0, strip.image.shape[1] - TILE + 1, TILE):
                window = np.s_[y : y + TILE, x : x + TILE]
                defect_pixels = strip.mask[window].sum()
                if defect_pixels == 0 or defect_pixels >= DEFECT_PIXELS:
                    images.append(strip.image[window])
                    labels.append(defect_pixels > 0)
                    names.append(strip.name)
    return np.stack(images).astype(np.float32) / 127.5 - 1, labels, np.array(names)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
