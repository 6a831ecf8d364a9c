"""WGAN on MNIST: a critic with clipped weights estimates a distance (Arjovsky et al. 2017).

    python examples/wgan_mnist.py

Trains on nine digits; 2 is left out. The critic's loss, with the sign reversed, is its estimate of
the distance between real and generated images. It shows the progress of the training, which the
losses of a GAN do not, and is printed ten times. Writes a grid of samples, and prints the AUROC of
E[D(normal)] - D(x) over the 10,000 test images, 2 being the anomaly. `wgan_gp_mnist.py` has a
penalty instead of the clipping.

Clipping is slow. After 1,000 steps and 5 minutes of processor time the distance has fallen from 1.6
to 0.03, a third of the samples are plain digits (0, 3, 6, 9) and the others strokes like theirs.
Expect an AUROC of 0.45: to such a critic a 2 is as normal as the other digits.
"""

import argparse
from pathlib import Path

import tfgad
from tfgad import plots
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import predict_test_set
from tfgad.methods import settings_of

PARTS = 10  # of the training, after each of which the distance is printed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist:!2", help="what is normal")
    parser.add_argument("--clip", type=float, default=0.01, help="bound of the critic's weights")
    parser.add_argument("--steps", type=int, help="of training, a multiple of 10")
    parser.add_argument("--out", type=Path, default="wgan_mnist", help="folder for the picture")
    arguments = parser.parse_args()

    data = tfgad.load(arguments.data)
    settings = settings_of("wgan")
    model = tfgad.build("wgan", data.image_shape, seed=0, clip=arguments.clip)

    # A step is five updates of the critic, each on its own batch, and one of the generator.
    batch_size = model.images_per_step
    batches = tfgad.training_batches(data, model.window, batch_size=batch_size)
    steps = (arguments.steps or settings["steps"]) // PARTS
    history = model.fit(batches, steps_per_epoch=steps, epochs=PARTS, shuffle=False).history
    print("distance", *(f"{-loss:.3f}" for loss in history["critic"]))

    # The score is relative to the critic's mean over normal images.
    model.adapt(data.train, data.train_size)
    plots.save(plots.samples(model.sample(32).numpy()), arguments.out / "samples.png")
    print(f"wrote {arguments.out / 'samples.png'}")
    print(f"E[D(normal)] - D(x) AUROC {predict_test_set(model, data).image_auroc:.3f}")


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
