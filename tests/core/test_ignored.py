"""A region that a model ignores: whatever it shows changes nothing that the model says."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.data.batches import training_batches
from tfgad.data.ignored import as_config, as_text, fill, from_text, ignoring, leave_out, of_config
from tfgad.data.pixels import from_uint8
from tfgad.errors import UsageError
from tfgad.export import litert
from tfgad.export.saved_model import export
from tfgad.inference.predictor import RunPredictor, SavedModelPredictor
from tfgad.training import Run

# A method of each kind of score: of whole windows, by place, of textures, of pretrained features.
KINDS = [
    ("ganomaly", 32, {"score": "density"}),
    ("ganomaly", 48, {"score": "places"}),
    pytest.param(("ganomaly", 32, {"score": "paper"}), marks=pytest.mark.slow),
    pytest.param(("ganomaly", 48, {"score": "cues"}), marks=pytest.mark.slow),
    pytest.param(("ganomaly_unet", 48, {}), marks=pytest.mark.slow),
    pytest.param(("ganomaly_unet", 48, {"score": "joint_places"}), marks=pytest.mark.slow),
    pytest.param(("feature_regions", 48, {}), marks=pytest.mark.slow),
    pytest.param(("draem", 48, {}), marks=pytest.mark.slow),
    pytest.param(("wgan_gp", 48, {}), marks=pytest.mark.slow),
]


def region(side):
    """A corner and a bar inside."""
    ignored = np.zeros((side, side), bool)
    ignored[:7, :9] = ignored[16:20, 5:30] = True
    return ignored


def painted(images, ignored, seed=0, low=-1.0, high=1.0):
    """The images with noise in the region, another in each."""
    noise = np.random.default_rng(seed).uniform(low, high, images.shape)
    return np.where(ignored[..., None], noise, images).astype("float32")


def built(build_small, images, method, side, settings):
    if settings.get("score") == "paper":
        settings = {"score": "residual"}
    model = build_small(method, side=side, ignored=region(side), **settings)
    if hasattr(model, "prepare"):
        model.prepare()
    model.adapt(images[:, :side, :side])
    model.calibrate(images[:, :side, :side], false_positive_rate=0.1)
    return model


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def case(request, build_small, images):
    method, side, settings = request.param
    return built(build_small, images, method, side, settings), images[:6, :side, :side]


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(theirs[name]), name)


def said(model, images):
    """All that a model says of images."""
    scored = model.anomaly(images)
    own = {**scored, **model.prediction(tf.constant(images), scored["score"])}
    own["called"] = model(images)["map"]
    if model.reconstructs:
        own["reconstruction"] = model.reconstruct(images)
    return own


def test_of_several_products_it_changes_none_either(build_small, images):
    model = build_small(
        "ganomaly", ignored=region(48), products=("light", "dark"), score="places", stride=32
    )
    both = np.concatenate([np.clip(images + 0.4, -1, 1), np.clip(images - 0.4, -1, 1)])
    product = np.repeat([0, 1], len(images))
    model.adapt(both)
    model.learn_products(painted(both, region(48)), product)
    model.calibrate(painted(both, region(48), seed=1), 0.1, products=product)
    ours = said(model, both[::8])
    assert ours["product"].numpy().tolist() == [b"light"] * 2 + [b"dark"] * 2
    assert_same(ours, said(model, painted(both[::8], region(48), seed=2)))
    with pytest.raises(UsageError, match="do not go with several products"):
        model.anomaly(both[:1], ignored=np.zeros((1, 48, 48), bool))


def test_what_an_ignored_region_shows_changes_nothing(case):
    model, images = case
    bright = np.where(region(images.shape[1])[..., None], 1.0, images).astype("float32")
    before = said(model, images)
    assert np.ptp(before["map"]) > 0
    for other in (painted(images, model.ignored), bright):
        assert_same(said(model, other), before)
    ignored = model.ignored
    for anomaly_map, score in zip(before["map"].numpy(), before["score"].numpy(), strict=True):
        assert (anomaly_map[ignored] == anomaly_map[~ignored].min()).all()
        if model.scored_by(model.score).is_peak:
            assert score == anomaly_map[~ignored].max()


def test_statistics_and_threshold_do_not_depend_on_it(case, images):
    model, _ = case
    side = model.tile[0]
    before = [weight.numpy() for weight in model.non_trainable_variables]
    others = painted(images[:, :side, :side], model.ignored)
    model.adapt(others)
    model.calibrate(others, false_positive_rate=0.1)
    for old, weight in zip(before, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, weight.numpy(), weight.path)


@pytest.mark.slow
def test_files_and_exported_models_hold_the_region(case, tmp_path):
    model, images = case
    model.save(tmp_path / "model.keras")
    loaded = tfgad.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.ignored, model.ignored)
    assert_same(said(loaded, images), said(model, images))

    side, ignored = model.tile[0], model.ignored
    form = {"image_shape": (side, side, 1), "resized": True, "metadata": {"method": model.name}}
    folder = export(model, tmp_path / "exported", **form)
    pixels = np.rint((images + 1) * 127.5).astype(np.uint8)
    noise = np.rint((painted(images, ignored) + 1) * 127.5).astype(np.uint8)
    assert (noise != pixels).any()
    signatures = tf.saved_model.load(str(folder)).signatures
    for name in ("serving_default", "regions"):
        ours, theirs = (signatures[name](images=tf.constant(each)) for each in (pixels, noise))
        assert_same(ours, theirs)
    files = [[tf.io.encode_png(image).numpy() for image in each] for each in (pixels, noise)]
    for name in ("score_bytes", "regions_bytes"):
        ours, theirs = (signatures[name](image_bytes=tf.constant(each)) for each in files)
        assert_same(ours, theirs)
    np.testing.assert_allclose(
        signatures["serving_default"](images=tf.constant(pixels))["map"],
        model.anomaly(from_uint8(pixels))["map"],
        rtol=1e-4,
        atol=1e-4,
    )
    served = SavedModelPredictor(folder)
    np.testing.assert_array_equal(served.ignored, ignored)


@pytest.mark.slow
def test_larger_files_leave_no_trace_of_what_a_mask_covers(build_small, images, tmp_path):
    """Resizing mixes neighbours: the region has every pixel that a covered one enters."""
    from PIL import Image

    from tfgad.data.ignored_files import region_of

    mask = np.zeros((101, 75), np.uint8)
    mask[10:31, 20:41] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    data = _Data((32, 32, 1), sizes={(101, 75)})
    with pytest.raises(UsageError, match="marks no place on letterboxed images"):
        region_of(tmp_path / "mask.png", dataclasses.replace(data, fit="letterbox"))
    model = build_small("ganomaly", side=32, ignored=region_of(tmp_path / "mask.png", data))
    model.adapt(images[:, :32, :32])
    model.calibrate(images[:, :32, :32], false_positive_rate=0.1)
    config = {"image_shape": (32, 32, 1), "resized": True}
    exported = export(model, tmp_path / "exported", **config, metadata={"method": "ganomaly"})
    rng = np.random.default_rng(0)
    large = rng.uniform(-1, 1, (3, 101, 75, 1)).astype("float32")
    other = painted(large, mask > 0, seed=1)
    for predictor in (RunPredictor(Run(tmp_path, config, model)), SavedModelPredictor(exported)):
        ours, theirs = predictor.predict_images(large), predictor.predict_images(other)
        for one, two in zip(ours, theirs, strict=True):
            assert_same(one, two)


@dataclasses.dataclass
class _Files:
    sizes: frozenset


@dataclasses.dataclass
class _Data:
    """What `region_of` reads of a data set."""

    image_shape: tuple
    sizes: set
    fit: str = "stretch"
    resized: bool = True
    spec: str = "folder:parts"

    @property
    def files(self):
        return _Files(frozenset(self.sizes))


@pytest.mark.slow
def test_litert_ignores_it_too(build_small, images):
    model = built(build_small, images, "ganomaly", 32, {})
    content = litert.convert(model, (32, 32, 1))[litert.FLOAT]
    pixels = np.rint((images[:4, :32, :32] + 1) * 127.5).astype(np.uint8)
    noise = np.where(model.ignored[..., None], 255, pixels).astype(np.uint8)
    ours, theirs = (litert.scores_of(content, each)[0] for each in (pixels, noise))
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(ours, model.anomaly(from_uint8(pixels))["score"], rtol=1e-3)


def test_training_does_not_see_it(build_small, images, tmp_path):
    weights = []
    for shown in (images, painted(images, region(48))):
        rows = [{"image": x, "label": 0, "mask": np.zeros((48, 48, 1), "uint8")} for x in shown]
        rows = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        stream = tf.data.Dataset.from_tensor_slices(shown)
        data = ignoring(
            tfgad.data.AnomalyData(
                spec="test:",
                image_shape=(48, 48, 1),
                train=stream,
                calibration=stream,
                test=tf.data.Dataset.from_tensor_slices(rows).take(0),
                train_size=16,
                calibration_size=16,
                test_size=0,
                has_masks=False,
            ),
            region(48),
        )
        model = build_small("ganomaly", ignored=region(48))
        batches = training_batches(data, model.training_window, batch_size=4, jitter=0.5)
        model.fit(batches, steps_per_epoch=2, verbose=0)
        weights.append([weight.numpy() for weight in model.trainable_variables])
    for one, two in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_model_without_a_region_is_as_before(fitted):
    model = fitted("ganomaly")
    assert model.ignored is None
    assert "ignored" not in model.get_config()


def test_images_of_another_size_and_wrong_regions_are_refused(build_small):
    model = build_small("ganomaly", side=32, ignored=region(32))
    for scored in (model.anomaly, model.reconstruct, model):
        with pytest.raises(UsageError, match="another size than the model's ignored region"):
            scored(np.zeros((1, 48, 32, 1), "float32"))
    for wrong, problem in (
        (region(48), "is no such region"),
        (region(32).astype("uint8"), "is no such region"),
        (np.ones((32, 32), bool), "ignores every pixel"),
        (np.zeros((32, 32), bool), "ignores no pixel"),
    ):
        with pytest.raises(UsageError, match=problem):
            build_small("ganomaly", side=32, ignored=wrong)


def test_a_region_is_one_line_of_text():
    ignored = np.random.default_rng(0).uniform(size=(13, 31)) < 0.2
    text = as_text(ignored)
    assert text.startswith("13x31:")
    np.testing.assert_array_equal(from_text(text), ignored)
    np.testing.assert_array_equal(of_config(as_config(ignored)), ignored)
    assert as_config(None) == {}
    for damaged in ("13x31", text[:-9], text.replace("13x31", "99x99"), "a" + text):
        with pytest.raises(UsageError, match="damaged"):
            from_text(damaged)


def test_filling_takes_the_mean_of_what_is_kept():
    images = np.zeros((2, 2, 2, 1), "float32")
    images[:, 0, 0] = 1
    images[1, 1, 1] = np.nan
    ignored = np.array([[False, False], [True, True]])
    filled = fill(images, ignored)
    np.testing.assert_array_equal(filled[..., 0], [[[1, 0], [0.5, 0.5]]] * 2)
    np.testing.assert_array_equal(fill(filled, ignored), filled)
    maps = leave_out(tf.constant([[[1.0, 2.0], [9.0, -9.0]]]), ignored)
    np.testing.assert_array_equal(maps, [[[1, 2], [1, 1]]])
