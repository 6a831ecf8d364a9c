"""GANomaly on MNIST: one digit is normal, the other nine are anomalies (Akcay et al. 2018).

    python examples/ganomaly_mnist.py

Trains an encoder, a decoder and a second encoder together, against a discriminator. Prints two
AUROCs over the 10,000 test images: of `latent`, the distance of the two codes, which is the paper's
score, and of `residual`, the distance of the image from its reconstruction. Writes reconstructions.
There are no samples: codes come from images only.

Expect an AUROC of 0.89 by `latent` and 0.77 by `residual` for digit 8, after 1,500 steps.
"""

import argparse
from pathlib import Path

import tfgad
from tfgad import plots
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import predict_test_set, reconstructions
from tfgad.methods import settings_of


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist:8", help="what is normal")
    parser.add_argument("--steps", type=int, help="of training")
    parser.add_argument("--out", type=Path, default="ganomaly_mnist", help="folder for the picture")
    arguments = parser.parse_args()

    data = tfgad.load(arguments.data)
    settings = settings_of("ganomaly")
    model = tfgad.build("ganomaly", data.image_shape, seed=0)
    batches = tfgad.training_batches(data, model.window, batch_size=settings["batch_size"])
    steps = arguments.steps or settings["steps"]
    model.fit(batches, steps_per_epoch=steps, shuffle=False)

    for score in model.scores:
        predicted = predict_test_set(model, data, score)
        print(f"{score:8s} AUROC {predicted.image_auroc:.3f}")
    plots.save(reconstructions(model, predicted), arguments.out / "reconstructions.png")
    print(f"wrote {arguments.out / 'reconstructions.png'}")


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
