"""Latent search of AnoGAN: for each image, the latent code whose generated image is nearest.

Schlegl et al. 2017, sections 2.2 and 2.3: gradient descent on z minimizes

    L(z) = (1 - λ) Σ|x - G(z)| + λ Σ|f(x) - f(G(z))|        the residual and the feature loss

with G the generator and f the last hidden layer of the critic, both fixed.

The whole search is tensor arithmetic in one `tf.while_loop`, so it also runs inside an exported
model. All images and all their restarts are rows of one batch. L of a row depends on its own z
alone, so rows do not influence each other: an image's result depends on the rest of its batch only
by the rounding of matrix products. A row that has converged leaves the batch, so later steps are
cheaper.

A model holds a `compiled_search`. `latent_search` is the same for use inside other graphs. Settings
are in `search_options.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfgad.core.search_options import DISTANCES, SearchOptions, check_pool, step_table

POOL_CHUNK = 64  # images of the pool in memory at once

Network = Callable[[tf.Tensor], tf.Tensor]


def compiled_search(
    generator: Network, features: Network, latent_dim: int, options: SearchOptions
) -> Callable[..., dict[str, tf.Tensor]]:
    """Returns `latent_search` of the given networks as a `tf.function(x, start=None)`.

    It is traced once with and once without `start`, and once more when the number of images
    changes for the first time. It holds the graphs and, through them, the networks. Nothing else
    holds it: keep it beside the networks. It takes tensors or arrays.

    Raises:
        UsageError: `pool` is smaller than `restarts`.
    """
    check_pool(options)

    def search(
        x: tf.Tensor | np.ndarray, start: tf.Tensor | np.ndarray | None = None
    ) -> dict[str, tf.Tensor]:
        return _search(x, generator, features, latent_dim, options, start)

    return tf.function(search, reduce_retracing=True, autograph=False)


def latent_search(
    x: tf.Tensor,
    generator: Network,
    features: Network,
    latent_dim: int,
    options: SearchOptions = SearchOptions(),  # noqa: B008
    start: tf.Tensor | None = None,
) -> dict[str, tf.Tensor]:
    """Finds for each image the code z that minimizes L(z).

    For use inside a `tf.function`, whose graph it becomes part of. Called eagerly it compiles
    itself for that one call, which takes longer than most searches: hold a `compiled_search`
    instead.

    Args:
        x: images float32 `[B, h, w, C]`, in the range of the generator's.
        generator: G: codes float32 `[N, d]` to images `[N, h, w, C]`, in inference mode.
        features: f: images to a tensor `[N, ...]`, in inference mode.
        latent_dim: d.
        options: settings of the search.
        start: codes `[B, d]` to start from, such as an encoder's. `restarts` and `pool` are then
            ignored.

    Returns:
        A dict, float32 except for `steps`. The loss of an image that holds NaN is NaN.

        - `latent` `[B, d]`: the best z;
        - `generated` `[B, h, w, C]`: G(z);
        - `residual`, `feature` `[B]`: the two sums at z, unweighted;
        - `loss` `[B]`: L(z), (1 - λ) residual + λ feature;
        - `steps` int32 `[B]`: the steps taken, the largest number over the restarts;
        - `curve` `[steps + 1, B]`: the lowest loss after each number of steps, from the start to
          the result. It is constant once an image has converged.

    Raises:
        UsageError: `pool` is smaller than `restarts`.
    """
    if tf.executing_eagerly():  # an eager loop would take many times as long
        return compiled_search(generator, features, latent_dim, options)(x, start)
    check_pool(options)
    return _search(x, generator, features, latent_dim, options, start)


def _search(
    x: tf.Tensor | np.ndarray,
    generator: Network,
    features: Network,
    latent_dim: int,
    options: SearchOptions,
    start: tf.Tensor | np.ndarray | None,
) -> dict[str, tf.Tensor]:
    """Builds the graph of `latent_search`."""
    # An image's result must not depend on whether TensorFlow knows the number of images: where it
    # does, it folds some constants, and they are rounded differently.
    x = tf.cast(x, tf.float32)
    x = tf.compat.v1.placeholder_with_default(x, [None, *x.shape[1:]])
    search = _Search(x, generator, features, options, 1 if start is not None else options.restarts)
    if start is None:
        start = _starts(x, search.generate, latent_dim, options)
    state = search.initial_state(tf.reshape(tf.cast(start, tf.float32), [-1, latent_dim]))
    (state,) = tf.while_loop(
        search.is_unfinished, search.step, [state], maximum_iterations=options.steps
    )
    return search.result(state)


def _starts(x: tf.Tensor, generate: Network, latent_dim: int, options: SearchOptions) -> tf.Tensor:
    """Returns the codes `[B, restarts, d]` of the pool whose images are nearest to each image.

    All images share one pool, so a result does not depend on the order of the images.
    """
    pool = tf.random.stateless_normal([options.pool, latent_dim], seed=[options.seed, 0])
    images = tf.shape(x)[0]
    if options.pool == options.restarts:
        return tf.tile(pool[None], [images, 1, 1])
    pixels = tf.reshape(x, [images, math.prod(x.shape[1:])])

    def distances_of(codes: tf.Tensor) -> tf.Tensor:
        """‖g‖² - 2 x·g for the images g of codes: ‖x - g‖² without ‖x‖², which is constant."""
        generated = tf.reshape(generate(codes), [tf.shape(codes)[0], pixels.shape[1]])
        product = tf.matmul(generated, pixels, transpose_b=True)
        return tf.reduce_sum(tf.square(generated), axis=1, keepdims=True) - 2 * product

    in_chunks = options.pool - options.pool % POOL_CHUNK
    distances = []
    if in_chunks:
        chunks = tf.reshape(pool[:in_chunks], [-1, POOL_CHUNK, latent_dim])
        spec = tf.TensorSpec([POOL_CHUNK, None], tf.float32)
        each = tf.map_fn(distances_of, chunks, parallel_iterations=1, fn_output_signature=spec)
        distances.append(tf.reshape(each, [in_chunks, images]))
    if in_chunks < options.pool:
        distances.append(distances_of(pool[in_chunks:]))
    distance = tf.transpose(tf.concat(distances, axis=0))
    distance = tf.where(tf.math.is_nan(distance), math.inf, distance)
    return tf.gather(pool, tf.math.top_k(-distance, options.restarts).indices)


class _State(NamedTuple):
    """The loop's variables, one row per image and restart: `[N]` or `[N, d]`."""

    step: tf.Tensor  # [], the same for all rows
    z: tf.Tensor
    m: tf.Tensor  # Adam's first moment
    v: tf.Tensor  # Adam's second moment
    best_z: tf.Tensor
    best: tf.Tensor  # the loss at best_z, the lowest so far
    reference: tf.Tensor  # the loss at the last improvement by `tolerance`
    improved_at: tf.Tensor  # the step of that improvement
    steps_taken: tf.Tensor
    curve: tf.Tensor  # [steps + 1, N], `best` before each step


class _Search:
    """The loss of codes, and the loop that minimizes it.

    Args:
        x: images `[B, h, w, C]`.
        generator: G.
        features: f.
        options: settings of the search.
        restarts: rows per image.
    """

    def __init__(
        self,
        x: tf.Tensor,
        generator: Network,
        features: Network,
        options: SearchOptions,
        restarts: int,
    ):
        self.x, self.generator, self.features, self.options = x, generator, features, options
        self.restarts = restarts
        self.image_of_row = tf.repeat(tf.range(tf.shape(x)[0]), restarts)
        self.f_x = self.feature_vectors(x)  # x is fixed, so once is enough
        self.step_table = tf.constant(step_table(options), tf.float32)

    def generate(self, z: tf.Tensor) -> tf.Tensor:
        """G(z) in float32, also if the network computes in half precision."""
        return tf.ensure_shape(tf.cast(self.generator(z), tf.float32), self.x.shape)

    def feature_vectors(self, images: tf.Tensor) -> tf.Tensor:
        """The features f in float32, flattened: `[N, K]`."""
        features = tf.cast(self.features(images), tf.float32)
        return tf.reshape(features, [tf.shape(images)[0], math.prod(features.shape[1:])])

    def evaluate(self, z: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """G(z), residual and feature sum of codes `[A, d]` for the images with index `[A]`."""
        distance = DISTANCES[self.options.distance]
        generated = self.generate(z)
        residual = tf.reduce_sum(distance(tf.gather(self.x, image) - generated), axis=[1, 2, 3])
        feature = distance(tf.gather(self.f_x, image) - self.feature_vectors(generated))
        return generated, residual, tf.reduce_sum(feature, axis=1)

    def loss(self, residual: tf.Tensor, feature: tf.Tensor) -> tf.Tensor:
        """L, the weighted sum of residual and feature sum."""
        weight = self.options.feature_weight
        return (1 - weight) * residual + weight * feature

    def loss_and_gradient(self, z: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """L `[A]` and ∂L/∂z `[A, d]`; gradients of weights are not computed."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            _, residual, feature = self.evaluate(z, image)
            loss = self.loss(residual, feature)
            total = tf.reduce_sum(loss)
        return loss, tape.gradient(total, z)

    def initial_state(self, z: tf.Tensor) -> _State:
        """The state before the first step, with codes `[N, d]`."""
        rows = tf.shape(z)[0]
        infinity, zeros = tf.fill([rows], math.inf), tf.zeros([rows], tf.int32)
        return _State(
            step=tf.constant(0),
            z=z,
            m=tf.zeros_like(z),
            v=tf.zeros_like(z),
            best_z=z,
            best=infinity,
            reference=infinity,
            improved_at=zeros,
            steps_taken=zeros,
            curve=tf.zeros([self.options.steps + 1, rows]),
        )

    def is_active(self, state: _State) -> tf.Tensor:
        """Whether each row has not converged yet, bool `[N]`."""
        if not self.options.tolerance:
            return tf.ones_like(state.improved_at, tf.bool)
        return state.step - state.improved_at < self.options.patience

    def is_unfinished(self, state: _State) -> tf.Tensor:
        """Whether any row is active, bool `[]`."""
        return tf.reduce_any(self.is_active(state))

    def step(self, state: _State) -> list[_State]:
        """One step of the active rows."""
        # Images are gathered in each step: a copy is cheap beside the networks.
        rows = tf.where(self.is_active(state))[:, 0]
        z = tf.gather(state.z, rows)
        loss, gradient = self.loss_and_gradient(z, tf.gather(self.image_of_row, rows))
        state = self.with_best(state, rows, z, loss)
        z, m, v = self.adam(
            state.step, z, tf.gather(state.m, rows), tf.gather(state.v, rows), gradient
        )
        index, ones = rows[:, None], tf.ones_like(rows, tf.int32)
        state = state._replace(
            step=state.step + 1,
            z=tf.tensor_scatter_nd_update(state.z, index, z),
            m=tf.tensor_scatter_nd_update(state.m, index, m),
            v=tf.tensor_scatter_nd_update(state.v, index, v),
            steps_taken=tf.tensor_scatter_nd_add(state.steps_taken, index, ones),
            curve=tf.tensor_scatter_nd_update(state.curve, [[state.step]], state.best[None]),
        )
        return [state]

    def with_best(self, state: _State, rows: tf.Tensor, z: tf.Tensor, loss: tf.Tensor) -> _State:
        """Returns the state with the best codes updated.

        Args:
            state: before.
            rows: indices `[A]` of the rows that were evaluated.
            z: their codes `[A, d]`.
            loss: L at these codes, `[A]`.
        """
        best, reference = tf.gather(state.best, rows), tf.gather(state.reference, rows)
        is_better = loss < best  # False where the loss is NaN
        best = tf.where(is_better, loss, best)
        best_z = tf.where(is_better[:, None], z, tf.gather(state.best_z, rows))
        has_improved = best < reference * (1 - self.options.tolerance)
        improved_at = tf.where(has_improved, state.step, tf.gather(state.improved_at, rows))
        reference = tf.where(has_improved, best, reference)
        index = rows[:, None]
        return state._replace(
            best=tf.tensor_scatter_nd_update(state.best, index, best),
            best_z=tf.tensor_scatter_nd_update(state.best_z, index, best_z),
            reference=tf.tensor_scatter_nd_update(state.reference, index, reference),
            improved_at=tf.tensor_scatter_nd_update(state.improved_at, index, improved_at),
        )

    def adam(
        self, step: tf.Tensor, z: tf.Tensor, m: tf.Tensor, v: tf.Tensor, gradient: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """z, m and v after one more step than `step` (Kingma and Ba 2015, algorithm 1)."""
        beta_1, beta_2 = self.options.beta_1, self.options.beta_2
        # NaN and infinity would stay in the moments.
        gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * tf.square(gradient)
        rate, m_bias, v_bias = tf.unstack(self.step_table[step])
        return z - rate * (m / m_bias) / (tf.sqrt(v / v_bias) + self.options.epsilon), m, v

    def result(self, state: _State) -> dict[str, tf.Tensor]:
        """What `latent_search` returns, from the state after the last step."""
        _, residual, feature = self.evaluate(state.z, self.image_of_row)
        rows = tf.range(tf.shape(state.z)[0])
        state = self.with_best(state, rows, state.z, self.loss(residual, feature))
        images, restarts = tf.range(tf.shape(self.x)[0]), self.restarts
        best = tf.reshape(state.best, [-1, restarts])
        best_row = images * restarts + tf.argmin(best, axis=1, output_type=tf.int32)
        latent = tf.gather(state.best_z, best_row)
        generated, residual, feature = self.evaluate(latent, images)
        has_stopped = tf.range(self.options.steps + 1)[:, None] >= state.steps_taken
        curve = tf.where(has_stopped, state.best, state.curve)
        curve = tf.reshape(curve, [self.options.steps + 1, -1, restarts])
        return {
            "latent": latent,
            "generated": generated,
            "residual": residual,
            "feature": feature,
            "loss": self.loss(residual, feature),
            "steps": tf.reduce_max(tf.reshape(state.steps_taken, [-1, restarts]), axis=1),
            "curve": tf.reduce_min(curve, axis=2),
        }
