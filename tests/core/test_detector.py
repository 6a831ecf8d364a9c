"""What holds of every method."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.data import sampling
from tfgad.errors import UsageError
from tfgad.export.saved_model import export
from tfgad.methods import METHODS
from tfgad.networks import precision

RECONSTRUCTING = [name for name, method in METHODS.items() if method.model.reconstructs]
QUICK = "ganomaly", "vae", "wgan_gp"  # the methods of the quick subset


def cases(*cases):
    """Returns parameters that begin with a method, slow but for the quick subset's."""
    return [
        pytest.param(case, marks=[] if case in QUICK or case[0] in QUICK else pytest.mark.slow)
        for case in cases
    ]


# A method, and the side of the images it scores: by `cues`, `density` or its critic.
LARGER = [(each, 48) for each in METHODS]
CASES = cases(*LARGER, *((each, 32) for each in RECONSTRUCTING))
# Files hold the graph of `density` as they hold the others: a few methods show it. In half
# precision every method is saved with it.
WRITTEN = cases(*LARGER, *((each, 32) for each in RECONSTRUCTING if each in QUICK))


@pytest.fixture(scope="module", params=cases(*METHODS))
def model(request, fitted):
    return fitted(request.param)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def detector(request, fitted):
    """A model for images of 48 pixels, or of 32, the window's."""
    return fitted(*request.param)


@pytest.fixture(scope="module", params=WRITTEN, ids=lambda case: "-".join(map(str, case)))
def written(request, fitted):
    """A model that is saved or exported."""
    return fitted(*request.param)


@pytest.fixture
def copy(model, tmp_path):
    return saved_and_loaded(model, tmp_path)


def saved_and_loaded(model, folder):
    model.save(folder / "model.keras")
    return tfgad.load_model(folder / "model.keras")


def state(model):
    """All that training changes."""
    optimizers = model.optimizer_by_role.values()
    variables = [*model.variables, *(v for optimizer in optimizers for v in optimizer.variables)]
    return [variable.numpy() for variable in variables]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_fit_moves_every_network(request, model, build_small):
    fresh = build_small(request.node.callspec.params["model"])
    assert int(model.step) == 2 * len(model.stages)
    for role in model.roles:
        for trained, first in zip(model.weights_of(role), fresh.weights_of(role), strict=True):
            if len(trained.shape) > 1:  # the critic's last bias cancels in its loss
                assert np.any(trained.numpy() != first.numpy()), trained.path


def test_methods_that_reconstruct_score_windows_by_density_and_larger_images_by_cues(detector):
    larger = "joint" if detector.name == "ganomaly_unet" else "cues"
    expected = {32: "density", 48: larger}[detector.tile[0]] if detector.reconstructs else "critic"
    own = {"draem": "draem", "feature_regions": "joint"}  # of these whatever the size
    expected = own.get(detector.name, expected)
    assert detector.score == expected


def test_a_loaded_model_says_the_same_bit_for_bit(written, images, tmp_path):
    copy = saved_and_loaded(written, tmp_path)
    for size in {written.tile[0], 32}:
        pieces = images[:4, :size, :size]
        ours, theirs = written.anomaly(pieces), copy.anomaly(pieces)
        np.testing.assert_array_equal(ours["score"], theirs["score"])
        np.testing.assert_array_equal(ours["map"], theirs["map"])
    assert copy.calibration.is_calibrated
    assert_same(state(written), state(copy))


def test_a_loaded_model_trains_on_like_the_original(model, copy, images, labels, tmp_path):
    original = copy
    for stage in model.stages:
        original.begin(stage)
        loaded = saved_and_loaded(original, tmp_path)
        loaded.prepare()  # as `fit` does, which goes on in the stage that was saved
        for each in (original, loaded):
            for start in (0, 4):
                parts = max(1, each.images_per_step // each.config.batch_size)
                part, (height, width, _) = slice(start, start + 2 * parts), each.training_window
                x, y = tf.constant(images[part, :height, :width]), tf.constant(labels[part])
                each.train_step((x, y) if each.labelled else x)
        assert_same(state(original), state(loaded))
    assert int(original.step) == int(model.step) + 2 * len(model.stages)


def test_an_exported_model_says_the_same(written, images, tmp_path):
    served = exported(written, tmp_path)
    for size in {written.tile[0], 32}:
        pixels = np.round((images[:3, :size, :size] + 1) * 127.5).astype("uint8")
        answer, expected = (
            served(images=pixels),
            written.anomaly(pixels.astype("float32") / 127.5 - 1),
        )
        rounding = 1e-5 * np.abs(expected["score"]).max()  # a critic's score may lie beside 0
        np.testing.assert_allclose(answer["score"], expected["score"], atol=rounding)
        np.testing.assert_allclose(answer["map"], expected["map"], rtol=1e-5, atol=1e-5)


def exported(model, folder):
    """Returns the signature of an exported model that takes images."""
    form = {"image_shape": (*model.tile, 1), "resized": False, "metadata": {}}
    loaded = tf.saved_model.load(export(model, folder, **form))
    serve = loaded.signatures["serving_default"]
    serve.keep = loaded  # whose variables it needs
    return serve


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_is_trained_scored_saved_and_exported(
    half_precision, build_small, know_normal_images, images, labels, tmp_path, method
):
    many = {"search_steps": 100} if method == "anogan" else {}  # which carry rounding on
    model = build_small(method, side=32, precision="bfloat16", **many)
    x, y = images[:, :32, :32], labels
    for stage in model.stages:
        model.begin(stage)
        part = slice(0, 2 * max(1, model.images_per_step // model.config.batch_size))
        batch = tf.constant(x[part])
        logs = model.train_step((batch, tf.constant(y[part])) if model.labelled else batch)
        assert all(np.isfinite(value) for value in logs.values())
    know_normal_images(model, x)
    pixels = np.round((x[:3] + 1) * 127.5).astype("uint8")
    x = pixels.astype("float32") / 127.5 - 1
    predicted = model.anomaly(x)
    for name in ("score", "map"):
        assert predicted[name].dtype == tf.float32
        assert np.isfinite(predicted[name]).all()

    copy = saved_and_loaded(model, tmp_path)
    assert "bfloat16" in {
        layer.compute_dtype for layer in next(iter(copy.networks().values())).layers
    }
    np.testing.assert_array_equal(copy.anomaly(x)["score"], predicted["score"])
    if method in QUICK:  # an export holds the graph that `anomaly` has run
        answer = exported(model, tmp_path)(images=pixels)
        for name in ("score", "map"):
            expected = predicted[name].numpy()  # scores of a clipped critic lie beside 0
            size = np.maximum(np.abs(expected), np.ptp(expected))
            assert (np.abs(answer[name] - expected) <= 1e-3 * size).all()


def test_networks_trained_in_half_precision_score_in_float32(half_precision, build_small, images):
    """The same weights score alike, whatever they are trained in."""
    half, whole = (build_small("anogan", side=32, precision=p) for p in ("bfloat16", "float32"))
    x = tf.constant(images[:3, :32, :32])
    for answer in (
        lambda model: model.anomaly(x, score="loss")["score"],
        lambda model: model.reconstruct(x),
        lambda model: model.find(x)["latent"],
        lambda model: model.descriptions(x),
        lambda model: model.sample(3),
    ):
        np.testing.assert_allclose(answer(half), answer(whole), rtol=1e-5, atol=1e-5)
    difference = half.critic(x)["features"][0] - whole.critic(x)["features"][0]
    assert 1e-4 < np.abs(difference).max() < 0.1  # in training they differ


def test_a_network_within_a_network_scores_in_float32():
    dense = keras.layers.Dense(1, dtype="mixed_bfloat16")
    inner = keras.Sequential([keras.Input((2,)), dense])
    precision.score_in_float32(keras.Sequential([keras.Input((2,)), inner]))
    assert dense.compute_dtype == "bfloat16"
    with precision.scoring():
        assert dense.compute_dtype == "float32"


def test_a_model_that_has_no_density_says_so(model, images):
    reason = "knows no normal images" if model.reconstructs else "is not one of this method"
    with pytest.raises(UsageError, match=reason):
        model.anomaly(images, score="density")


@pytest.mark.parametrize("method", cases(*RECONSTRUCTING))
def test_density_lays_its_number_out_as_the_residual_is(method, fitted, images):
    model = fitted(method, 32)
    x = images[:3, :32, :32]
    predicted = model.anomaly(x, score="density")
    vectors = model.descriptions(tf.constant(x))
    assert vectors.shape == (3, sum(map(len, model.terms)) + 1 + model.code_dim)
    np.testing.assert_allclose(predicted["score"], model.density(vectors), rtol=1e-4)


def test_a_threshold_is_gone_where_the_scores_change(build_small, images):
    model = build_small("ganomaly")

    def calibrated():
        model.calibrate(images, false_positive_rate=0.1)
        return model.calibration.is_calibrated

    model.adapt(images)
    assert calibrated()
    model.adapt(images[:8])
    assert not model.calibration.is_calibrated
    with pytest.raises(UsageError, match="has no threshold yet"):
        model.prediction(images, model.anomaly(images)["score"])
    assert calibrated()
    with pytest.raises(UsageError):
        model.adapt(np.full_like(images, np.nan))
    assert model.calibration.is_calibrated  # nothing has changed
    model.fit(images[:, :32, :32], batch_size=8, epochs=1, verbose=0)
    assert not model.calibration.is_calibrated


def test_a_tile_smaller_than_the_window_is_refused(model):
    with pytest.raises(UsageError, match="is smaller than the window"):
        type(model)(model.config, (32, 32, 1), tile=(24, 40))


def test_the_configuration_makes_the_same_model(model):
    config = model.get_config()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert type(again) is type(model)
    for name, value in again.get_config().items():
        if name == "networks":
            assert value.keys() == config[name].keys()
            for network, other in zip(value.values(), config[name].values(), strict=True):
                assert network.get_config() == other.get_config()
        else:
            assert value == config[name]


def test_the_configuration_itself_makes_a_model_of_its_own(model):
    again = type(model).from_config(model.get_config())
    assert again.networks().keys() == model.networks().keys()
    for name, network in again.networks().items():
        own = getattr(model, name)
        assert network is not own
        assert [w.shape for w in network.weights] == [w.shape for w in own.weights]


def test_scores_do_not_depend_on_the_batch(detector, images):
    images = images[:6, : detector.tile[0], : detector.tile[1]]
    together = detector.anomaly(images)
    order = [3, 0, 5, 1, 4, 2]
    shuffled = detector.anomaly(images[order])
    np.testing.assert_allclose(shuffled["score"], together["score"].numpy()[order], rtol=1e-4)
    alone = detector.anomaly(images[2:3])
    np.testing.assert_allclose(alone["score"][0], together["score"][2], rtol=1e-4)
    np.testing.assert_allclose(alone["map"][0], together["map"][2], rtol=1e-4, atol=1e-5)


def test_scoring_changes_nothing(model, images):
    before = state(model)
    model.anomaly(images[:2])
    assert_same(state(model), before)


@pytest.mark.parametrize("size", [(32, 32), (33, 32), (41, 48)])
def test_maps_have_the_size_of_the_image(model, images, size):
    predicted = model.anomaly(images[:3, : size[0], : size[1]])
    assert predicted["map"].shape == (3, *size)
    assert predicted["score"].shape == (3,)
    assert np.isfinite(predicted["map"]).all()
    if size != (32, 32):
        np.testing.assert_array_equal(predicted["score"], np.max(predicted["map"], axis=(1, 2)))


def test_reconstruction_has_the_form_of_the_image(model, images):
    if not model.reconstructs:
        with pytest.raises(UsageError, match="reconstructs nothing"):
            model.reconstruct(images)
        return
    reconstruction = model.reconstruct(images[:2, :41]).numpy()
    assert reconstruction.shape == (2, 41, 48, 1)
    assert np.abs(reconstruction).max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda x: np.where(x > 0.4, np.nan, x), "NaN or infinite"),
        (lambda x: np.where(x > 0.4, np.inf, x), "NaN or infinite"),
        (lambda x: np.repeat(x, 3, axis=3), r"\[B, H, W, 1\]"),
        (lambda x: x[..., 0], r"\[B, H, W, 1\]"),
        (lambda x: x[:, :31], "smaller than the window"),
    ],
    ids=["nan", "infinite", "colour", "no channel axis", "small"],
)
def test_unfit_images_are_refused_in_one_line(model, images, spoil, fault):
    with pytest.raises(UsageError, match=fault) as error:
        model.anomaly(spoil(images))
    assert "\n" not in str(error.value)


def test_an_unknown_score_is_refused(model, images):
    with pytest.raises(UsageError, match="is not one of this method"):
        model.anomaly(images, score="sharpness")


def test_a_stride_that_does_not_divide_the_window_is_refused(build_small):
    with pytest.raises(UsageError, match="stride '5'"):
        build_small("ganomaly", stride=5)


@pytest.mark.parametrize("size", [1, 9, 10, 11, 19, 21, 30])
def test_as_many_images_are_taken_as_are_asked_for(size):
    numbers = tf.data.Dataset.range(size)
    even = list(sampling.spread(numbers, size, 10).as_numpy_iterator())
    assert even == [i * size // min(size, 10) for i in range(min(size, 10))]
    drawn = [
        list(sampling.drawn(numbers, size, 10, seed).as_numpy_iterator()) for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1]
    for each in drawn:
        assert len(set(each)) == min(size, 10)
    if size > 10:
        assert drawn[0] != drawn[2]


def test_noise_depends_on_seed_step_and_purpose_alone(build_small):
    def draws(seed, step, purpose):
        model = build_small("ganomaly", seed=seed)
        model.step.assign(step)
        return model.random_normal([1000], purpose).numpy()

    first = draws(1, 2, "critic")
    np.testing.assert_array_equal(first, draws(1, 2, "critic"))
    for other in (draws(2, 2, "critic"), draws(1, 3, "critic"), draws(1, 2, "generator")):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.15
    assert abs(first.mean()) < 0.1
    assert abs(first.std() - 1) < 0.1
