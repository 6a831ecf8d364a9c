"""A variational autoencoder on MNIST: one digit is normal, the other nine are anomalies.

    python examples/vae_mnist.py --data mnist:8

Trains it (Kingma and Welling 2014), and prints the AUROC of its four scores on the whole test set
of 10,000 images; writes samples and reconstructions. MNIST comes from `TFGAD_DATA_DIR`, from
Keras's cache, or is downloaded.

Expect an AUROC of 0.91 for digit 8 by `excess` and 0.68 by `elbo`, within 2 minutes of processor
time.
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
    parser.add_argument("--out", type=Path, default="vae_mnist", help="folder for the pictures")
    arguments = parser.parse_args()

    data = tfgad.load(arguments.data)
    settings = settings_of("vae")
    model = tfgad.build("vae", data.image_shape, seed=0)
    batches = tfgad.training_batches(data, model.window, batch_size=settings["batch_size"])
    steps = arguments.steps or settings["steps"]
    model.fit(batches, steps_per_epoch=steps, shuffle=False)

    for score in model.scores:
        predicted = predict_test_set(model, data, score)
        print(f"{score:8s} AUROC {predicted.image_auroc:.3f}")

    plots.save(plots.samples(model.sample(16).numpy()), arguments.out / "samples.png")
    plots.save(reconstructions(model, predicted), arguments.out / "reconstructions.png")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
