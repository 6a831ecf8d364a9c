"""An exported painter: what it paints, what it refuses, and that it needs no tfgad."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tfgad.data.pixels import from_uint8, to_uint8
from tfgad.errors import UsageError
from tfgad.export import warmup
from tfgad.multistage import defect_generator, fusion, painting_in_graph
from tfgad.multistage.defect_generator import DefectGenerator
from tfgad.multistage.painter import LEAST_MASK, Painter
from tfgad.multistage.painter_config import PainterConfig
from tfgad.multistage.painter_export import METADATA, PAINT, export_painter, notice_of
from tfgad.multistage.painting_in_graph import Painting
from tfgad.multistage.pasting import WINDOW_SIDES, draw_window
from tfgad.multistage.patches import PATCH
from tfgad.multistage.style import CODE_DIM, LAYER, style_network
from tfgad.networks.defects import MASK
from tfgad.networks.vgg import feature_extractor, grey_or_colour

KINDS = "hole", "slub", "knot", "stain"
SHAPE = 96, 128, 1

# Run by a Python that finds neither tfgad nor, being isolated, PYTHONPATH and its own folder.
PLAIN_TENSORFLOW = """
import sys
sys.modules["tfgad"] = sys.modules["keras"] = None  # importing them fails
import numpy as np
import tensorflow as tf
with np.load("inputs.npz") as inputs:
    inputs = {name: tf.constant(value) for name, value in inputs.items()}
np.savez("outputs.npz", **tf.saved_model.load(sys.argv[1]).signatures["paint"](**inputs))
"""


def new_painter(ground):
    """A painter with its first weights, and a fusion network that changes what it fuses."""
    features, _ = feature_extractor(LAYER, "random")
    config = PainterConfig(ground=ground, latent_dim=8, width=4, fusion_width=4)
    generator = defect_generator.build(config, (PATCH, PATCH, 2), CODE_DIM, len(KINDS))
    fused = fusion.build(config, 1, grey_or_colour(features, 1))
    rng = np.random.default_rng(0)
    for weight in fused.fuser.trainable_weights[-2:]:  # zeros at first
        weight.assign(rng.normal(0.0, 0.1, weight.shape))
    style = style_network(features, 1)
    components = style.get_layer("gram_code").components
    components.assign(rng.normal(0.0, 1.0, components.shape))
    return Painter(style, generator, fused, {"kinds": KINDS, "data": ["weave:plain"]})


@pytest.fixture(scope="module", params=["fabric", "nothing"])
def untrained(request):
    """A small painter on each ground; nobody may change it."""
    return new_painter(request.param)


@pytest.fixture(scope="module")
def images():
    """Four images of noise, uint8."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.standard_normal((4, *SHAPE)), (0, 1, 1, 0))
    return to_uint8(np.clip(noise * 2, -1, 1))


@pytest.fixture(scope="module")
def drawing(untrained):
    """The signature of a painter that draws squares in the middle of its window.

    A hole is one of 10 pixels. A slub is that or nothing, by its seed; a knot is that, cut off or
    nothing. A stain is nothing.
    """

    def generate(self, style, kind, fabric, seed=0, compiled=True):
        made = tf.zeros([1, PATCH, PATCH, 5 if self.on_fabric else 2])
        side = tf.stack([10, 10 * int_of(seed % 2 == 0), size_of_knot(seed), 0])
        near = tf.abs(tf.range(PATCH) - PATCH // 2) < tf.gather(side, kind[0]) // 2
        mask = tf.where(near[:, None] & near, 1.0, -1.0)[None, ..., None]
        channel = made.shape[-1] + (MASK if self.on_fabric else -1)
        # A black square of full opacity.
        parts = [made[..., :1] - 1.0, made[..., 1:channel] + 1.0, mask, made[..., channel + 1 :]]
        return tf.concat(parts, axis=-1)

    def int_of(condition):
        return tf.cast(condition, tf.int32)

    def size_of_knot(seed):
        return tf.gather([10, 2 * PATCH, 0, 0], tf.cast(seed % 4, tf.int32))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DefectGenerator, "generate", generate)
        return in_graph(untrained)


def in_graph(painter):
    """Returns the signature `paint` of a painter, not saved."""
    painting = Painting(painter)
    traced = tf.function(painting.paint, painting.inputs, autograph=False).get_concrete_function()

    def paint(images, kind, seed):
        inputs = tf.constant(images), tf.constant(kind), tf.constant(seed, tf.int64)
        return {name: value.numpy() for name, value in traced(*inputs).items()}

    return paint


def test_defects_are_laid_and_fused_as_in_python(untrained, images):
    """With the window, z and turn of the Python painter."""
    painting, rng = Painting(untrained), np.random.default_rng(1)
    form = [tf.TensorSpec(SHAPE), *[tf.TensorSpec(n, tf.int32) for n in ((), 3, ())]]

    @tf.function(input_signature=[*form, tf.TensorSpec((), tf.int64)], autograph=False)
    def painted(image, label, window, turn, seed):
        candidate = painting.candidate(image, label, window, turn, seed)
        pasted = painting.pasted(image, candidate, window)
        return pasted, untrained.fusion.fused(image[None], pasted[None])[0]

    goods, turns = from_uint8(images), set()
    for seed, good in enumerate([*goods, *goods, *goods]):
        window, label = draw_window(SHAPE, rng), seed % len(KINDS)
        (turn,) = np.random.default_rng(seed).integers(4, size=1)  # as `Painter.draw` does
        turns.add(int(turn))
        expected = untrained.draw(good[None], [KINDS[label]], [window], seed)
        found, fused = painted(good, label, window, int(turn), seed)
        np.testing.assert_allclose(found, expected[0], atol=1e-4)
        expected = untrained.fusion.fused(tf.constant(good[None]), tf.constant(expected))[0]
        np.testing.assert_allclose(fused, expected, atol=1e-4)
        assert np.abs(fused - good).max() > 0.05
    assert turns == {0, 1, 2, 3}


def test_it_paints_the_mask_and_its_rim_alone(drawing, images):
    answers = drawing(images, ["hole"] * 4, [1, 2, 3, 4])
    assert answers["images"].shape == images.shape
    assert {str(answers[name].dtype) for name in ("images", "masks")} == {"uint8"}
    masks = answers["masks"]
    assert masks.shape == (4, *SHAPE)
    assert set(np.unique(masks)) == {0, 1}
    np.testing.assert_array_equal(answers["area"], masks.sum((1, 2, 3)))
    assert len({np.flatnonzero(mask)[0] for mask in masks}) == 4  # in other windows
    away = fusion.rim(masks.astype("float32")).numpy() == 0
    np.testing.assert_array_equal(answers["images"][away], images[away])
    for image, good, mask in zip(answers["images"], images, masks, strict=True):
        assert LEAST_MASK <= mask.sum() <= 14**2  # of 10 pixels, in a window of 80 at most
        assert (image != good)[mask > 0].mean() > 0.5


def test_a_defect_that_is_too_small_or_cut_off_is_drawn_again(drawing, images):
    seeds = np.arange(12)
    answers = drawing(images[seeds % 4], np.array(["slub", "knot"])[seeds % 2], seeds)
    assert (answers["area"] > 0).all()
    small = answers["area"] <= 14**2
    assert small[seeds % 2 == 0].all()  # slubs
    assert small[seeds % 2 == 1].sum() >= 3  # knots: three tries of four give none that is whole


def test_without_a_defect_the_image_is_unchanged_and_the_area_is_zero(drawing, images):
    answers = drawing(images, ["hole", "stain", "stain", "hole"], [1, 2, 3, 4])
    np.testing.assert_array_equal(answers["area"] > 0, [True, False, False, True])
    np.testing.assert_array_equal(answers["images"][1:3], images[1:3])
    assert not answers["masks"][1:3].any()


@pytest.fixture(scope="module")
def paint(untrained):
    """The signature of the painter as it is."""
    return in_graph(untrained)


def test_an_image_depends_on_its_kind_and_seed_and_not_on_its_batch(paint, images):
    same = np.repeat(images[:1], 4, axis=0)
    together = paint(same, ["hole", "hole", "hole", "slub"], [7, 7, -(2**62), 7])
    np.testing.assert_array_equal(together["images"][0], together["images"][1])
    for other in together["images"][2:]:
        assert (other != together["images"][0]).any()
    with_others = paint(images[[2, 0]], ["knot", "hole"], [1, 7])
    alone = paint(images[:1], ["hole"], [7])
    for name, value in alone.items():
        np.testing.assert_array_equal(value[0], together[name][0])
        np.testing.assert_array_equal(value[0], with_others[name][1])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"images": np.zeros((2, *SHAPE[:2], 3), np.uint8)}, "number of channels must be 1"),
        ({"images": np.zeros((2, 60, 64, 1), np.uint8)}, "sides of at least 64"),
        ({"images": np.zeros((2, 66, 64, 1), np.uint8)}, "multiples of 4"),
        ({"kind": ["hole", "slab"]}, "the kinds of this painter are hole, slub, knot, stain"),
        ({"kind": ["hole"]}, "as many kinds and seeds"),
        ({"seed": [1, 2, 3]}, "as many kinds and seeds"),
        ({"images": np.zeros((0, *SHAPE), np.uint8), "kind": np.zeros(0, "S1"), "seed": []}, "one"),
    ],
)
def test_what_cannot_be_painted_is_refused(paint, images, change, fault):
    inputs = {"images": images[:2], "kind": ["hole", "slub"], "seed": [1, 2]}
    with pytest.raises(tf.errors.InvalidArgumentError, match=fault):
        paint(**{**inputs, **change})


def test_windows_lie_in_the_image_and_have_all_sides():
    windows = [
        painting_in_graph._draw_window(tf.constant([64, 120]), tf.constant(seed, tf.int64)).numpy()
        for seed in range(200)
    ]
    rows, columns, sides = np.transpose(windows)
    assert (sides.min(), sides.max()) == (WINDOW_SIDES[0], 64)  # no larger than the image
    assert min(rows.min(), columns.min()) == 0
    assert (rows + sides).max() == 64
    assert 115 < (columns + sides).max() <= 120


@pytest.fixture(scope="module")
def exported(painter, tmp_path_factory):
    """The second version of a trained painter."""
    folder = tmp_path_factory.mktemp("exported")
    assert export_painter(painter, folder).name == "1"
    return export_painter(painter, folder)


@pytest.mark.slow
def test_versions_are_numbered_and_have_their_metadata(exported, painter):
    assert exported.name == "2"
    assert sorted(each.name for each in exported.parent.iterdir()) == ["1", "2"]
    metadata = json.loads((exported / METADATA).read_text())
    assert metadata["kinds"] == list(painter.kinds)
    assert metadata["data"] == list(painter.learnt_from)
    assert metadata["channels"] == 1
    assert metadata["vgg_weights"] == "random"
    assert metadata["versions"] == painter.config["versions"]


@pytest.mark.slow
def test_pretrained_weights_have_their_notice(exported, painter):
    assert not (exported / "assets.extra" / "NOTICE").exists()
    assert notice_of(painter) == ""
    config = {**painter.config, "vgg_weights": "imagenet", "vgg_weights_network": "VGG16"}
    notice = notice_of(dataclasses.replace(painter, config=config))
    assert "VGG16 (imagenet)" in notice
    assert "Creative Commons Attribution" in notice


def test_it_has_a_warm_up_request_that_it_answers(exported):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    (record,) = tf.data.TFRecordDataset(str(exported / warmup.FILE))
    request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
    assert request.model_spec.signature_name == PAINT
    inputs = {name: tf.constant(tf.make_ndarray(each)) for name, each in request.inputs.items()}
    answer = tf.saved_model.load(exported).signatures[PAINT](**inputs)
    assert answer["images"].shape == (1, PATCH, PATCH, 1)


@pytest.mark.slow
@pytest.mark.integration
def test_plain_tensorflow_paints_as_tfgad_does(exported, painter, twill, tmp_path):
    good = np.tile(to_uint8(next(iter(twill.train.batch(2))).numpy()), (1, 2, 2, 1))
    kind, seed = [*painter.kinds[:1], *painter.kinds[-1:]], [3, 4]
    inputs = {"images": good, "kind": np.array(kind, "S"), "seed": np.array(seed, np.int64)}
    np.savez(tmp_path / "inputs.npz", **inputs)
    run = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN_TENSORFLOW, str(exported)],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    expected = in_graph(painter)(good, kind, seed)
    assert (expected["area"] >= LEAST_MASK).all()
    with np.load(tmp_path / "outputs.npz") as answers:
        np.testing.assert_array_equal(answers["masks"], expected["masks"])
        np.testing.assert_array_equal(answers["area"], expected["area"])
        difference = answers["images"].astype(int) - expected["images"]
    assert np.abs(difference).max() <= 1


def test_a_folder_that_cannot_be_written_is_refused(untrained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"folder .* cannot be written"):
        export_painter(untrained, tmp_path / "file" / "models")
