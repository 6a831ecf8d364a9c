"""f-AnoGAN on MNIST: one digit is normal, the other nine are anomalies (Schlegl et al. 2019).

    python examples/fanogan_mnist.py --data mnist:8

Trains the WGAN-GP, then the encoder by izi_f, and prints the AUROC of all four scores on the whole
test set of 10,000 images; writes samples and reconstructions. MNIST comes from `TFGAD_DATA_DIR`,
from Keras's cache, or is downloaded.

Expect an AUROC of 0.84 for digit 8 by the paper's score, `residual`, within 7 minutes of processor
time.
"""

import argparse
from pathlib import Path

import tfgad
from tfgad import plots
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import predict_test_set, reconstructions
from tfgad.methods import settings_of
from tfgad.training.stages import stage_steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist:8", help="what is normal")
    parser.add_argument("--steps", help="of the GAN and of the encoder, such as 600+1500")
    parser.add_argument("--out", type=Path, default="fanogan_mnist", help="folder for the pictures")
    arguments = parser.parse_args()

    data = tfgad.load(arguments.data)
    settings = settings_of("fanogan")
    model = tfgad.build("fanogan", data.image_shape, seed=0)

    # First the generator and the critic, then, with both frozen, the encoder.
    for stage, steps in stage_steps(
        arguments.steps or settings.as_dict()["steps"], model.stages
    ).items():
        model.begin(stage)
        batch_size = model.images_per_step
        batches = tfgad.training_batches(data, model.window, batch_size=batch_size)
        model.fit(batches, steps_per_epoch=steps, shuffle=False)
    model.adapt(data.train, data.train_size)

    for score in model.scores:
        predicted = predict_test_set(model, data, score)
        print(f"{score:15s} AUROC {predicted.image_auroc:.3f}")

    plots.save(plots.samples(model.sample(16).numpy()), arguments.out / "samples.png")
    plots.save(reconstructions(model, predicted), arguments.out / "reconstructions.png")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
