"""Masks of single images: the false alarms of good tiles with squares that are ignored in them.

    python examples/benchmarks/own_masks.py --data weave:twill --steps 400+300 --runs runs \
        --out examples/benchmarks/results/own_masks.json

A run is trained on good tiles. Other good tiles, of another seed of the fabric, get a square mask
at a random place. The square is filled with the mean of the tile, as the region of a model is, or
with its mirrored texture, as masks of single images are; then the map leaves it out with a margin.
The JSON holds, for each side of the square, each fill and each margin, how many tiles have a map
above the threshold beside the square, and how many have without a mask; the same above the 95 %
quantile of the maxima of unmasked tiles, where more tiles count; and how many tiles are unlike any
good one to the image quality check.
"""

import argparse
from pathlib import Path

import tfgad
from tfgad import files, training

# isort: split

import numpy as np
import tensorflow as tf

from tfgad.data.ignored import fill
from tfgad.data.ignored_own import mirrored_into, with_margin
from tfgad.data.sampling import batched
from tfgad.errors import exit_on_usage_error
from tfgad.training import run_config

SIDES, MARGINS = (16, 32, 48, 64), (0, 4, 8, 16, 32)  # pixels
OTHER_SEED = 7  # of the fabric


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a weave, such as weave:twill")
    parser.add_argument("--steps", default="1500+1000")
    parser.add_argument("--tiles", type=int, default=400)
    parser.add_argument("--runs", type=Path, required=True, help="folder that keeps the run")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    given = parser.parse_args()
    folder = given.runs / f"own_masks_{given.data}".replace(":", "_")
    settings = {"steps": given.steps}
    run = training.train("ganomaly_unet", given.data, folder, settings=settings, resume=True)
    data = tfgad.load(f"{given.data}?seed={OTHER_SEED}")
    good = data.calibration.concatenate(data.train).take(given.tiles)
    tiles = np.stack(list(good.as_numpy_iterator()))
    whole, reasons = scored(run.model, tiles)
    maxima, threshold = whole.max(axis=(1, 2)), float(run.model.calibration.threshold)
    limits = {"threshold": threshold, "quantile_95": float(np.quantile(maxima, 0.95))}
    unmasked = {name: int((maxima > limit).sum()) for name, limit in limits.items()}
    results = {"versions": run_config.versions(), "steps": given.steps, "tiles": len(tiles)}
    results |= {"limits": limits, "unmasked": {**unmasked, "reasons": reasons}}
    for side in SIDES:
        masks = squares(tiles.shape[:3], side)
        mirrored = np.stack([mirrored_into(*pair) for pair in zip(tiles, masks, strict=True)])
        fills = {"mean": fill(tf.constant(tiles), masks).numpy(), "mirrored": mirrored}
        for name, filled in fills.items():
            maps, reasons = scored(run.model, filled)
            margins = {str(m): above(whole, maps, masks, m, limits) for m in MARGINS}
            results.setdefault(str(side), {})[name] = {"reasons": reasons, "margins": margins}
            files.write_json(given.out, results)
            print(side, name, reasons, margins, flush=True)


def squares(shape, side):
    """Returns a square at a random place of each tile, bool `[N, H, W]`."""
    rng, masks = np.random.default_rng(side), np.zeros(shape, bool)
    for mask in masks:
        top, left = (rng.integers(0, length - side + 1) for length in shape[1:])
        mask[top : top + side, left : left + side] = True
    return masks


def scored(model, tiles):
    """Returns the maps of tiles, and how many are unlike any good one."""
    maps, outside = [], 0
    for batch in batched(tf.data.Dataset.from_tensor_slices(tiles)):
        maps.append(model.anomaly(batch)["map"].numpy())
        outside += int((model.reasons(batch).numpy() != b"").sum())
    return np.concatenate(maps), outside


def above(whole, maps, masks, margin, limits):
    """Returns by limit how many tiles exceed it beside their square: masked, and unmasked."""
    left = np.stack([with_margin(mask, margin) for mask in masks])
    some = ~left.all(axis=(1, 2))
    both = [np.where(left, -np.inf, each)[some].max(axis=(1, 2)) for each in (maps, whole)]
    counts = {name: [int((each > limit).sum()) for each in both] for name, limit in limits.items()}
    return {"tiles": int(some.sum()), **counts}


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
