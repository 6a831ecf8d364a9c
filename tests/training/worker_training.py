"""One of several workers: trains a small run with the others, and keeps the weights it ends with.

TF_CONFIG=... python worker_training.py OUT WEIGHTS [--resume] [--die-at STEP]
"""

import argparse
import os
import sys

import keras
import numpy as np

from tfgad.errors import UsageError
from tfgad.training import callbacks, train

SETTINGS = {"width": 8, "latent_dim": 8, "batch_size": 8, "steps": "6", "window": 0}


class Ends(keras.callbacks.Callback):
    """Writes the weights when the training ends; or dies at a step, as a machine does."""

    def __init__(self, weights: str, die_at: int):
        super().__init__()
        self.weights, self.die_at = weights, die_at

    def on_train_batch_end(self, batch, logs=None):
        if self.model.steps_done == self.die_at:
            os._exit(9)

    def on_train_end(self, logs=None):
        networks = self.model.networks().values()
        np.savez(self.weights, *[w.numpy() for network in networks for w in network.weights])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("weights")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--die-at", type=int, default=0)
    given = parser.parse_args()
    callbacks.CHECKPOINT_STEPS = 2
    try:
        train(
            "ganomaly",
            "weave:plain?size=32&train=12&calibration=6&test=2",
            given.out,
            settings=SETTINGS,
            resume=given.resume,
            callbacks=lambda stage, steps: [Ends(given.weights, given.die_at)],
            distribute="multiworker" if "TF_CONFIG" in os.environ else "alone",
        )
    except UsageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
