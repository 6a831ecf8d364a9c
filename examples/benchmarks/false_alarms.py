"""False alarms on new groups: the rate that was asked for, the one that comes, and its interval.

    python examples/benchmarks/false_alarms.py

Good images come in groups, such as the tiles of a strip. Scores are simulated: Gaussian, with a
Gaussian shift of each group of 0, 0.5 or 1 standard deviations of the scores within a group. In two
further worlds groups differ otherwise: in `spread`, the standard deviation within a group is
log-normal; in `rare`, one group in ten lies 2 standard deviations higher.

A threshold is set from 2 to 20 groups of 42 images. The rate of new groups at it is known exactly.

- `tile-wise`: tfgad's threshold, by the rank of a score among all images.
- `group-wise`: by the rank among weights that each group shares out to its images, with one further
  group above all (Lee, Barber, Willett 2023, "Distribution-free inference with hierarchical data",
  arXiv 2306.06342). It promises the rate, on average over the groups that are drawn, for any
  distribution; with fewer than 1 / rate - 1 groups there is none, and the highest score stands in.

It writes, of each, the mean rate and the range of nine in ten draws; and, of tfgad's, how often the
95 % interval of `tfgad.scores.rate_interval` holds the rate, and its median upper end; the same of
`at most`, where each group counts as one image; and, as `counted as independent`, how often the
interval would hold it if all images were independent. It takes about two minutes on two cores.
"""

import argparse
import json
import logging
import math
from pathlib import Path

import numpy as np
from scipy import stats

from tfgad.errors import exit_on_usage_error
from tfgad.scores.rate_interval import clopper_pearson, rate_interval
from tfgad.scores.thresholds import threshold_from_normals

RESULTS = Path(__file__).parent / "results" / "false_alarms.json"
WORLDS = ("shift 0", "shift 0.5", "shift 1", "spread", "rare")
GROUPS, IMAGES = (2, 3, 5, 10, 20), 42
RATES = (0.01, 0.05, 0.1)
# Quadrature of a standard normal variable.
NODES = np.linspace(-8, 8, 2001)
WEIGHTS = stats.norm.pdf(NODES) * (NODES[1] - NODES[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=400, help="of each set of groups")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    logging.getLogger("tfgad").setLevel(logging.ERROR)  # it warns of few images, rightly
    rows = []
    for world in WORLDS:
        for rate in RATES:
            for groups in GROUPS:
                row = {"world": world, "rate": rate, "groups": groups}
                rows.append(row | measure(world, rate, groups, given.draws))
                print(json.dumps(rows[-1]), flush=True)
    figures = {"images per group": IMAGES, "draws": given.draws, "rows": rows}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(figures, indent=1) + "\n")


def measure(world, rate, groups, draws):
    """Returns the figures of many draws of some groups."""
    rng = np.random.default_rng(0)
    members = np.repeat(np.arange(groups), IMAGES)
    rates, of_groups, intervals, independent, at_most = [], [], [], [], []
    for _ in range(draws):
        scores = drawn(world, groups, rng).ravel()
        threshold = threshold_from_normals(scores, rate).value
        interval = rate_interval(scores, members, threshold, rate)
        rates.append(rate_at(world, threshold))
        intervals.append((interval.low, interval.high))
        at_most.append((0.0, interval.at_most))
        independent.append(clopper_pearson(int(np.sum(scores > threshold)), scores.size))
        of_groups.append(rate_at(world, group_wise(scores, groups, rate)))
    return {
        "tile-wise": summary(rates),
        "interval holds": holds(intervals, rates),
        "upper end": rounded(np.median(intervals, axis=0)[1]),
        "at most holds": holds(at_most, rates),
        "at most": rounded(np.median(at_most, axis=0)[1]),
        "counted as independent": holds(independent, rates),
        "group-wise": summary(of_groups),
        "group-wise promises": groups >= 1 / rate - 1 - 1e-9,
    }


def drawn(world, groups, rng):
    """Draws scores `[groups, IMAGES]`."""
    within = rng.normal(size=(groups, IMAGES))
    if world == "spread":
        return np.exp(0.5 * rng.normal(size=(groups, 1))) * within
    if world == "rare":
        return 2.0 * (rng.random((groups, 1)) < 0.1) + within
    return float(world.split()[1]) * rng.normal(size=(groups, 1)) + within


def rate_at(world, threshold):
    """Returns the share of the images of all groups above a threshold."""
    above = stats.norm.sf
    if world == "spread":
        return float(WEIGHTS @ above(threshold * np.exp(-0.5 * NODES)))
    if world == "rare":
        return float(0.9 * above(threshold) + 0.1 * above(threshold - 2))
    return float(above(threshold / math.hypot(1, float(world.split()[1]))))


def group_wise(scores, groups, rate):
    """Returns the threshold by groups of equal size; the highest score with too few groups."""
    above = math.floor((rate * (groups + 1) - 1) * IMAGES + 1e-9)
    return np.sort(scores)[scores.size - 1 - max(above, 0)]


def holds(intervals, rates):
    """Returns the share of intervals that hold their rate."""
    low, high = np.transpose(intervals)
    return rounded(np.mean((low <= rates) & (rates <= high)))


def summary(rates):
    low, high = np.quantile(rates, [0.05, 0.95])
    return {"mean": rounded(np.mean(rates)), "of nine in ten": [rounded(low), rounded(high)]}


def rounded(value):
    return round(float(value), 4)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
