"""Settings of the latent search in `latent_search.py`: distances, schedules and their ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.errors import UsageError

HUBER_DELTA = 0.1  # 5 % of the range of pixels: smaller differences count by their square

# z is standard normal and Adam moves it by about the rate per step: at 0.001 it hardly moves.
# Measured: the mean loss of test images 7 and 8 (MNIST, 28x28) under a DCGAN trained on these
# digits, d = 20. It is 138 at the start. Runs of 200 steps have 48 images of 2, 7 and 8, runs of 50
# and 500 steps have 32.
#
#     rate, cosine       0.001   0.01   0.03   0.05    0.1    0.2
#     loss,  50 steps                         66.1   60.2   57.3
#     loss, 200 steps    101.7   70.2   56.2   53.3   51.7   51.4
#     loss, 500 steps                         49.0   49.0
LEARNING_RATE = 0.1


def huber(difference: tf.Tensor) -> tf.Tensor:
    """Huber loss of each element, divided by `HUBER_DELTA`: its slope far from 0 is 1."""
    size = tf.abs(difference)
    near = tf.square(difference) / (2 * HUBER_DELTA)
    return tf.where(size < HUBER_DELTA, near, size - HUBER_DELTA / 2)


DISTANCES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "l1": tf.abs,
    "l2": tf.square,
    "huber": huber,
}
# The learning rate's factor by the share of the steps that are done.
SCHEDULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "constant": np.ones_like,
    "cosine": lambda done: (1 + np.cos(np.pi * done)) / 2,  # Loshchilov and Hutter 2017, eq. 5
}


@dataclass(frozen=True)
class SearchOptions:
    """Settings of `latent_search`. Types and ranges are checked when it is made.

    Attributes:
        steps: the largest number of Adam steps, 500 in the paper. After an encoder tens are enough.
        learning_rate: of Adam, about how far one step moves z; see `LEARNING_RATE`.
        schedule: of the learning rate: `cosine` falls from `learning_rate` to 0, or `constant`.
        feature_weight: λ in [0, 1], 0.1 in the paper.
        distance: of pixels and of features: `l1` as in the paper, `l2` (squares), or `huber`
            (squares up to `HUBER_DELTA`, then `l1` less a constant).
        restarts: starts per image; the best result is kept.
        pool: number of random codes; a search starts from those nearest in pixels. At least
            `restarts`.
        tolerance: a search has converged when its loss has not fallen by this share within
            `patience` steps. At 0 every search takes all `steps`.
        patience: in steps.
        beta_1: of Adam.
        beta_2: of Adam.
        epsilon: of Adam. The loss is a sum over pixels, so its gradient is much larger.
        seed: of the pool.
    """

    steps: Annotated[int, Field(ge=0, le=1_000_000_000)] = 500
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = LEARNING_RATE
    schedule: Literal["cosine", "constant"] = "cosine"
    feature_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    distance: Literal["l1", "l2", "huber"] = "l1"
    restarts: Annotated[int, Field(ge=1, le=1000)] = 1
    pool: Annotated[int, Field(ge=1, le=65_536)] = 256
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    patience: Annotated[int, Field(ge=1, le=100_000)] = 20
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-8
    seed: int = 0


def check_pool(options: SearchOptions) -> None:
    """Raises UsageError if the pool has fewer codes than there are restarts."""
    if options.pool < options.restarts:
        hint = f"give at least {options.restarts}, or fewer restarts"
        raise UsageError("pool", options.pool, "is smaller than the number of restarts", hint)


def step_table(options: SearchOptions) -> np.ndarray:
    """Returns learning rate, 1 - β₁ᵗ and 1 - β₂ᵗ of each step t = 1..., `[steps, 3]`.

    They are computed in float64: in float32, 1 - 0.999 has only four correct digits.
    """
    done = np.arange(options.steps)
    rate = options.learning_rate * SCHEDULES[options.schedule](done / max(options.steps, 1))
    return np.stack(
        [rate, 1 - options.beta_1 ** (done + 1.0), 1 - options.beta_2 ** (done + 1.0)], axis=1
    )
