"""From good fabric tiles to heat maps and a SavedModel, step by step.

    python examples/fabric_inspection.py                            # embedded twill
    python examples/fabric_inspection.py --data 'folder:parts?tile=128' --out inspection

Does with the Python interface what `tfgad demo` does in one command: load, build, fit, adapt,
calibrate, predict, export.

Expect on twill: image AUROC 0.96, pixel AUROC 0.99, in about two minutes on two CPU cores.
"""

import argparse
from pathlib import Path

import numpy as np

import tfgad
from tfgad import plots
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import figures_of, predict_test_set
from tfgad.export.saved_model import export

FALSE_POSITIVE_RATE = 0.01


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="weave:twill", help="data set (default: %(default)s)")
    parser.add_argument("--out", type=Path, default="inspection", help="folder for the results")
    parser.add_argument("--steps", default="1500+1000", help="training steps of each stage")
    arguments = parser.parse_args()

    # Good tiles for training, good tiles held out for the threshold, and a test with masks.
    data = tfgad.load(arguments.data)
    print(f"{data.train_size} good tiles {data.image_shape}, {data.calibration_size} held out")

    # First a GANomaly learns from windows of 32x32 pixels, taken at random from the tiles. Then a
    # U-Net learns to mark synthetic defects that are added to the tiles.
    model = tfgad.build("ganomaly_unet", data.image_shape, seed=0, steps=arguments.steps)
    for stage, steps in zip(model.stages, model.config.steps, strict=True):
        model.begin(stage)
        size = model.images_per_step
        batches = tfgad.training_batches(data, model.training_window, batch_size=size)
        model.fit(batches, steps_per_epoch=steps, shuffle=False)

    # The spread of normal errors, then the score that one good tile in a hundred exceeds.
    model.adapt(data.train, data.train_size)
    threshold = model.calibrate(data.calibration, FALSE_POSITIVE_RATE)
    print(f"threshold {threshold.value:.3f} ({threshold.method} of {threshold.n} good tiles)")

    # Scores, maps and figures of the test set.
    predicted = predict_test_set(model, data)
    figures = figures_of(predicted, data, threshold.value)
    for name in ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro", "recall"):
        if figures[name] is not None:
            print(f"{name:12s} {figures[name]:.3f}")

    # The eight worst defects and the eight worst of the good tiles.
    worst = [
        np.flatnonzero(predicted.labels == label)[
            np.argsort(-predicted.scores[predicted.labels == label])
        ]
        for label in (1, 0)
    ]
    shown = np.concatenate([places[:8] for places in worst])
    figure = plots.heat_maps(
        predicted.images[shown],
        predicted.maps[shown],
        predicted.masks[shown],
        predicted.scores[shown],
        threshold.value,
        [predicted.names[i] for i in shown],
        predicted.labels[shown],
    )
    plots.save(figure, arguments.out / "heat_maps.png")

    # A SavedModel for TF Serving, with preprocessing and threshold inside.
    metadata = {"method": "ganomaly_unet", "data": data.spec}
    saved = export(
        model,
        arguments.out / "saved_model",
        image_shape=data.image_shape,
        resized=data.resized,
        metadata=metadata,
    )
    print(f"wrote {arguments.out / 'heat_maps.png'} and {saved}")


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
