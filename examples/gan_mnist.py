"""GAN on MNIST: samples, and the score of the discriminator alone (Goodfellow et al. 2014).

    python examples/gan_mnist.py

Trains on nine digits; 2 is left out. Writes a grid of samples, and prints the AUROC of 1 - D(x)
over the 10,000 test images, 2 being the anomaly. `--d-steps` and `--g-steps` are the updates of
discriminator and generator per step. If D's loss falls towards 0, D has won and G learns nothing
more; if it stays at log 2 = 0.693, G has won.

Expect samples of which two in three are plain digits, if speckled, and an AUROC of 0.7 to 0.8 (two
runs: 0.82, 0.71), after 70 s of processor time. It is no anomaly detector: a D that G fools on
normal images has no need to know others. `ganomaly_mnist.py` shows a detector.
"""

import argparse
from pathlib import Path

import tfgad
from tfgad import plots
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import predict_test_set
from tfgad.methods import settings_of


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist:!2?size=28", help="what is normal")
    parser.add_argument("--d-steps", type=int, default=1, help="updates of D a step")
    parser.add_argument("--g-steps", type=int, default=1, help="updates of G a step")
    parser.add_argument("--steps", type=int, help="of training")
    parser.add_argument("--out", type=Path, default="gan_mnist", help="folder for the picture")
    arguments = parser.parse_args()

    data = tfgad.load(arguments.data)
    settings = settings_of("gan")
    players = {"d_steps": arguments.d_steps, "g_steps": arguments.g_steps}
    model = tfgad.build("gan", data.image_shape, seed=0, **players)

    # Each update of D takes other images, so a step takes several batches at once.
    batch_size = model.images_per_step
    batches = tfgad.training_batches(data, model.window, batch_size=batch_size)
    steps = arguments.steps or settings["steps"]
    model.fit(batches, steps_per_epoch=steps, shuffle=False)

    plots.save(plots.samples(model.sample(32).numpy()), arguments.out / "samples.png")
    print(f"wrote {arguments.out / 'samples.png'}")
    print(f"1 - D(x) AUROC {predict_test_set(model, data).image_auroc:.3f}")


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
