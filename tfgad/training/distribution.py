"""One training on several devices or machines, over `tf.distribute`.

Every replica takes its part of each batch, and all apply the same gradients to the same weights: N
replicas end where one would end with the same batch. Three places make it so:

- a loss is a mean over the part of one replica, and gradients are summed over replicas: a model
  divides them by N where it applies them (`Trained.minimize`);
- noise is drawn for the whole batch, and each replica takes its part (`Trained.random_normal`);
- batch normalisation uses the statistics of the part, and averages the moving statistics over all
  replicas (`tfgad.networks.layers.BatchNormalization`).

Workers on several machines find each other by TensorFlow's environment variable TF_CONFIG. The
first is the chief. It alone writes the folder of the run, from which all of them resume: the folder
must be on a file system that all can read.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from tfgad.core.trained import Trained
from tfgad.errors import UsageError, first_line, nearest

ALONE, MIRRORED, MULTIWORKER = STRATEGIES = ("alone", "mirrored", "multiworker")
TF_CONFIG = "TF_CONFIG"
EXAMPLE = (
    '{"cluster": {"worker": ["host1:9000", "host2:9000"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train one model.

    Attributes:
        strategy: TensorFlow's distribution strategy.
        worker: number of this process.
        workers: number of processes.
    """

    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)
    worker: int = 0
    workers: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the folder of the run."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """Number of parts of a batch."""
        return self.strategy.num_replicas_in_sync

    @property
    def is_distributed(self) -> bool:
        """Whether weights made in the strategy's scope are distributed, even on one device."""
        return self.strategy is not tf.distribute.get_strategy()

    def check_batch(self, batch_size: int, name: str = "batch_size") -> None:
        """Raises UsageError unless a batch has equal parts for all replicas."""
        if batch_size % self.replicas:
            problem = f"cannot be divided among {self.replicas} replicas"
            raise UsageError(name, batch_size, problem, "give a multiple (--set)")

    def broadcast(self, number: int) -> int:
        """Returns the chief's number in all processes; returns once all have called it."""
        if self.workers == 1:
            return int(number)
        return int(self._sum(number if self.is_chief else 0))

    def barrier(self) -> None:
        """Waits until all processes have called it: one that ends before looks lost to others."""
        self.broadcast(0)

    def check_same_step(self, step: int) -> None:
        """Raises UsageError unless all processes continue from the same step."""
        if self.workers > 1 and self._sum(step != self.broadcast(step)):
            hint = "give --out on a file system that all workers share"
            raise UsageError("out", f"step {step}", "is not where the other workers are", hint)

    def _sum(self, number: float) -> int:
        def one() -> tf.Tensor:
            value = tf.constant(float(number))
            return tf.distribute.get_replica_context().all_reduce("sum", value)

        total = self.strategy.experimental_local_results(self.strategy.run(tf.function(one)))[0]
        local = len(self.strategy.extended.worker_devices)
        return round(float(total) / local)

    def prepared(self, model: Trained) -> Trained:
        """Returns a model that was made in the strategy's scope, ready for `fit` in all workers."""
        if self.workers > 1:
            model.train_step = _with_ranked_logs(model.train_step)
        return model


def connect(distribute: str) -> Cluster:
    """Returns the processes that share a training; among several it waits for all of them.

    Args:
        distribute: `alone`; `mirrored`, for all GPUs of this machine, or its one CPU;
            `multiworker`, for the processes that TF_CONFIG names.

    Raises:
        UsageError: no such strategy; TF_CONFIG is missing or wrong; or TensorFlow has computed
            something already, and can no longer connect to other workers.
    """
    if distribute not in STRATEGIES:
        hint = nearest(distribute, STRATEGIES)
        raise UsageError("distribute", distribute, "is not known", hint)
    if distribute == ALONE:
        return Cluster()
    if distribute == MIRRORED:
        return Cluster(tf.distribute.MirroredStrategy())
    worker, workers = _task()
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError) as error:
        hint = "connect before anything else is computed, at an address that is free"
        problem = f"cannot connect ({first_line(error)})"
        raise UsageError("distribute", distribute, problem, hint) from error
    return Cluster(strategy, worker, workers)


@contextmanager
def raise_on_lost_worker() -> Iterator[None]:
    """Turns the errors that TensorFlow raises when another worker is lost into a UsageError."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError) as error:
        if "ollective" not in str(error) and "worker" not in str(error):
            raise
        hint = "start all workers again with --resume"
        raise UsageError("distribute", MULTIWORKER, "has lost a worker", hint) from error


def _task() -> tuple[int, int]:
    """Reads the number of this worker, and how many there are, from TF_CONFIG."""
    text = os.environ.get(TF_CONFIG, "")
    hint = f"set it on each worker, such as {EXAMPLE}"
    if not text:
        raise UsageError(TF_CONFIG, "", "is not set", hint)
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        index = int(task["index"])
        is_known = task["type"] == "worker" and 0 <= index < len(workers)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(TF_CONFIG, text, "cannot be understood", hint) from error
    if not is_known or set(config["cluster"]) != {"worker"}:
        raise UsageError(TF_CONFIG, text, "does not name this process as a worker", hint)
    return index, len(workers)


def _with_ranked_logs(
    train_step: Callable[[Any], dict[str, tf.Tensor]],
) -> Callable[[Any], dict[str, tf.Tensor]]:
    """Gives logs an axis: among workers Keras averages over the first, and fails on scalars."""

    def ranked(batch: Any) -> dict[str, tf.Tensor]:
        return {name: value[None] for name, value in train_step(batch).items()}

    return ranked
