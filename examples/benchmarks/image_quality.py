"""The image quality check: blind images that it finds, and false alarms that it adds.

    python examples/benchmarks/image_quality.py saved_models/weave_twill_ganomaly ...

For each exported model of a weave it scores new good images (another seed than the model's) and
images of a blind camera, made from one of them. It writes the shares that are called anomalous, by
the score alone and by score and image quality together.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from scipy import ndimage

from tfgad.data.datasets.weave.weave import render
from tfgad.data.spec import Spec
from tfgad.errors import exit_on_usage_error
from tfgad.inference.predictor import SavedModelPredictor, saved_model_folder

RESULTS = Path(__file__).parent / "results" / "image_quality.json"
SEED = 1000  # of the good images; the models were trained with 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", type=Path, help="folders of exported models")
    parser.add_argument("--count", type=int, default=5000, help="good images of each fabric")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    figures = {}
    for model in given.models:
        figures[model.name] = measure(SavedModelPredictor(saved_model_folder(model)), given.count)
        print(model.name, json.dumps(figures[model.name], indent=2))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(figures, indent=2) + "\n")


def measure(predictor, count):
    """Returns shares of good and of blind images that are called anomalous, and the reasons."""
    spec = Spec.parse(predictor.metadata["data"])
    height, _, channels = predictor.image_shape
    good = predictions(predictor, (tile(spec.name, i, height, channels) for i in range(count)))
    image = tile(spec.name, 0, height, channels)
    blind = blind_images(image)
    seen = predictions(predictor, blind.values())
    return {
        "good images": count,
        "false alarms by score": float(np.mean([p["score"] > predictor.threshold for p in good])),
        "false alarms": float(np.mean([p["is_anomalous"] for p in good])),
        "reasons given for good images": dict(Counter(p["reason"] for p in good if p["reason"])),
        "blind images": len(blind),
        "blind called good by score": int(sum(p["score"] <= predictor.threshold for p in seen)),
        "blind called good": int(sum(not p["is_anomalous"] for p in seen)),
        "reasons": {name: p["reason"] for name, p in zip(blind, seen, strict=True)},
    }


def tile(fabric, index, side, channels):
    return render(fabric, seed=SEED, index=index, size=side, channels=channels)[0].reshape(
        side, side, channels
    )


def predictions(predictor, images):
    """Scores images uint8 `[H, W, C]`, sixteen at a time; without their maps."""
    found, batch = [], []
    for image in images:
        batch.append(image)
        if len(batch) == 16:
            found += predictor.predict_batch(np.stack(batch))
            batch = []
    found += predictor.predict_batch(np.stack(batch)) if batch else []
    return [{key: value for key, value in each.items() if key != "map"} for each in found]


def blind_images(good):
    """Returns images of a blind camera, from a good image uint8 `[H, W, C]`, by name."""
    random, x = np.random.default_rng(0), good.astype(float)
    mean = x.mean()
    ramp = np.broadcast_to(np.linspace(0, 255, x.shape[1])[None, :, None], x.shape)
    half = np.arange(x.shape[1])[None, :, None] < x.shape[1] // 2

    def blurred(sigma):
        return ndimage.gaussian_filter(x, (sigma, sigma, 0))

    made = {
        "black": np.zeros_like(x),
        "white": np.full_like(x, 255),
        "grey": np.full_like(x, 128),
        "dark, sensor noise": random.exponential(2, x.shape),
        "dimmed to 0.4": 0.4 * x,
        "brightened by 60": x + 60,
        "overexposed": 235 + 0.08 * x,
        "contrast of a fifth": mean + 0.2 * (x - mean),
        "noise": random.uniform(0, 255, x.shape),
        "out of focus, sigma 2": blurred(2),
        "out of focus, sigma 5": blurred(5),
        "gradient": ramp,
        "half black": np.where(half, x, 0),
        "half flat": np.where(half, x, mean),
        "turned by 90 degrees": np.rot90(x),
        "negative": 255 - x,
    }
    return {name: image.clip(0, 255).astype("uint8") for name, image in made.items()}


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
