"""DCGAN on MNIST: a convolutional GAN, with checkpoints on the way (Radford et al. 2016).

    python examples/dcgan_mnist.py

Trains on nine digits; 2 is left out. Every `--every` epochs it writes the whole model, optimizers
included, and a grid of samples of the same codes, so that the pictures show one generator over
time. Last it prints the AUROC of 1 - D(x) over the 10,000 test images, 2 being the anomaly.

`--smoothing 0.1` sets D's target for real images to 0.9 instead of 1. `--r1` penalises the gradient
of D, as the default configuration does. Both keep D from becoming so certain that G gets no
gradient from it.

Expect plain digits to be half of the samples after the default of three epochs, and an AUROC of
0.70; it takes 4.4 minutes of processor time.
"""

import argparse
import math
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import keras

from tfgad import plots
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import predict_test_set
from tfgad.methods import settings_of


def main():
    settings = settings_of("dcgan")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist:!2?size=28", help="what is normal")
    parser.add_argument("--smoothing", type=float, default=0.0, help="1 less the label of reals")
    parser.add_argument("--r1", type=float, default=settings["r1"], help="penalty of D's slope")
    parser.add_argument("--epochs", type=int, help="passes over the training images")
    parser.add_argument("--every", type=int, default=1, help="epochs between checkpoints")
    parser.add_argument("--out", type=Path, default="dcgan_mnist", help="folder for what it writes")
    arguments = parser.parse_args()

    data = tfgad.load(arguments.data)
    regularisation = {"smoothing": arguments.smoothing, "r1": arguments.r1}
    model = tfgad.build("dcgan", data.image_shape, seed=0, **regularisation)
    batches = tfgad.training_batches(data, model.window, batch_size=settings["batch_size"])

    steps_per_epoch = math.ceil(data.train_size / settings["batch_size"])
    epochs = arguments.epochs or round(settings["steps"] / steps_per_epoch)

    def draw(epoch, logs):
        if (epoch + 1) % arguments.every == 0:
            grid = plots.samples(model.sample(32).numpy())
            plots.save(grid, arguments.out / f"samples-{epoch + 1:02d}.png")

    # A checkpoint is a model: `tfgad.load_model` reads it, and `fit` trains it further.
    checkpoint = keras.callbacks.ModelCheckpoint(
        arguments.out / "{epoch:02d}.keras", save_freq=arguments.every * steps_per_epoch
    )
    callbacks = [checkpoint, keras.callbacks.LambdaCallback(on_epoch_end=draw)]
    model.fit(
        batches, steps_per_epoch=steps_per_epoch, epochs=epochs, callbacks=callbacks, shuffle=False
    )
    print(f"1 - D(x) AUROC {predict_test_set(model, data).image_auroc:.3f}")


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
