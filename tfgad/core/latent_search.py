"""AnoGAN's inverse of a generator, compiled: for each image the code that comes closest to it.

Schlegl et al. 2017, sections 2.2 and 2.3: z is moved down the gradient of

    L(z) = (1 - λ) Σ|x - G(z)| + λ Σ|f(x) - f(G(z))|        the residual and the feature loss

with G the generator and f the last hidden layer of the critic, both fixed. The whole search is
tensor arithmetic in one `tf.while_loop`, so it runs inside an exported model as well. All images
and all their restarts are rows of one batch. L is a sum, so the rows do not see each other: what
is found for an image depends on its company by the rounding of matrix products alone. A row that
has converged leaves the batch, so that a step costs what is left to be done.

A model holds its own `compiled_search`. `latent_search` is the same for use inside other graphs.
"""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfgad.errors import UsageError, nearest

POOL_CHUNK = 64  # images of the pool in memory at once
HUBER_DELTA = 0.1  # 5 % of the range of pixels: smaller differences count by their square

# z is standard normal and Adam moves it by about the rate: at 0.001 it stays where it started. The
# mean loss of test images 7 and 8 (MNIST, 28x28) under a DCGAN trained on these digits, d = 20: 138
# at the start; 48 images of 2, 7 and 8 for 200 steps, 32 for 50 and 500.
#
#     rate, cosine       0.001   0.01   0.03   0.05    0.1    0.2
#     loss,  50 steps                         66.1   60.2   57.3
#     loss, 200 steps    101.7   70.2   56.2   53.3   51.7   51.4
#     loss, 500 steps                         49.0   49.0
LEARNING_RATE = 0.1


class SearchOptions(NamedTuple):
    """How to search.

    Attributes:
        steps: Adam steps at most; the paper's number. After an encoder tens will do.
        learning_rate: of Adam, about how far a step moves z; see `LEARNING_RATE`.
        schedule: of the learning rate: `cosine` falls from `learning_rate` to 0, or `constant`.
        feature_weight: λ in [0, 1]; the paper's.
        distance: of pixels and of features: `l1` as published, `l2` (squares), or `huber`
            (squares up to `HUBER_DELTA`, then as `l1` less a constant).
        restarts: starts an image; the best result is kept.
        pool: random codes to choose the starts from, the nearest in pixels; at least `restarts`.
        tolerance: a row has converged when its loss has not fallen by this share of it within
            `patience` steps. At 0 every row takes all `steps`.
        patience: in steps.
        beta_1: of Adam.
        beta_2: of Adam.
        epsilon: of Adam; the loss is a sum over pixels, its gradient large beside it.
        seed: of the pool.
    """

    steps: int = 500
    learning_rate: float = LEARNING_RATE
    schedule: str = "cosine"
    feature_weight: float = 0.1
    distance: str = "l1"
    restarts: int = 1
    pool: int = 256
    tolerance: float = 0.0
    patience: int = 20
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    seed: int = 0


class _State(NamedTuple):
    """The loop's variables: one row for each image and restart, `[N]` or `[N, d]`."""

    step: tf.Tensor  # [], of all rows
    z: tf.Tensor
    m: tf.Tensor  # Adam's first moment
    v: tf.Tensor  # and second
    best_z: tf.Tensor
    best: tf.Tensor  # the loss at best_z, the lowest seen
    reference: tf.Tensor  # the loss that counts as the last improvement
    improved: tf.Tensor  # the step of it
    used: tf.Tensor  # steps taken
    curve: tf.Tensor  # [steps + 1, N], `best` before each step


def search_options(**given) -> SearchOptions:
    """Returns `SearchOptions` with some of them given, by name.

    Raises:
        UsageError: an option that there is not, or one out of its range.
    """
    for name in given:
        if name not in SearchOptions._fields:
            hint = nearest(name, SearchOptions._fields)
            raise UsageError("search option", name, "is not known", hint)
    options = SearchOptions(**given)
    check_options(options)
    return options


def compiled_search(generator, features, latent_dim: int, options: SearchOptions) -> Callable:
    """Returns `latent_search` for given networks as a `tf.function(x, start=None)`.

    It is traced once with and once without `start`, and then once more for another number of
    images, whatever that is. It holds the graphs and, through them, the networks, and nothing else
    holds it: keep it beside the networks. Give it tensors or arrays.

    Raises:
        UsageError: an option out of its range.
    """
    check_options(options)

    def search(x, start=None):
        return _searched(x, generator, features, latent_dim, options, start)

    return tf.function(search, reduce_retracing=True, autograph=False)


def latent_search(x, generator, features, latent_dim, options=SearchOptions(), start=None):  # noqa: B008
    """Finds for each image the code z whose image comes closest.

    For use inside a `tf.function`, whose graph it becomes part of. Called outside of any it
    compiles itself for that one call, which takes longer than most searches: hold a
    `compiled_search` instead.

    Args:
        x: images float32 `[B, h, w, C]`, in the range of the generator's.
        generator: G: codes float32 `[N, d]` to images `[N, h, w, C]`, in inference mode.
        features: f: images to a tensor `[N, ...]`, in inference mode.
        latent_dim: d.
        options: `SearchOptions`.
        start: codes `[B, d]` to start from, an encoder's; `restarts` and `pool` then mean nothing.

    Returns:
        A dict; all float32 but `steps`. Where an image holds NaN its loss is NaN.

        - `latent` `[B, d]`: the best z seen;
        - `generated` `[B, h, w, C]`: G of it;
        - `residual`, `feature` `[B]`: the two sums at it, unweighted;
        - `loss` `[B]`: L, (1 - λ) residual + λ feature;
        - `steps` int32 `[B]`: the steps taken, by the restart that took most;
        - `curve` `[steps + 1, B]`: the lowest loss after so many steps, first that of the start,
          last that of the result; level once an image has converged.

    Raises:
        UsageError: an option out of its range.
    """
    if tf.executing_eagerly():  # step by step the loop would take many times as long
        return compiled_search(generator, features, latent_dim, options)(x, start)
    check_options(options)
    return _searched(x, generator, features, latent_dim, options, start)


def check_options(options: SearchOptions) -> None:
    """Raises UsageError where an option is out of its range."""
    for name, known in (("distance", DISTANCES), ("schedule", SCHEDULES)):
        value = getattr(options, name)
        if value not in known:
            raise UsageError(name, value, "is not known", nearest(str(value), known))
    for name in ("steps", "restarts", "pool", "patience", "seed"):
        value = getattr(options, name)
        if not isinstance(value, Integral):
            raise UsageError(name, value, "is not a whole number", "give one")
    least = {"steps": 0, "restarts": 1, "pool": options.restarts, "patience": 1}
    for name, value in least.items():
        if getattr(options, name) < value:
            raise UsageError(name, getattr(options, name), "too small", f"give at least {value}")
    for name, (allowed, hint) in RANGES.items():
        value = getattr(options, name)
        if not (isinstance(value, Real) and allowed(value)):
            raise UsageError(name, value, "out of range", hint)


def _positive(value):
    return 0 < value < math.inf


def _share(value):
    return 0 <= value < 1


RANGES = {
    "learning_rate": (_positive, "give a finite number above 0"),
    "feature_weight": (lambda weight: 0 <= weight <= 1, "give a share between 0 and 1"),
    "tolerance": (_share, "give at least 0 and less than 1"),
    "beta_1": (_share, "give at least 0 and less than 1"),
    "beta_2": (_share, "give at least 0 and less than 1"),
    "epsilon": (_positive, "give a finite number above 0"),
}


def _searched(x, generator, features, latent_dim, options, start):
    """`latent_search` without its checks: builds its graph."""
    # An image's result must not depend on whether TensorFlow knows the number of images: where it
    # does it computes some constants beforehand, and rounds them otherwise.
    x = tf.cast(x, tf.float32)
    x = tf.compat.v1.placeholder_with_default(x, [None, *x.shape[1:]])
    search = _Search(x, generator, features, options, 1 if start is not None else options.restarts)
    if start is None:
        start = _starts(x, search.generate, latent_dim, options)
    first = search.first(tf.reshape(tf.cast(start, tf.float32), [-1, latent_dim]))
    loop = tf.while_loop(search.unfinished, search.step, [first], maximum_iterations=options.steps)
    return search.conclude(*loop)


def _huber(difference):
    size = tf.abs(difference)
    near = tf.square(difference) / (2 * HUBER_DELTA)
    return tf.where(size < HUBER_DELTA, near, size - HUBER_DELTA / 2)


DISTANCES = {"l1": tf.abs, "l2": tf.square, "huber": _huber}
SCHEDULES = {
    "constant": np.ones_like,
    "cosine": lambda done: (1 + np.cos(np.pi * done)) / 2,  # Loshchilov and Hutter 2017, eq. 5
}


def _starts(x, generate, latent_dim: int, options: SearchOptions):
    """Returns the codes `[B, restarts, d]` of the pool whose images are nearest to each image.

    The pool is the same for all images, so that a result depends on no order.
    """
    pool = tf.random.stateless_normal([options.pool, latent_dim], seed=[options.seed, 0])
    images = tf.shape(x)[0]
    if options.pool == options.restarts:
        return tf.tile(pool[None], [images, 1, 1])
    pixels = tf.reshape(x, [images, math.prod(x.shape[1:])])

    def nearer(codes):
        """‖g‖² - 2 x·g for the images g of codes: ‖x - g‖² less what is the same for all."""
        generated = tf.reshape(generate(codes), [tf.shape(codes)[0], pixels.shape[1]])
        product = tf.matmul(generated, pixels, transpose_b=True)
        return tf.reduce_sum(tf.square(generated), axis=1, keepdims=True) - 2 * product

    whole = options.pool - options.pool % POOL_CHUNK
    distances = []
    if whole:
        chunks = tf.reshape(pool[:whole], [-1, POOL_CHUNK, latent_dim])
        one = tf.TensorSpec([POOL_CHUNK, None], tf.float32)
        each = tf.map_fn(nearer, chunks, parallel_iterations=1, fn_output_signature=one)
        distances.append(tf.reshape(each, [whole, images]))
    if whole < options.pool:
        distances.append(nearer(pool[whole:]))
    distance = tf.transpose(tf.concat(distances, axis=0))
    distance = tf.where(tf.math.is_nan(distance), math.inf, distance)
    return tf.gather(pool, tf.math.top_k(-distance, options.restarts).indices)


def step_table(options: SearchOptions) -> np.ndarray:
    """Returns learning rate, 1 - β₁ᵗ and 1 - β₂ᵗ of each step t = 1..., `[steps, 3]`.

    In float64: 1 - 0.999 has but four digits in float32.
    """
    done = np.arange(options.steps)
    rate = options.learning_rate * SCHEDULES[options.schedule](done / max(options.steps, 1))
    return np.stack(
        [rate, 1 - options.beta_1 ** (done + 1.0), 1 - options.beta_2 ** (done + 1.0)], axis=1
    )


class _Search:
    """The loss of rows, and the loop that lowers it."""

    def __init__(self, x, generator, features, options: SearchOptions, restarts: int):
        self.x, self.generator, self.features, self.options = x, generator, features, options
        self.restarts = restarts
        self.image = tf.repeat(tf.range(tf.shape(x)[0]), restarts)  # of each row
        self.f_x = self.describe(x)  # once: x does not move
        self.of_step = tf.constant(step_table(options), tf.float32)

    def generate(self, z):
        """G(z) in float32, also of a network that computes in half precision."""
        return tf.ensure_shape(tf.cast(self.generator(z), tf.float32), self.x.shape)

    def describe(self, images):
        """The features f in float32, flat."""
        described = tf.cast(self.features(images), tf.float32)
        return tf.reshape(described, [tf.shape(images)[0], math.prod(described.shape[1:])])

    def evaluate(self, z, image):
        """G(z) and the two sums, for codes `[A, d]` against the images of index `[A]`."""
        distance = DISTANCES[self.options.distance]
        generated = self.generate(z)
        residual = tf.reduce_sum(distance(tf.gather(self.x, image) - generated), axis=[1, 2, 3])
        feature = distance(tf.gather(self.f_x, image) - self.describe(generated))
        return generated, residual, tf.reduce_sum(feature, axis=1)

    def weighted(self, residual, feature):
        """L of the two sums."""
        weight = self.options.feature_weight
        return (1 - weight) * residual + weight * feature

    def loss_and_gradient(self, z, image):
        """L `[A]` and ∂L/∂z `[A, d]`: of z alone, no weight's gradient is taken."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            _, residual, feature = self.evaluate(z, image)
            loss = self.weighted(residual, feature)
            total = tf.reduce_sum(loss)
        return loss, tape.gradient(total, z)

    def first(self, z) -> _State:
        """The state before the first step, of codes `[N, d]`."""
        rows = tf.shape(z)[0]
        far, none = tf.fill([rows], math.inf), tf.zeros([rows], tf.int32)
        return _State(
            step=tf.constant(0),
            z=z,
            m=tf.zeros_like(z),
            v=tf.zeros_like(z),
            best_z=z,
            best=far,
            reference=far,
            improved=none,
            used=none,
            curve=tf.zeros([self.options.steps + 1, rows]),
        )

    def active(self, state: _State):
        """Which rows have not converged, bool `[N]`."""
        if not self.options.tolerance:
            return tf.ones_like(state.improved, tf.bool)
        return state.step - state.improved < self.options.patience

    def unfinished(self, state: _State):
        """Whether a row is left."""
        return tf.reduce_any(self.active(state))

    def step(self, state: _State) -> list[_State]:
        """One step of the rows that are left."""
        # Gathered anew in each step: to copy the images is little beside the networks' work.
        rows = tf.where(self.active(state))[:, 0]
        z = tf.gather(state.z, rows)
        loss, gradient = self.loss_and_gradient(z, tf.gather(self.image, rows))
        state = self.noted(state, rows, z, loss)
        z, m, v = self.adam(
            state.step, z, tf.gather(state.m, rows), tf.gather(state.v, rows), gradient
        )
        place = rows[:, None]
        state = state._replace(
            step=state.step + 1,
            z=tf.tensor_scatter_nd_update(state.z, place, z),
            m=tf.tensor_scatter_nd_update(state.m, place, m),
            v=tf.tensor_scatter_nd_update(state.v, place, v),
            used=tf.tensor_scatter_nd_add(state.used, place, tf.ones_like(rows, tf.int32)),
            curve=tf.tensor_scatter_nd_update(state.curve, [[state.step]], state.best[None]),
        )
        return [state]

    def noted(self, state: _State, rows, z, loss) -> _State:
        """The state with what rows `[A]` have reached: codes `[A, d]`, loss `[A]`."""
        best, reference = tf.gather(state.best, rows), tf.gather(state.reference, rows)
        better = loss < best  # never where the loss is NaN
        best = tf.where(better, loss, best)
        best_z = tf.where(better[:, None], z, tf.gather(state.best_z, rows))
        fallen = best < reference * (1 - self.options.tolerance)
        improved = tf.where(fallen, state.step, tf.gather(state.improved, rows))
        reference = tf.where(fallen, best, reference)
        place = rows[:, None]
        return state._replace(
            best=tf.tensor_scatter_nd_update(state.best, place, best),
            best_z=tf.tensor_scatter_nd_update(state.best_z, place, best_z),
            reference=tf.tensor_scatter_nd_update(state.reference, place, reference),
            improved=tf.tensor_scatter_nd_update(state.improved, place, improved),
        )

    def adam(self, step, z, m, v, gradient):
        """Kingma and Ba 2015, algorithm 1, after `step` steps: returns z, m, v."""
        beta_1, beta_2 = self.options.beta_1, self.options.beta_2
        # What is not finite would stay in the moments for good.
        gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * tf.square(gradient)
        rate, m_bias, v_bias = tf.unstack(self.of_step[step])
        return z - rate * (m / m_bias) / (tf.sqrt(v / v_bias) + self.options.epsilon), m, v

    def conclude(self, state: _State) -> dict[str, tf.Tensor]:
        """What `latent_search` returns of the last state."""
        _, residual, feature = self.evaluate(state.z, self.image)  # after the last step
        rows = tf.range(tf.shape(state.z)[0])
        state = self.noted(state, rows, state.z, self.weighted(residual, feature))
        images, restarts = tf.range(tf.shape(self.x)[0]), self.restarts
        best = tf.reshape(state.best, [-1, restarts])
        winner = images * restarts + tf.argmin(best, axis=1, output_type=tf.int32)
        latent = tf.gather(state.best_z, winner)
        generated, residual, feature = self.evaluate(latent, images)
        stopped = tf.range(self.options.steps + 1)[:, None] >= state.used
        curve = tf.where(stopped, state.best, state.curve)
        curve = tf.reshape(curve, [self.options.steps + 1, -1, restarts])
        return {
            "latent": latent,
            "generated": generated,
            "residual": residual,
            "feature": feature,
            "loss": self.weighted(residual, feature),
            "steps": tf.reduce_max(tf.reshape(state.used, [-1, restarts]), axis=1),
            "curve": tf.reduce_min(curve, axis=2),
        }
