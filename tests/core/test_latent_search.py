"""The latent search: its loss, Adam, starts, convergence and graph."""

import dataclasses
import functools
import gc
import math
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad.core.latent_search import compiled_search, latent_search
from tfgad.core.search_options import HUBER_DELTA, SearchOptions
from tfgad.core.settings import parse
from tfgad.errors import UsageError

SIDE, LATENT = 6, 4
SMALL = SearchOptions(steps=30, pool=8)


class Linear:
    """G(z) = Az as images, f(x) = Bx; counts the rows that G has generated.

    Searches of the same options are compiled once.
    """

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.a = rng.normal(size=(LATENT, SIDE * SIDE)).astype("float32")
        self.b = rng.normal(size=(SIDE * SIDE, 5)).astype("float32")
        self.rows = tf.Variable(0)
        self.traces = 0

        def generator(z):
            self.traces += 1
            self.rows.assign_add(tf.shape(z)[0])
            return tf.reshape(z @ self.a, [-1, SIDE, SIDE, 1])

        self.generator = generator
        self.features = lambda x: tf.reshape(x, [-1, SIDE * SIDE]) @ self.b
        self.compiled = functools.cache(
            functools.partial(compiled_search, self.generator, self.features, LATENT)
        )

    def search(self, x, options, start=None):
        return self.compiled(options)(x, start)

    def loss(self, x, z, weight):
        """The paper's loss in NumPy, its residual and its feature sum."""
        difference = np.reshape(x, (len(x), -1)) - z @ self.a
        residual, feature = abs(difference).sum(1), abs(difference @ self.b).sum(1)
        return (1 - weight) * residual + weight * feature, residual, feature


@pytest.fixture
def linear():
    return Linear()


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(5, SIDE, SIDE, 1)).astype("float32")


@pytest.fixture(scope="module")
def networks():
    """A small untrained generator and critic, with convolutions and batch normalisation."""
    keras.utils.set_random_seed(0)
    latent = keras.Input((LATENT,))
    h = keras.layers.Reshape((4, 4, 8))(keras.layers.Dense(4 * 4 * 8)(latent))
    h = keras.layers.LeakyReLU()(keras.layers.BatchNormalization()(h))
    h = keras.layers.Conv2DTranspose(1, 4, 2, "same", activation="tanh")(h)
    images = keras.Input((8, 8, 1))
    f = keras.layers.LeakyReLU()(keras.layers.Conv2D(8, 4, 2, "same")(images))
    return keras.Model(latent, h), keras.Model(images, f)


@pytest.fixture(scope="module")
def callables(networks):
    generator, critic = networks
    return lambda z: generator(z, training=False), lambda x: critic(x, training=False)


@pytest.fixture(scope="module")
def compiled(callables):
    """A function from options to the compiled search of these networks, cached."""
    return functools.cache(functools.partial(compiled_search, *callables, LATENT))


@pytest.fixture(scope="module")
def pictures(callables):
    """Seven images `[7, 8, 8, 1]`: five generated ones, two of noise."""
    rng = np.random.default_rng(2)
    near = callables[0](tf.constant(rng.normal(size=(5, LATENT)), tf.float32))
    return np.concatenate([near, rng.uniform(-1, 1, (2, 8, 8, 1))]).astype("float32")


def same(a, b, names=("latent", "loss", "curve"), rtol=1e-4):
    for name in names:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=rtol, err_msg=name)


# The result


def test_search_solves_least_squares(linear, x):
    found = linear.search(x, SearchOptions(distance="l2", feature_weight=0.0))
    expected, *_ = np.linalg.lstsq(linear.a.T, x.reshape(len(x), -1).T, rcond=None)
    np.testing.assert_allclose(found["latent"], expected.T, atol=2e-3)


def test_code_of_a_generated_image_is_recovered(linear):
    z = np.random.default_rng(3).normal(size=(3, LATENT)).astype("float32")
    found = linear.search(linear.generator(z), SearchOptions())
    np.testing.assert_allclose(found["latent"], z, atol=0.01)
    np.testing.assert_allclose(found["generated"], linear.generator(z), atol=0.02)


def test_values_of_the_result_agree(linear, x):
    found = linear.search(x, dataclasses.replace(SMALL, restarts=2))
    loss, residual, feature = linear.loss(x, found["latent"].numpy(), weight=0.1)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(found["residual"], residual, rtol=1e-5)
    np.testing.assert_allclose(found["feature"], feature, rtol=1e-5)
    np.testing.assert_allclose(found["generated"], linear.generator(found["latent"]), rtol=1e-5)
    np.testing.assert_allclose(found["curve"][-1], loss, rtol=1e-5)
    assert (np.diff(found["curve"], axis=0) <= 1e-5).all()


# The loss and Adam, by hand


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
def test_loss_of_a_given_code(weight):
    # G(z) = (z, 2z), f(x) = 3 x₁: x = (1, 1), z = 0.5 gives differences (0.5, 0) and 1.5.
    def generator(z):
        return tf.reshape(tf.concat([z, 2 * z], axis=1), [-1, 1, 2, 1])

    options = SearchOptions(steps=0, feature_weight=weight)
    x = tf.ones([1, 1, 2, 1])
    found = latent_search(x, generator, lambda x: 3 * x[:, 0, :1, 0], 1, options, [[0.5]])
    assert float(found["residual"][0]) == pytest.approx(0.5)
    assert float(found["feature"][0]) == pytest.approx(1.5)
    assert float(found["loss"][0]) == pytest.approx((1 - weight) * 0.5 + weight * 1.5)
    assert found["steps"].numpy().tolist() == [0]


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("l1", 0.05 + 2.0),
        ("l2", 0.05**2 + 2.0**2),
        ("huber", 0.05**2 / (2 * HUBER_DELTA) + 2.0 - HUBER_DELTA / 2),
    ],
)
def test_distances(distance, expected):
    options = SearchOptions(steps=0, distance=distance, feature_weight=0.0)
    x = tf.reshape([0.05, -2.0], [1, 1, 2, 1])
    found = latent_search(x, lambda z: 0 * tf.reshape(z, [-1, 1, 2, 1]), tf.identity, 2, options)
    assert float(found["residual"][0]) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_two_steps_of_adam(schedule):
    # L = (3 - z)², of which the gradient is -2 (3 - z).
    options = SearchOptions(
        steps=2, learning_rate=0.5, schedule=schedule, distance="l2", feature_weight=0.0
    )
    x = tf.fill([1, 1, 1, 1], 3.0)
    found = latent_search(
        x, lambda z: tf.reshape(z, [-1, 1, 1, 1]), tf.identity, 1, options, [[1.0]]
    )
    z, m, v, losses = 1.0, 0.0, 0.0, [4.0]
    for step in (1, 2):
        gradient = -2 * (3 - z)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        rate = 0.5 * (1 if schedule == "constant" else (1, 0.5)[step - 1])
        z -= rate * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.999**step)) + 1e-8)
        losses.append((3 - z) ** 2)
    np.testing.assert_allclose(found["latent"], [[z]], rtol=1e-5)
    np.testing.assert_allclose(found["curve"][:, 0], losses, rtol=1e-5)


def test_best_code_is_returned_not_the_last(linear, x):
    wild = SearchOptions(steps=40, learning_rate=3.0, schedule="constant", pool=8)
    found = linear.search(x, wild)
    assert (found["loss"] <= found["curve"][0]).numpy().all()
    loss, *_ = linear.loss(x, found["latent"].numpy(), weight=0.1)
    np.testing.assert_allclose(loss, found["curve"].numpy().min(axis=0), rtol=1e-5)


# Starts


def test_search_starts_from_the_nearest_codes_of_the_pool(linear, x):
    found = linear.search(x, SearchOptions(steps=0, pool=150, restarts=1))
    pool = tf.random.stateless_normal([150, LATENT], [0, 0]).numpy()
    distance = np.square(x.reshape(5, 1, -1) - pool @ linear.a).sum(-1)
    np.testing.assert_array_equal(found["latent"], pool[distance.argmin(axis=1)])


def test_pool_of_one_code_is_a_random_start(linear, x):
    found = linear.search(x, SearchOptions(steps=0, pool=1, seed=7))
    start = tf.random.stateless_normal([1, LATENT], [7, 0])
    np.testing.assert_array_equal(found["latent"], np.repeat(start, 5, axis=0))


def test_more_restarts_never_give_a_higher_loss(compiled, pictures):
    one = compiled(SMALL)(pictures)
    four = compiled(dataclasses.replace(SMALL, restarts=4))(pictures)
    assert (four["loss"] <= one["loss"] * (1 + 1e-5)).numpy().all()
    assert (four["loss"] < one["loss"] * 0.999).numpy().any()


def test_search_starts_from_given_codes(linear, x):
    start = np.random.default_rng(4).normal(size=(5, LATENT)).astype("float32")
    found = linear.search(x, dataclasses.replace(SMALL, restarts=3), start)
    loss, *_ = linear.loss(x, start, weight=0.1)
    np.testing.assert_allclose(found["curve"][0], loss, rtol=1e-5)
    assert (found["loss"] < loss).numpy().all()


def test_nearer_start_gives_a_lower_loss_after_few_steps(linear):
    z = np.random.default_rng(3).normal(size=(3, LATENT)).astype("float32")
    target, few = linear.generator(z), SearchOptions(steps=25, pool=1, tolerance=0.0)
    near, far = linear.search(target, few, z + 0.05), linear.search(target, few)
    assert (near["loss"] < far["loss"]).numpy().all()


# Independence of the batch


@pytest.mark.parametrize(
    "options", [SMALL, dataclasses.replace(SMALL, restarts=3, tolerance=0.01, patience=5)]
)
def test_result_does_not_depend_on_the_rest_of_the_batch(compiled, pictures, options):
    together = compiled(options)(pictures)
    order = np.random.default_rng(0).permutation(len(pictures))
    shuffled = compiled(options)(pictures[order])
    for name, value in together.items():
        axis = 1 if name == "curve" else 0
        expected = np.take(value, order, axis=axis)
        np.testing.assert_allclose(shuffled[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)
    for i in range(len(pictures)):
        alone = compiled(options)(pictures[i : i + 1])
        np.testing.assert_allclose(alone["latent"][0], together["latent"][i], atol=1e-4)
        np.testing.assert_allclose(alone["loss"][0], together["loss"][i], rtol=1e-4)
        np.testing.assert_allclose(alone["curve"][:, 0], together["curve"][:, i], rtol=1e-4)


def test_nan_in_one_image_leaves_the_others_unchanged(compiled, pictures):
    spoilt = pictures.copy()
    spoilt[2, 0, 0, 0] = np.nan
    found = compiled(dataclasses.replace(SMALL, restarts=2))(spoilt)
    clean = compiled(dataclasses.replace(SMALL, restarts=2))(pictures)
    assert np.isnan(found["loss"][2])
    others = np.arange(len(pictures)) != 2
    np.testing.assert_allclose(found["loss"][others], clean["loss"][others], rtol=1e-4)
    assert np.isfinite(found["latent"]).all()


def test_codes_with_a_nan_loss_are_not_returned():
    # G has no value beyond 1.2, so that a step of 0.5 from 1 leaves it; the search stays finite.
    def generator(z):
        return tf.reshape(tf.where(z > 1.2, math.nan, z), [-1, 1, 1, 1])

    options = SearchOptions(steps=5, learning_rate=0.5, schedule="constant", tolerance=0.01)
    found = latent_search(tf.fill([1, 1, 1, 1], 3.0), generator, tf.identity, 1, options, [[1.0]])
    assert found["latent"].numpy().tolist() == [[1.0]]
    assert float(found["residual"][0]) == 2.0


# Convergence


def test_search_without_tolerance_takes_all_steps(linear, x):
    found = linear.search(linear.generator(np.zeros((2, LATENT), "float32")), SMALL)
    assert found["steps"].numpy().tolist() == [30, 30]
    rows = int(linear.rows)
    linear.search(x, SearchOptions(steps=30, pool=1))
    assert int(linear.rows) - rows == 5 * (30 + 2)  # the last code, and the best


def test_converged_rows_leave_the_batch(linear, x):
    # The first two images start at their solution, so that nothing improves.
    z = np.random.default_rng(5).normal(size=(5, LATENT)).astype("float32")
    x[:2] = linear.generator(z[:2])
    options = SearchOptions(steps=200, tolerance=1e-3, patience=10)
    linear.rows.assign(0)
    found = linear.search(x, options, z)
    steps = found["steps"].numpy()
    assert steps[:2].tolist() == [10, 10]
    assert (steps[2:] > 10).all()
    assert (steps < 200).all()
    assert int(linear.rows) == steps.sum() + 2 * len(x)
    for i in range(5):
        alone = linear.search(x[i : i + 1], options, z[i : i + 1])
        assert int(alone["steps"][0]) == steps[i]
        same(
            {k: v[0] for k, v in alone.items() if k != "curve"},
            {k: v[i] for k, v in found.items() if k != "curve"},
            ("latent", "loss"),
        )
        curve = found["curve"][:, i].numpy()
        np.testing.assert_allclose(curve[steps[i] :], found["loss"][i], rtol=1e-5)


def test_early_stopping_raises_the_loss_by_about_the_tolerance_at_most(linear, x):
    long = linear.search(x, SearchOptions(schedule="constant", learning_rate=0.02))
    short = linear.search(x, SearchOptions(schedule="constant", learning_rate=0.02, tolerance=1e-3))
    assert (short["steps"] < long["steps"]).numpy().all()
    np.testing.assert_allclose(short["loss"], long["loss"], rtol=0.01)


# The graph


def test_all_batch_sizes_share_one_graph(linear):
    rng = np.random.default_rng(0)
    options = SearchOptions(steps=3, pool=4, restarts=2, tolerance=0.1)
    search, traces = linear.compiled(options), []
    for size in (3, 1, 8, 2, 5, 13, 1, 4) * 5:
        images = rng.normal(size=(size, SIDE, SIDE, 1)).astype("float32")
        assert search(images)["loss"].shape == (size,)
        traces.append(linear.traces)
    # The second size makes the number of images unknown, for good.
    assert search.experimental_get_tracing_count() == 2
    assert len(set(traces[1:])) == 1


def test_compiled_search_equals_latent_search(callables, pictures):
    options = dataclasses.replace(SMALL, restarts=2)
    compiled = compiled_search(*callables, LATENT, options)

    @tf.function
    def inside(x, start):
        return [latent_search(x, *callables, LATENT, options, z) for z in (None, start)]

    start = np.random.default_rng(4).normal(size=(7, LATENT)).astype("float32")
    ours = [compiled(pictures, z) for z in (None, start)]
    eager = [latent_search(pictures, *callables, LATENT, options, z) for z in (None, start)]
    for search in (inside(pictures, tf.constant(start)), eager):
        for found, expected in zip(search, ours, strict=True):
            same(found, expected, ("latent", "generated", "loss", "curve"), rtol=1e-5)


def test_networks_are_freed_with_their_search():
    generator = keras.Sequential([keras.Input((LATENT,)), keras.layers.Dense(SIDE * SIDE)])
    generator.add(keras.layers.Reshape((SIDE, SIDE, 1)))
    options, x = dataclasses.replace(SMALL, steps=2), tf.zeros([2, SIDE, SIDE, 1])
    arguments = functools.partial(generator, training=False), tf.identity, LATENT, options
    search = compiled_search(*arguments)
    search(x)
    latent_search(x, *arguments)
    gone = weakref.ref(generator)
    del generator, arguments, search
    gc.collect()
    assert gone() is None


def test_empty_batch(callables):
    found = latent_search(tf.zeros([0, 8, 8, 1]), *callables, LATENT, SMALL)
    assert found["loss"].shape == (0,)
    assert found["generated"].shape == (0, 8, 8, 1)


def test_search_leaves_the_weights_unchanged(callables, networks, pictures):
    before = [w.numpy() for network in networks for w in network.weights]
    latent_search(pictures, *callables, LATENT, SMALL)
    after = [w.numpy() for network in networks for w in network.weights]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_search_through_half_precision_networks_is_float32(linear, x):
    def generator(z):
        return tf.cast(linear.generator(z), tf.bfloat16)

    def features(images):
        return tf.cast(linear.features(images), tf.bfloat16)

    found = latent_search(x, generator, features, LATENT, SMALL)
    assert all(v.dtype == tf.float32 for k, v in found.items() if k != "steps")
    np.testing.assert_allclose(found["loss"], linear.search(x, SMALL)["loss"], rtol=0.02)


@pytest.mark.parametrize(
    "options", [SMALL, dataclasses.replace(SMALL, restarts=2, tolerance=0.01, patience=5)]
)
def test_exported_search_gives_the_same_result(networks, callables, pictures, options, tmp_path):
    generator, critic = networks

    class Inverse(keras.Model):
        def __init__(self):
            super().__init__()
            self.generator, self.critic = generator, critic
            self.built = True

        def call(self, x):
            found = latent_search(x, *callables, LATENT, options)
            return {name: found[name] for name in ("latent", "loss", "steps")}

    archive = keras.export.ExportArchive()
    model = Inverse()
    archive.track(model)
    signature = [tf.TensorSpec([None, 8, 8, 1], tf.float32, name="images")]
    archive.add_endpoint("serve", model.call, input_signature=signature)
    archive.write_out(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    served = loaded.serve(pictures)
    found = latent_search(pictures, *callables, LATENT, options)
    for name in served:
        np.testing.assert_allclose(served[name], found[name], rtol=1e-5, atol=1e-5)


# Options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distance", "L1"),
        ("schedule", "cosin"),
        ("schedule", None),
        ("steps", -1),
        ("steps", 2.5),
        ("steps", "many"),
        ("restarts", 0),
        ("pool", 0),
        ("pool", math.inf),
        ("patience", 0),
        ("seed", None),
        ("tolerance", -0.1),
        ("tolerance", 1.0),
        ("feature_weight", 1.5),
        ("feature_weight", math.nan),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("learning_rate", "fast"),
        ("beta_1", 1.0),
        ("beta_2", -0.1),
        ("epsilon", 0.0),
    ],
)
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        SearchOptions(**{name: value})
    with pytest.raises(UsageError) as caught:
        parse(SearchOptions, {name: value}, "the latent search")
    assert caught.value.argument == name
    assert "\n" not in str(caught.value)


def test_a_pool_smaller_than_the_restarts_is_refused(linear, x):
    arguments = linear.generator, linear.features, LATENT, SearchOptions(restarts=3, pool=2)
    for refusing in (
        lambda: compiled_search(*arguments),
        lambda: latent_search(x, *arguments),
        tf.function(lambda: latent_search(x, *arguments), autograph=False),
    ):
        with pytest.raises(UsageError, match="smaller than the number of restarts") as caught:
            refusing()
        assert caught.value.argument == "pool"
        assert "\n" not in str(caught.value)


def test_options_at_the_end_of_their_range_are_accepted():
    ends = {"steps": 0, "pool": 1, "tolerance": 0, "feature_weight": 1, "beta_1": 0, "patience": 1}
    parsed = parse(SearchOptions, ends, "the latent search")
    assert parsed == dataclasses.replace(SearchOptions(), **ends)
    assert SearchOptions(steps=np.int64(3), learning_rate=np.float32(0.1)).steps == 3


def test_unknown_option_is_refused_with_a_hint():
    with pytest.raises(UsageError, match=r"'restart'.*did you mean 'restarts'"):
        parse(SearchOptions, {"restart": 2}, "the latent search")
