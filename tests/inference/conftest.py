"""A watched folder, for the tests of `tfgad.inference.watch` and its table."""

import csv
import threading

import numpy as np
import pytest
from PIL import Image

from tfgad.inference.watch import Folder, Watch
from tfgad.inference.watch_table import Table, shown

SIDE = 8
GOOD, BAD = 100, 200  # grey levels


class Brightness:
    """A predictor whose score is the mean grey level of an image."""

    image_shape = window = (SIDE, SIDE, 1)
    resized, score, threshold, scale, depth = False, "mean", 150.0, 1.0, None
    ignored, fit = None, "stretch"
    calibration_scores = None

    def predict_images(self, images):
        scores = [127.5 * (1 + float(image.mean())) for image in images]
        return [
            {"score": score, "probability": score / 300, "is_anomalous": score > 150, "map": image}
            for score, image in zip(scores, images[..., 0], strict=True)
        ]


class Scene:
    """A folder `in`, the table and the outputs beside it, and what a process does with them."""

    def __init__(self, folder):
        self.folder, self.csv = folder / "in", folder / "results.csv"
        self.bad, self.maps = folder / "bad", folder / "maps"
        self.folder.mkdir()

    def write(self, name, level=GOOD, side=SIDE):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side), level, np.uint8)).save(path, "PNG")
        return path

    def process(self, passes=1, settle=0, predictor=None, **options):
        """Opens folder and table, makes some passes, and closes both, as the end of a process."""
        outputs = [options[name] for name in ("bad", "maps") if name in options]
        folder = Folder(self.folder, settle, outputs)
        try:
            table = Table(self.csv)
            try:
                watching = Watch(
                    predictor or Brightness(), folder, table, threading.Event(), **options
                )
                return [list(watching.arrived()) for _ in range(passes)]
            finally:
                table.close()
        finally:
            folder.close()

    def rows(self):
        with self.csv.open(newline="") as file:
            return list(csv.DictReader(file))

    def verdicts(self):
        """The verdicts of each image, by its path within the folder."""
        found = {}
        for row in self.rows():
            name = row["image"].removeprefix(f"{shown(self.folder.resolve())}/")
            found.setdefault(name, []).append(row["verdict"])
        return found


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)
