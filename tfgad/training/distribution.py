"""One training shared by several devices, or by several machines, over `tf.distribute`.

Every replica takes its part of each batch, and all move the same weights by the same gradients, so
that N of them end where one would with the same batch. What makes it so is spread thin:

- a loss is a mean over a replica's part, and gradients are summed over replicas: they are divided
  by N where a model applies them (`Trained.minimize`);
- noise is drawn for the whole batch, and each replica takes its part (`Trained.noise`);
- batch normalisation normalises by the part's statistics and averages those of all parts
  (`tfgad.networks.layers.BatchNormalization`).

Workers on several machines are told of each other by the environment variable TF_CONFIG, as
TensorFlow has it. The first is the chief: it alone writes the run's folder, from which all resume,
so that the folder must be one that all can read.
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
from tfgad.errors import UsageError, nearest

ALONE, MIRRORED, MULTIWORKER = "alone", "mirrored", "multiworker"
WAYS = (ALONE, MIRRORED, MULTIWORKER)
TF_CONFIG = "TF_CONFIG"
EXAMPLE = (
    '{"cluster": {"worker": ["host1:9000", "host2:9000"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True)
class Team:
    """Those who share a training.

    Attributes:
        strategy: TensorFlow's.
        worker: this one's number.
        workers: how many processes there are.
    """

    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)
    worker: int = 0
    workers: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run's folder."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """How many parts a batch has."""
        return self.strategy.num_replicas_in_sync

    @property
    def is_distributed(self) -> bool:
        """Whether weights made in the strategy's scope are its own, even on one device."""
        return self.strategy is not tf.distribute.get_strategy()

    def check_batch(self, batch_size: int) -> None:
        """Raises UsageError unless a batch can be shared equally."""
        if batch_size % self.replicas:
            problem = f"cannot be shared by {self.replicas} replicas"
            raise UsageError("batch_size", batch_size, problem, "give a multiple (--set)")

    def agreed(self, number: int) -> int:
        """Returns the chief's number, in all processes; all must come here before one leaves."""
        if self.workers == 1:
            return number
        return int(self._sum(number if self.is_chief else 0))

    def wait(self) -> None:
        """Returns when all processes have come here: who leaves early looks lost to the others."""
        self.agreed(0)

    def check_together(self, step: int) -> None:
        """Raises UsageError unless all processes go on from the same step."""
        if self.workers > 1 and self._sum(step != self.agreed(step)):
            hint = "give --out on a file system that all workers share"
            raise UsageError("out", f"step {step}", "is not where the other workers are", hint)

    def _sum(self, number: int) -> int:
        def one():
            value = tf.constant(float(number))
            return tf.distribute.get_replica_context().all_reduce("sum", value)

        total = self.strategy.experimental_local_results(self.strategy.run(tf.function(one)))[0]
        local = len(self.strategy.extended.worker_devices)
        return round(float(total) / local)

    def sharing(self, model: Trained) -> Trained:
        """Returns the model, which is of this team's scope, ready for `fit`."""
        if self.workers > 1:
            model.train_step = _with_ranked_logs(model.train_step)
        return model


def join(way: str) -> Team:
    """Makes or joins a team. Among several workers it waits for all of them.

    Args:
        way: `alone`; `mirrored`, for all GPUs of this machine, or its one CPU; `multiworker`, for
            the processes that TF_CONFIG names.

    Raises:
        UsageError: no such way, TF_CONFIG missing or wrong, or TensorFlow was in use before: it
            must be told of other workers first.
    """
    if way not in WAYS:
        raise UsageError("distribute", way, "is not known", nearest(way, WAYS))
    if way == ALONE:
        return Team()
    if way == MIRRORED:
        return Team(tf.distribute.MirroredStrategy())
    worker, workers = _place()
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError) as error:
        hint = "join before anything else is computed, at an address that is free"
        problem = f"cannot be joined ({str(error).splitlines()[0]})"
        raise UsageError("distribute", way, problem, hint) from error
    return Team(strategy, worker, workers)


@contextmanager
def raise_on_lost_worker() -> Iterator[None]:
    """Turns TensorFlow's errors into a UsageError where another worker has gone."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError) as error:
        if "ollective" not in str(error) and "worker" not in str(error):
            raise
        hint = "start all workers again with --resume"
        raise UsageError("distribute", MULTIWORKER, "has lost a worker", hint) from error


def _place() -> tuple[int, int]:
    """Reads this worker's number, and how many there are, from TF_CONFIG."""
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
        raise UsageError(TF_CONFIG, text, "does not name this one of its workers", hint)
    return index, len(workers)


def _with_ranked_logs(train_step: Callable[[Any], dict]) -> Callable[[Any], dict]:
    """Gives logs an axis: among workers Keras averages over the first, and fails on scalars."""

    def ranked(batch):
        return {name: value[None] for name, value in train_step(batch).items()}

    return ranked
