"""False alarms on test sets against the rate that was asked for, per tile and per image.

    python examples/benchmarks/false_alarms_by_fabric.py runs/* \
        --out examples/benchmarks/results/false_alarms_by_fabric.json

Takes finished runs, such as those that `one_class.py --runs` keeps, and computes each score of
their calibration and test images once. For each rate it sets a threshold per tile
and one per image, and writes

- `tiles`, `images`: the share of the good test tiles and images above that threshold;
- `interval`, `at_most`: what the calibration images predict for the rate; see
  `tfgad.scores.rate_interval`.

An image of AITEX is a strip; if it has a defect, it does not count as good. A tile of a weave is an
image of its own, and has only one rate.
"""

import argparse
from pathlib import Path

import tfgad
from tfgad import files
from tfgad.training import load_run, run_config

# isort: split

import numpy as np

from tfgad.data.origins import Origins
from tfgad.data.sampling import batched
from tfgad.errors import exit_on_usage_error
from tfgad.scores.calibration import largest_of_images
from tfgad.scores.rate_interval import rate_interval
from tfgad.scores.thresholds import threshold_from_normals

SCORES, RATES = ("joint", "cues"), (0.01, 0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--scores", nargs="+", default=SCORES)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    given = parser.parse_args()
    rows = []
    for folder in given.runs:
        run = load_run(folder)
        images = tfgad.load(run.config["data"])
        for score in given.scores:
            for row in measured(run, images, score):
                rows.append(row)
                print(row, flush=True)
            files.write_json(given.out, {"versions": run_config.versions(), "rows": rows})


def measured(run, images, score):
    """Yields the figures of each rate, for a threshold per tile and one per image."""
    held_out, origins = scores_of(run, images.calibration, score), images.calibration_origins
    origins = origins or Origins.of_images([str(i) for i in range(len(held_out))])
    good, strips = good_test_images(images)
    tested = scores_of(run, images.test.map(lambda row: row["image"]), score)
    of_tiles = tested[good]
    of_images = np.array([tested[members].max() for members in strips])
    by_image, groups_of_images = largest_of_images(held_out, origins)
    of = {"tile": (held_out, origins.groups), "image": (by_image, groups_of_images.groups)}
    for per, (scores, groups) in of.items():
        for rate in RATES:
            threshold = threshold_from_normals(scores, rate).value
            interval = rate_interval(scores, groups, threshold, rate)
            yield {
                "data": run.config["data"],
                "seed": run.config["seed"],
                "score": score,
                "per": per,
                "rate": rate,
                "tiles": round(float((of_tiles > threshold).mean()), 4),
                "images": round(float((of_images > threshold).mean()), 4),
                "good": {"tiles": len(of_tiles), "images": len(of_images)},
                "groups": interval.groups,
                "interval": [round(interval.low, 4), round(interval.high, 4)],
                "at_most": round(interval.at_most, 4),
            }


def good_test_images(images):
    """Returns which tiles are good, bool `[N]`, and the positions of each good image's tiles."""
    rows = [(row["name"].decode(), row["label"]) for row in images.test.as_numpy_iterator()]
    labels = np.array([label for _, label in rows])
    strips = {}
    for position, (name, _) in enumerate(rows):
        strips.setdefault(images.image_of(name), []).append(position)
    return labels == 0, [each for each in strips.values() if not labels[each].any()]


def scores_of(run, stream, score):
    """Returns the scores of a stream of images, `[N]`."""
    return np.concatenate(
        [run.model.anomaly(batch, score)["score"].numpy() for batch in batched(stream)]
    )


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
