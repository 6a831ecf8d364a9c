"""What the tone of `cues` makes of stains in uneven light, and what it would without levelling.

    TFGAD_DATA_DIR=... python examples/benchmarks/tone.py \
        --data weave:denim weave:basket 'aitex:03?tile=128'

Lays discs that are darker on half of the calibration tiles, and light that falls off towards a side
on all tiles, training tiles included. Then it compares three forms of the tone:

- `levelled`: as it is; a plane is subtracted where it explains the tones, up to the steepest of
  the training tiles;
- `as photographed`: nothing is subtracted;
- `every plane`: the plane of every tile is subtracted.

The JSON holds for each fabric, light and form: the AUROC of tiles, that of pixels, and the false
alarms on good tiles in light that falls off by 0.05 more than in training, at the threshold that
one in a hundred calibration tiles exceeds. Nothing is trained: a minute per fabric on two cores.
"""

import argparse
from pathlib import Path
from unittest import mock

import tfgad
from tfgad import files

# isort: split

import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from tfgad.errors import exit_on_usage_error
from tfgad.scores import cues
from tfgad.training import run_config

RESULTS = Path(__file__).parent / "results" / "tone.json"
LIGHTS = (0.0, 0.1, 0.3)  # largest change of the light from the middle of a tile to its edge
MORE_LIGHT = 0.05
RADII = (0.15, 0.42)  # of the discs, of the tile's height
DARKER = (0.05, 0.25)  # of a range of 2
TRAIN = 130  # tiles
ALWAYS = (-2.0, -1.0)  # shares of variance that any plane exceeds
FORMS = ("levelled", "as photographed", "every plane")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="specs, such as weave:denim")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file")
    given = parser.parse_args()
    results = {"versions": run_config.versions()}
    for spec in given.data:
        images = tfgad.load(spec)
        train = np.stack(list(images.train.as_numpy_iterator()))[::3][:TRAIN]
        good = np.stack(list(images.calibration.as_numpy_iterator()))
        results[spec] = {str(light): measured(train, good, light) for light in LIGHTS}
        for light, forms in results[spec].items():
            for form, figures in forms.items():
                print(spec, light, form, figures, flush=True)
        files.write_json(given.out, results)


def measured(train, good, light):
    """Returns the figures of each form of the tone in one light."""
    rng = np.random.default_rng(0)
    train, stained, masks = lit(train, light, rng), *with_discs(good, rng)
    stained, brighter = lit(stained, light, rng), lit(good, light + MORE_LIGHT, rng)
    good = lit(good, light, rng)
    found = {}
    for form in FORMS:
        tone = tone_of(form, train)
        maps = tone(stained)
        threshold = np.quantile(tone(good).max(axis=(1, 2)), 0.99)
        every = (slice(None), slice(None, None, 2), slice(None, None, 2))
        figures = {
            "tile_auroc": roc_auc_score(masks.any(axis=(1, 2)), maps.max(axis=(1, 2))),
            "pixel_auroc": roc_auc_score(masks[every].ravel(), maps[every].ravel()),
            "false_alarms": (tone(brighter).max(axis=(1, 2)) > threshold).mean(),
        }
        found[form] = {name: round(float(value), 4) for name, value in figures.items()}
    return found


def lit(images, light, rng):
    """Multiplies each image by a ramp of its own steepness, up to `light`, and direction."""
    height, width = images.shape[1:3]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi, (len(images), 1, 1))
    steepness = rng.uniform(0, light, (len(images), 1, 1))
    ramp = steepness * (np.cos(angle) * rows + np.sin(angle) * columns)
    return np.clip((images + 1) * (1 + ramp[..., None]) - 1, -1, 1).astype("float32")


def with_discs(images, rng):
    """Returns images of which every second has a darker disc, and the masks `[N, H, W]`."""
    height, width = images.shape[1:3]
    rows, columns = np.mgrid[:height, :width]
    stained, masks = images.copy(), np.zeros(images.shape[:3], bool)
    for i in range(0, len(images), 2):
        radius = rng.uniform(*RADII) * height
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        masks[i] = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        stained[i] -= rng.uniform(*DARKER) * masks[i][..., None]
    return np.clip(stained, -1, 1), masks


def tone_of(form, train):
    """Returns a function of images to maps of tone, adapted to training images."""
    layer = cues.Cues((1,))
    layer.adapt(train, np.ones((*train.shape[:3], 1), "float32"))
    if form != "levelled":
        layer.steepest_light.assign(0.0 if form == "as photographed" else np.inf)

    shares = ALWAYS if form == "every plane" else cues.LIGHT_SHARES

    def tone(images):
        blocks = [images[i : i + 16] for i in range(0, len(images), 16)]
        with mock.patch.object(cues, "LIGHT_SHARES", shares):
            return np.concatenate([layer.tone(tf.constant(block)).numpy() for block in blocks])

    return tone


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
