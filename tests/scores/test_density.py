"""The Gaussian mixture of `Density`, and the score `density`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import tfgad
from tfgad.errors import UsageError
from tfgad.scores import density
from tfgad.scores.density import Density


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def fitted(vectors):
    layer = Density(vectors.shape[1])
    layer.adapt(vectors)
    return layer


def test_one_gaussian_is_half_the_squared_mahalanobis_distance(rng, monkeypatch):
    monkeypatch.setattr(density, "ROWS_PER_DIMENSION", 10**6)  # too few for a second component
    monkeypatch.setattr(density, "REGULARISATION", 0.0)
    covariance = np.array([[2.0, 0.6], [0.6, 0.5]])
    layer = fitted(rng.multivariate_normal([3.0, -1.0], covariance, 20_000))
    new = np.float32([[3, -1], [5, -1], [0, 1]])
    difference = new - [3.0, -1.0]
    expected = np.einsum("ni,ij,nj->n", difference, np.linalg.inv(covariance), difference) / 2
    np.testing.assert_allclose(layer(new), expected, rtol=0.05, atol=0.01)


def test_density_is_the_negative_log_likelihood_up_to_a_constant(rng, monkeypatch):
    monkeypatch.setattr(density, "REGULARISATION", 1e-6)
    monkeypatch.setattr(density, "COMPONENTS", 3)
    centres = np.array([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    layer = fitted(np.concatenate([rng.normal(centre, 0.5, (4000, 2)) for centre in centres]))
    new = np.float32([[-4, 0], [4, 0.5], [0, 4], [-1, 4.5]])
    # The clusters are spherical with equal variances, so the likelihood has a closed form.
    likelihood = sum(stats.multivariate_normal(centre, 0.25).pdf(new) / 3 for centre in centres)
    differences = layer(new).numpy() + np.log(likelihood)
    assert np.ptp(differences) < 0.3
    between = layer(np.float32([[0, 0]])).numpy()
    assert between > layer(new).numpy().max() + 20  # the overall mean lies between the clusters
    assert (layer(centres.astype("float32")).numpy() >= 0).all()


def test_density_does_not_depend_on_units(rng):
    vectors, new = rng.normal(size=(300, 4)), rng.normal(size=(5, 4)).astype("float32")
    unit, shift = np.array([1e-3, 1.0, 50.0, 7.0]), np.array([0.0, 5.0, -3.0, 100.0])
    scaled = fitted(vectors * unit + shift)((new * unit + shift).astype("float32"))
    np.testing.assert_allclose(scaled, fitted(vectors)(new), rtol=1e-3)


def test_constant_dimensions_are_ignored(rng):
    vectors = rng.normal(size=(50, 2))
    constant = fitted(np.concatenate([vectors, np.full((50, 1), 0.1)], axis=1))
    new = np.float32([[1.0, -2.0, 0.1], [1.0, -2.0, 0.2], [1.0, -2.0, 100.0]])
    np.testing.assert_array_equal(constant(new), np.repeat(constant(new)[0], 3))


def test_density_is_0_before_it_is_fitted(rng):
    np.testing.assert_allclose(Density(3)(rng.normal(size=(4, 3))), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("vectors", "fault"),
    [
        (np.zeros((1, 3)), "too few"),
        (np.ones((4, 3)), "all alike"),
        (np.array([[0, 1], [np.nan, 2], [3, np.inf]]), "'2 values'.*NaN or infinite"),
    ],
)
def test_too_few_constant_and_non_finite_vectors_are_refused(vectors, fault):
    with pytest.raises(UsageError, match=fault):
        fitted(vectors)


def test_fewer_vectors_than_dimensions_suffice(rng):
    layer = fitted(rng.normal(size=(6, 40)))
    far, near = layer(np.float32([np.full(40, 9.0), np.zeros(40)])).numpy()
    assert far > near


@pytest.mark.parametrize("copies", [1, 10])
def test_two_vectors_or_copies_of_two_suffice(rng, copies):
    two = rng.normal(size=(2, 5))
    layer = fitted(np.repeat(two, copies, axis=0))
    beside = two[0] + [0, 0, 0, 0, 3]
    far, near = layer(np.float32([beside, two[0]])).numpy()
    assert 0 <= near < far < np.inf


def test_fitted_layer_is_saved(rng, tmp_path):
    layer = fitted(rng.normal(size=(100, 3)))
    inputs = keras.Input((3,))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "density.keras")
    loaded = keras.saving.load_model(tmp_path / "density.keras")
    new = rng.normal(size=(5, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(new), layer(new))


def test_score_of_a_perfect_reconstruction_is_its_density(build_small, images):
    model = build_small("vae")
    last = model.decoder.layers[-2]
    last.set_weights([np.zeros_like(last.get_weights()[0]), np.float32([-20])])  # its tanh is -1
    windows = tf.data.Dataset.from_tensor_slices(images[:, :32, :32])
    model.adapt(windows, len(images))
    blank = np.full((1, 32, 32, 1), -1, "float32")
    np.testing.assert_allclose(model.reconstruct(blank), blank, atol=1e-6)
    prediction = model.anomaly(blank, "density")
    expected = model.density(model.descriptions(tf.constant(blank)))
    assert float(expected[0]) > 100
    np.testing.assert_allclose(prediction["score"], expected, rtol=1e-4)


def test_calibrate_refuses_a_density_that_is_not_fitted(images):
    model = tfgad.build("vae", (32, 32, 1), width=4, latent_dim=4)
    normals = tf.data.Dataset.from_tensor_slices(images[:, :32, :32])
    with pytest.raises(UsageError, match="not adapted"):
        model.calibrate(normals, 0.1)
    model.adapt(normals, len(images))
    assert np.isfinite(model.calibrate(normals, 0.1).value)
