"""GANomaly beside a U-Net: two stages, and the joined map."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter

import tfgad
from tfgad.data.synthetic_defects import with_defects, with_random_light
from tfgad.errors import UsageError
from tfgad.export.saved_model import export
from tfgad.scores.cues import Cues
from tfgad.scores.places import Places


@pytest.fixture(scope="module")
def model(build_small, images):
    model = build_small("ganomaly_unet", unet_width=4)
    model.adapt(tf.data.Dataset.from_tensor_slices(images), len(images))
    return model


def weights_by_role(model):
    return {role: [w.numpy() for w in model.weights_of(role)] for role in model.roles}


def moved(before, model):
    after = weights_by_role(model)
    return {
        role
        for role, old in before.items()
        if any(np.any(a != b) for a, b in zip(old, after[role], strict=True))
    }


def test_the_stages_train_ganomaly_on_windows_and_the_unet_on_tiles(build_small, images):
    model = build_small("ganomaly_unet", unet_width=4, unet_tile=32)
    assert (model.training_window, model.images_per_step) == ((32, 32, 1), 64)
    before = weights_by_role(model)
    model.train_step(tf.constant(images[:4, :32, :32]))
    assert moved(before, model) == {"generator", "critic"}
    before = weights_by_role(model)
    model.begin("unet")
    assert (model.training_window, model.images_per_step) == ((32, 32, 1), 16)
    model.train_step(tf.constant(images[:4, :32, :32]))
    assert moved(before, model) == {"unet"}
    assert int(model.step) == 2


def test_tiles_of_the_unet_are_no_larger_than_the_images():
    for side, expected in ((48, 48), (200, 128)):
        model = tfgad.build("ganomaly_unet", (side, side, 1), width=4, unet_width=2)
        model.begin("unet")
        assert model.training_window == (expected, expected, 1)


def test_the_loss_is_that_of_the_synthetic_defects(build_small, images):
    model = build_small("ganomaly_unet", unet_width=4, gamma=1.5)
    model.begin("unet")
    x = tf.constant(images[:8])
    laid, masks = with_defects(x, model.seed_of("defects"), share=model.config.defects)
    laid = with_random_light(laid, model.seed_of("light"))
    logits = model.logits(laid, training=True)
    p, m = tf.sigmoid(logits).numpy(), masks.numpy()
    of_truth = m * p + (1 - m) * (1 - p)
    focal = np.mean(-((1 - of_truth) ** 1.5) * np.log(of_truth))
    logs = model.train_step(x)
    assert float(logs["focal"]) == pytest.approx(focal, rel=1e-3)


def test_the_rate_falls_along_a_cosine(build_small):
    optimizer = build_small("ganomaly_unet", steps="7+100").optimizer_by_role["unet"]
    rates = []
    for step in (0, 50, 100):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [3e-3, 1.5e-3, 0], atol=1e-9)


def test_the_joint_map_is_the_sum_of_cues_and_marks(model, images):
    assert model.score == "joint"
    cues, marks, joint = (model.anomaly(images[:3], name) for name in ("cues", "marks", "joint"))
    np.testing.assert_allclose(joint["map"], cues["map"] + marks["map"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(joint["score"], np.max(joint["map"], axis=(1, 2)))
    logits = gaussian_filter(model.logits(images[:3])[..., 0].numpy(), (0, 2, 2), truncate=3.0)
    expected = np.maximum(logits - float(model.joint.level), 0) / float(model.joint.peak)
    np.testing.assert_allclose(marks["map"], expected, rtol=1e-4, atol=1e-4)


def test_a_larger_image_is_joined_tile_by_tile(model, model_of_parts, images):
    strip = np.concatenate([images[:1], images[1:2], images[2:3]], axis=2)
    for each in (model, model_of_parts):
        answer = each.anomaly(strip)
        assert answer["map"].shape == (1, 48, 144)
        np.testing.assert_allclose(answer["score"], np.max(answer["map"], axis=(1, 2)))


@pytest.mark.parametrize("score", ["joint", "joint_places", "marks"])
def test_it_must_know_normal_images(build_small, images, score):
    with pytest.raises(UsageError, match="not adapted"):
        build_small("ganomaly_unet", unet_width=4).anomaly(images[:1], score)


@pytest.fixture(scope="module")
def model_of_parts(build_small, know_normal_images, images):
    """A model that compares errors and tones by place."""
    model = build_small("ganomaly_unet", score="joint_places")
    know_normal_images(model, images)
    return model


def test_the_map_of_parts_is_the_sum_of_places_and_marks(model_of_parts, images):
    model, x = model_of_parts, images[:3]
    of = {name: model.anomaly(x, name) for name in ("places", "marks", "joint_places")}
    joined = of["joint_places"]
    np.testing.assert_allclose(joined["map"], of["places"]["map"] + of["marks"]["map"], atol=1e-5)
    np.testing.assert_allclose(joined["score"], np.max(joined["map"], axis=(1, 2)))
    np.testing.assert_array_equal(model(x)["map"], joined["map"])
    assert np.ptp(of["marks"]["map"]) > 0


@pytest.mark.parametrize("score", ["joint", "joint_places"])
def test_statistics_are_learnt_once_and_only_those_of_the_score(
    build_small, images, score, monkeypatch
):
    learnt = []
    for kind in (Cues, Places):
        monkeypatch.setattr(kind, "adapt", lambda *_, name=kind.__name__: learnt.append(name))
    model = build_small("ganomaly_unet", score=score)
    model.adapt(images)
    assert learnt == ["Cues" if score == "joint" else "Places"]
    assert float(model.joint.level) != 0
    assert hasattr(model, "places") == (score == "joint_places")  # or files of before would not fit


def test_a_model_of_textures_has_no_statistics_of_places(model, model_of_parts, images):
    with pytest.raises(UsageError, match=r"not adapted.*built with score=joint_places"):
        model.anomaly(images[:1], "joint_places")
    with pytest.raises(UsageError, match=r"not adapted.*built with score=joint"):
        model_of_parts.anomaly(images[:1], "joint")


def test_files_and_exported_models_of_parts_give_the_same(model_of_parts, images, tmp_path):
    pixels = np.rint(127.5 * (images[:3] + 1)).astype("uint8")
    x = (pixels / 127.5 - 1).astype("float32")
    ours = model_of_parts.anomaly(x)
    model_of_parts.save(tmp_path / "model.keras")
    loaded = tfgad.load_model(tmp_path / "model.keras")
    assert loaded.score == "joint_places"
    for name in ("joint_places", "places", "marks"):
        own, theirs = (each.anomaly(x, name)["map"] for each in (model_of_parts, loaded))
        np.testing.assert_array_equal(own, theirs)
    form = {"image_shape": (48, 48, 1), "resized": True, "metadata": {"method": "ganomaly_unet"}}
    exported = tf.saved_model.load(str(export(loaded, tmp_path / "exported", **form)))
    answer = exported.signatures["serving_default"](images=tf.constant(pixels))
    for name in ("score", "map"):
        np.testing.assert_allclose(answer[name], ours[name], rtol=1e-4, atol=1e-4)


def test_any_size_of_tile_is_taken():
    model = tfgad.build("ganomaly_unet", (50, 70, 1), width=4, unet_width=2)
    assert model.logits(tf.zeros([2, 50, 70, 1])).shape == (2, 50, 70, 1)


def test_a_step_is_not_taken_without_the_painter_of_the_settings(build_small, images):
    for source in ("painter", "mix"):
        model = build_small("ganomaly_unet", defect_source=source, painter="somewhere")
        model.stage = "unet"  # `begin` would load it
        with pytest.raises(UsageError, match="is not loaded; call `prepare`"):
            model.train_step(tf.constant(images[:4]))


@pytest.fixture(scope="module")
def reading_model(build_small, images):
    """A model whose U-Net also reads the reconstruction."""
    model = build_small("ganomaly_unet", unet_width=4, unet_input="image+reconstruction")
    model.adapt(tf.data.Dataset.from_tensor_slices(images), len(images))
    return model


def test_the_unet_may_read_the_reconstruction_and_its_error(reading_model, images):
    model, x = reading_model, images[:2]
    assert model.unet.input_shape == (None, None, None, 3)
    reconstruction = model.reconstruct(x).numpy()
    seen = np.concatenate([x, reconstruction, np.abs(x - reconstruction)], axis=-1)
    expected = tf.image.resize(model.unet(seen, training=False), (48, 48))
    np.testing.assert_allclose(model.logits(tf.constant(x)), expected, rtol=1e-3, atol=1e-4)
    again = model.logits(tf.constant(x), tf.constant(reconstruction))
    np.testing.assert_allclose(again, expected, rtol=1e-3, atol=1e-4)


def test_scoring_takes_the_reconstruction_from_the_pass_of_the_errors(reading_model, images):
    model, x = reading_model, images[:2]
    cues, marks, joint = (model.anomaly(x, name)["map"] for name in ("cues", "marks", "joint"))
    np.testing.assert_allclose(joint, cues + marks, rtol=1e-4, atol=1e-4)
    logits = gaussian_filter(model.logits(x)[..., 0].numpy(), (0, 2, 2), truncate=3.0)
    expected = np.maximum(logits - float(model.joint.level), 0) / float(model.joint.peak)
    np.testing.assert_allclose(marks, expected, rtol=1e-3, atol=1e-3)


def test_scoring_by_place_takes_it_from_there_too(build_small, images):
    reads = {"unet_input": "image+reconstruction", "score": "joint_places"}
    model, x = build_small("ganomaly_unet", **reads), images[:2]
    model.adapt(images)
    places, marks, joined = (model.anomaly(x, n)["map"] for n in ("places", "marks", model.score))
    np.testing.assert_allclose(joined, places + marks, rtol=1e-4, atol=1e-4)


def test_the_unet_that_reads_the_reconstruction_is_trained_alone(build_small, images):
    model = build_small("ganomaly_unet", unet_width=4, unet_input="image+reconstruction")
    before = weights_by_role(model)
    model.begin("unet")
    model.train_step(tf.constant(images[:4]))
    assert moved(before, model) == {"unet"}
    colours = tfgad.build(
        "ganomaly_unet", (48, 48, 3), width=4, unet_width=2, unet_input="image+reconstruction"
    )
    assert colours.unet.input_shape[-1] == 9
    assert colours.logits(tf.zeros([1, 48, 48, 3])).shape == (1, 48, 48, 1)
