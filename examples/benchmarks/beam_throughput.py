"""Images per second: scoring with Beam's local runner beside the plain loop of `tfgad score`.

    python examples/benchmarks/beam_throughput.py MODEL --images 2000 --out beam_throughput.json

MODEL is the folder of an exported model. The images are noise of the model's size, written to a
temporary folder. All times include reading and decoding; those of Beam also include building the
pipeline and loading the model, which the loop does before its clock runs. Writes the JSON file and
prints one line of a Markdown table. Absolute figures depend on the machine; compare those of one
run.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tfgad import files
from tfgad.errors import exit_on_usage_error
from tfgad.inference import beam, predictor, results, scoring
from tfgad.training import run_config

PIPELINES = {
    "beam": [],
    "beam, 2 processes": ["direct_num_workers=2", "direct_running_mode=multi_processing"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of an exported model")
    parser.add_argument("--images", type=int, default=2000, help="how many")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    given = parser.parse_args()
    model = predictor.load_predictor(Path(given.model))
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        tiles = Path(folder, "tiles")
        write_noise(tiles, given.images, model.image_shape)
        paths = results.find_images([tiles])
        list(scoring.score_files(model, paths[:4]))  # the first image takes longer
        rates["loop"] = rate(given.images, lambda: list(scoring.score_files(model, paths)))
        for name, options in PIPELINES.items():
            table = str(Path(folder, "scores.csv"))
            rates[name] = rate(
                given.images,
                lambda options=options, table=table: beam.score(
                    given.model, [str(tiles)], table, options=options
                ),
            )
    height, width, _ = model.image_shape
    measured = {
        "images": given.images,
        "image": f"{height}x{width}",
        "images_per_second": rates,
        "versions": run_config.versions(),
    }
    files.write_json(given.out, measured)
    print("| images | size |", " | ".join(f"{name}, images/s" for name in rates), "|")
    print("|" + "---|" * (2 + len(rates)))
    print(f"| {given.images} | {height}x{width} |", " | ".join(map(str, rates.values())), "|")


def write_noise(folder, count, shape):
    """Writes images of noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, shape, np.uint8).squeeze()
        Image.fromarray(pixels).save(folder / f"{i:06}.png")


def rate(count, work):
    """Returns images per second."""
    started = time.perf_counter()
    work()
    return round(count / (time.perf_counter() - started), 1)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
