"""Training shared by two worker processes on this machine, beside one process: time and weights.

    python examples/benchmarks/two_workers.py --out examples/benchmarks/results/two_workers.json

Both train GANomaly on twill with the same batches. The workers must end with equal weights. Their
distance from the weights of one process is given beside the distance that training moved them. On
one machine two workers share its cores, so the time shows the cost of communication, not the gain
of more machines.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tfgad import files, training
from tfgad.errors import exit_on_usage_error
from tfgad.training import run_config

# isort: split

import keras
import numpy as np

WARM_UP = 10  # steps that are not timed: tracing, the first collectives


class Watch(keras.callbacks.Callback):
    """Takes the time of each step, and the weights before and after."""

    def on_train_begin(self, logs=None):
        """Notes the weights."""
        self.before, self.times = self._weights(), []

    def on_train_batch_begin(self, batch, logs=None):
        """Notes the time."""
        self.started = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Notes how long the step took."""
        self.times.append(time.monotonic() - self.started)

    def on_train_end(self, logs=None):
        """Notes the weights again."""
        self.after = self._weights()

    def _weights(self):
        return np.concatenate([w.numpy().ravel() for w in self.model.trainable_weights])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    if "TF_CONFIG" in os.environ:
        return train(arguments.out, arguments.steps)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (alone,) = together(folder / "alone", arguments.steps, 1)
        first, second = together(folder / "two", arguments.steps, 2)
    moved = np.abs(alone["after"] - alone["before"])
    results = {
        "steps": arguments.steps,
        "step_seconds": {"one process": pace(alone), "two workers": pace(first)},
        "workers_end_equal": bool((first["after"] == second["after"]).all()),
        "largest_difference_from_one": float(np.abs(first["after"] - alone["after"]).max()),
        "mean_difference_from_one": float(np.abs(first["after"] - alone["after"]).mean()),
        "mean_movement": float(moved.mean()),
        "versions": run_config.versions(),
    }
    files.write_json(arguments.out, results)
    print(json.dumps(results, indent=2))
    return None


def together(folder, steps, count):
    """Trains in so many processes, and returns what each of them found."""
    folder.mkdir()
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    workers = [f"127.0.0.1:{port.getsockname()[1]}" for port in ports]
    for port in ports:
        port.close()
    processes = []
    for index in range(count):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        command = [sys.executable, __file__, "--out", folder / f"{index}.npz", "--steps", steps]
        environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
        processes.append(subprocess.Popen([str(part) for part in command], env=environment))
    if any([process.wait() for process in processes]):
        raise SystemExit("a worker failed")
    return [dict(np.load(folder / f"{index}.npz")) for index in range(count)]


def train(out, steps):
    """Trains as one of the workers, or as the only one, and writes what `Watch` saw."""
    watch = Watch()
    training.train(
        "ganomaly",
        "weave:twill?train=100&calibration=20&test=2",
        out.parent / "run",
        settings={"steps": str(steps)},
        callbacks=lambda stage, remaining_steps: [watch],
        distribute="multiworker",
    )
    np.savez(out, before=watch.before, after=watch.after, times=watch.times)


def pace(found):
    """The median time of a step, in seconds."""
    return round(statistics.median(found["times"][WARM_UP:].tolist()), 4)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
