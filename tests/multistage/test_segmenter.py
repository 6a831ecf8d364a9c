"""The segmenter: its loss, its steps, its run, its adaptation, its export."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest

import tfgad
from tfgad import evaluation
from tfgad.core import losses
from tfgad.errors import UsageError
from tfgad.evaluation import metrics
from tfgad.export.saved_model import export_run
from tfgad.inference import predictor
from tfgad.multistage import adaptation, segmenter, segmenter_training
from tfgad.multistage.batches import segmentation_batches
from tfgad.multistage.painter import load_painter
from tfgad.multistage.sources import read_source, read_sources
from tfgad.training import runs

TINY = {"width": 4, "batch_size": 4, "steps": "2", "painted": 8, "transplanted": 4, "rehearsed": 8}
TINY |= {"adapt_steps": "2"}


@pytest.fixture(scope="module")
def run(fabrics, tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("segmenter") / "run"
    return segmenter_training.train_segmenter(fabrics, folder, settings=TINY)


def test_weighted_cross_entropy_by_hand():
    """A sound pixel at odds of 1 costs log 2, a defective one nine times that."""
    masks = np.array([0, 1]).reshape(1, 1, 2, 1)
    loss = losses.weighted_cross_entropy(masks, np.zeros((1, 1, 2, 1)), 9.0)
    assert float(loss) == pytest.approx((1 + 9) / 2 * np.log(2))


def test_batches_are_half_good_and_masks_turn_with_images():
    rng = np.random.default_rng(0)
    masks = (rng.uniform(size=(6, 16, 16, 1)) > 0.9).astype(np.uint8)
    defective = masks * np.float32(2) - 1  # the image shows its mask
    good = np.zeros((4, 16, 16, 1), "float32")
    stream = segmentation_batches(defective, masks, good, batch_size=4, seed=0)
    for images, marked in stream.take(8).as_numpy_iterator():
        assert images.shape == (4, 16, 16, 1)
        assert marked.dtype == np.uint8
        assert not marked[2:].any()
        np.testing.assert_array_equal(images[:2] > 0, marked[:2] > 0)


def test_batches_go_on_where_they_were():
    arrays = np.random.default_rng(0).uniform(-1, 1, (2, 7, 8, 8, 1)).astype("float32")
    masks = np.zeros((7, 8, 8, 1), np.uint8)

    def batches(start):
        given = {"batch_size": 4, "seed": 3, "start": start}
        return list(segmentation_batches(arrays[0], masks, arrays[1], **given).take(6))

    np.testing.assert_array_equal(batches(0)[4][0], batches(4)[0][0])


def test_it_is_a_detector(run, fabrics, tmp_path):
    images = fabrics[0].images[:4]
    judged = run.model.anomaly(images)
    assert judged["map"].shape == (4, 64, 64)
    np.testing.assert_allclose(judged["score"], judged["map"].numpy().max(axis=(1, 2)), rtol=1e-6)
    large = run.model.anomaly(np.tile(images[:1], (1, 2, 3, 1)))
    assert large["map"].shape == (1, 128, 192)
    loaded = runs.load_run(run.folder)
    np.testing.assert_allclose(loaded.model.anomaly(images)["score"], judged["score"], rtol=1e-5)
    folder = export_run(run, tmp_path / "exported")
    served = predictor.load_predictor(folder)(images[0])
    np.testing.assert_allclose(served["score"], judged["score"][0], atol=0.02)


def test_images_are_judged_by_the_threshold_and_pixels_marked_at_even_odds(run, tmp_path):
    """The threshold is one of pixels too: an image is above it exactly if one of its pixels is."""
    images = tfgad.load("weave:twill?size=64&train=2&calibration=2&test=12")
    threshold = run.calibration["threshold"]
    judged = evaluation.predict_test_set(run.model, images)
    above = judged.maps > threshold
    np.testing.assert_array_equal(above.any(axis=(1, 2)), judged.scores > threshold)
    figures = evaluation.evaluate(run, images, tmp_path)
    expected = metrics.segmentation(judged.masks, judged.maps > 0.0)
    assert {name: figures[name] for name in expected} == expected
    assert figures["iou_at_threshold"] == metrics.segmentation(judged.masks, above)["iou"]


def test_it_learns(fabrics, tmp_path):
    settings = {**TINY, "width": 8, "steps": "60", "batch_size": 8}
    longer = segmenter_training.train_segmenter(fabrics, tmp_path / "run", settings=settings)
    maps = longer.model.anomaly(fabrics[0].images)["map"].numpy()
    masks = fabrics[0].masks[..., 0] > 0
    assert maps[masks].mean() > maps[~masks].mean() + 0.5


def test_broken_off_adaptation_goes_on_to_the_same_segmenter(
    run, fabrics, painter_folder, tmp_path
):
    """Dropout, the order of images and the rate go on where they were, the first two by seed."""
    painter = load_painter(painter_folder)
    twill = tfgad.load("weave:twill?size=64&train=6&calibration=4&test=2")

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.save_weights(tmp_path / "resumed" / runs.CHECKPOINT)
                raise KeyboardInterrupt

    def adapted(name, **arguments):
        settings = {"adapt_steps": "4"}
        return adaptation.adapt_segmenter(
            run, painter, twill, fabrics, tmp_path / name, settings=settings, **arguments
        )

    whole = adapted("whole")
    keras.utils.set_random_seed(99)  # whatever went before must not matter
    with pytest.raises(KeyboardInterrupt):
        adapted("resumed", callbacks=lambda *_: [Stop()])
    keras.utils.set_random_seed(98)
    resumed = adapted("resumed", resume=True)
    for a, b in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_rate_of_an_adaptation_falls_to_nothing(run):
    model = adaptation.renewed(run.model, 0.1, 10)
    optimizer = model.optimizer_by_role["network"]
    rates = []
    for step in (0, 5, 10):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0.1, 0.1 * 0.5**0.9, 0.0], rtol=1e-6)


def test_adapting_trains_a_copy_on_painted_defects(run, fabrics, painter_folder, tmp_path):
    painter = load_painter(painter_folder)
    twill = tfgad.load("weave:twill?size=64&train=6&calibration=4&test=12")
    before = [w.copy() for w in run.model.get_weights()]
    adapted = adaptation.adapt_segmenter(run, painter, twill, fabrics, tmp_path / "twill")
    for old, now in zip(before, run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    assert statistics_of(run.model)
    for old, now in zip(statistics_of(run.model), statistics_of(adapted.model), strict=True):
        np.testing.assert_array_equal(old, now)
    learnt = zip(run.model.get_weights(), adapted.model.get_weights(), strict=True)
    assert any((old != now).any() for old, now in learnt)
    assert adapted.config["data"] == twill.spec
    assert adapted.config["painter"] == painter.config["data"]
    assert adapted.config["images"]["defective"] == 8 + 4 + 8
    figures = evaluation.evaluate(adapted, twill)
    assert 0 <= figures["iou"] <= figures["f_measure"] <= 1
    assert (tmp_path / "twill" / "report.html").is_file()


def test_painted_defects_alone_will_do(run, fabrics, painter_folder, tmp_path):
    """As in the paper."""
    twill = tfgad.load("weave:twill?size=64&train=6&calibration=4&test=2")
    settings = {"painted": 4, "transplanted": 0, "rehearsed": 0, "adapt_steps": "1"}
    adapted = adaptation.adapt_segmenter(
        run, load_painter(painter_folder), twill, fabrics, tmp_path / "twill", settings=settings
    )
    assert adapted.config["images"]["defective"] == 4


def test_without_a_painter_all_are_transplanted(run, fabrics, tmp_path):
    twill = tfgad.load("weave:twill?size=64&train=6&calibration=4&test=2")
    settings = {"rehearsed": 0, "adapt_steps": "1"}
    adapted = adaptation.adapt_segmenter(
        run, None, twill, fabrics, tmp_path / "twill", settings=settings
    )
    assert adapted.config["images"]["defective"] == TINY["painted"] + TINY["transplanted"]
    assert adapted.config["painter"] is None
    again = adaptation.adapt_segmenter(
        run, None, twill, fabrics, tmp_path / "twill", settings=settings, resume=True
    )
    assert again.config == adapted.config


def statistics_of(model):
    """The averages of batch normalisation."""
    return [w.numpy() for w in model.network.weights if w.name.startswith("moving_")]


@pytest.mark.parametrize("count", [0, 5, 40])
def test_known_defects_are_rehearsed_beside_painted_ones(fabrics, count):
    """Each is one of the known with its own mask; none twice while there are enough."""
    painted = {"defective": np.full((3, 64, 64, 1), 2.0), "masks": np.ones((3, 64, 64, 1))}
    both = adaptation.rehearsing(painted, fabrics, count, seed=1)
    np.testing.assert_array_equal(both["defective"][:3], painted["defective"])
    assert len(both["defective"]) == len(both["masks"]) == 3 + count
    known = {
        (image.tobytes(), mask.tobytes())
        for fabric in fabrics
        for image, mask in zip(fabric.images, fabric.masks, strict=True)
    }
    rehearsed = zip(both["defective"][3:].astype("float32"), both["masks"][3:], strict=True)
    found = {(image.tobytes(), mask.astype("uint8").tobytes()) for image, mask in rehearsed}
    assert found <= known
    assert len(found) == count or count > len(known)


def test_only_a_segmenter_of_the_same_images_is_adapted(
    run, fabrics, painter_folder, build_small, tmp_path
):
    painter = load_painter(painter_folder)
    colour = tfgad.load("weave:twill?size=64&channels=3&train=2&calibration=2&test=2")
    with pytest.raises(UsageError, match="channels=1"):
        adaptation.adapt_segmenter(run, painter, colour, fabrics, tmp_path / "a")
    other = runs.Run(tmp_path, {**run.config, "method": "ganomaly"}, build_small("ganomaly"))
    other.save()
    with pytest.raises(UsageError, match="is a ganomaly"):
        segmenter_training.load_segmenter(tmp_path)


def test_images_of_several_sizes_are_refused(fabrics, tmp_path):
    few = tfgad.load("weave:plain?size=32&train=2&calibration=2&test=2")
    with pytest.raises(UsageError, match="several sizes"):
        segmenter_training.train_segmenter([*fabrics, read_source(few)], tmp_path / "a")


def test_an_unknown_backbone_is_refused(fabrics, tmp_path):
    with pytest.raises(UsageError, match="resnet50"):
        segmenter_training.train_segmenter(
            fabrics, tmp_path / "run", settings={**TINY, "backbone": "resnet"}
        )
    assert not (tmp_path / "run").exists()


@pytest.fixture
def twill():
    """Good twill, and a few of its own defects."""
    return tfgad.load("weave:twill?size=64&train=6&calibration=4&test=2")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"width": 8}, "setting 'width': is not one of adapting"),
        ({"steps": "3"}, "adapt_steps"),
        ({"adapt_steps": "2x"}, "positive number"),
        ({"batch_size": 1}, "half of a batch"),
    ],
)
def test_what_adapting_cannot_use_is_refused_before_anything_is_made(
    run, fabrics, twill, settings, fault, tmp_path, monkeypatch
):
    monkeypatch.delattr(adaptation, "transplanted")
    with pytest.raises(UsageError, match=fault):
        adaptation.adapt_segmenter(run, None, twill, fabrics, tmp_path / "a", settings=settings)
    assert not (tmp_path / "a").exists()


def test_a_run_is_not_adapted_in_its_own_place(run, fabrics, twill):
    with pytest.raises(UsageError, match="another folder"):
        adaptation.adapt_segmenter(run, None, twill, fabrics, run.folder, overwrite=True)
    assert runs.load_run(run.folder).config == run.config


def test_one_good_image_is_too_few_for_a_threshold(run, fabrics, tmp_path):
    few = "weave:twill?size=64&train=6&calibration=1&test=12"
    with pytest.raises(UsageError, match="too few good images"):
        adaptation.adapt_segmenter(run, None, tfgad.load(few), fabrics, tmp_path / "a")
    with pytest.raises(UsageError, match="too few good images"):
        segmenter_training.train_segmenter([read_source(tfgad.load(few))], tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_adaptation_is_resumed_with_the_same_run_and_painter_alone(
    run, fabrics, twill, painter_folder, tmp_path
):
    painter = load_painter(painter_folder)
    arguments = {"images": twill, "known": fabrics, "out": tmp_path / "a"}
    adaptation.adapt_segmenter(run, painter, **arguments)
    adaptation.adapt_segmenter(run, painter, **arguments, resume=True)
    other = dataclasses.replace(painter, config=painter.config | {"seed": 7})
    with pytest.raises(UsageError, match="was begun with painter_seed 0, not 7"):
        adaptation.adapt_segmenter(run, other, **arguments, resume=True)
    other = dataclasses.replace(run, config=run.config | {"seed": 7})
    with pytest.raises(UsageError, match="was begun with base_seed 0, not 7"):
        adaptation.adapt_segmenter(other, painter, **arguments, resume=True)


def test_a_segmenter_is_not_judged_by_what_taught_its_painter(
    run, fabrics, painter_folder, tmp_path
):
    own = tfgad.load("weave:plain?size=64&train=6&calibration=4&test=2")
    ignorant = dataclasses.replace(run, config=run.config | {"sources": []})
    adapted = adaptation.adapt_segmenter(
        ignorant, load_painter(painter_folder), own, fabrics, tmp_path / "a"
    )
    with pytest.raises(UsageError, match="has test images that the model was trained on"):
        evaluation.evaluate(adapted, own)


def test_images_of_odd_sides_are_cut_into_windows_that_touch():
    model, _ = segmenter.build((33, 33, 1), backbone="small", width=4, rate=1e-3)
    assert model.stride == 33
    assert model.anomaly(np.zeros((1, 70, 40, 1), "float32"))["map"].shape == (1, 70, 40)
    assert segmenter.build((48, 32, 1), backbone="small", width=4, rate=1e-3)[0].stride == 8


def test_weights_of_another_backbone_are_refused(fabrics, tmp_path):
    with pytest.raises(UsageError, match="backbone=resnet50"):
        segmenter_training.train_segmenter(
            fabrics, tmp_path / "run", settings=TINY, backbone_weights="random"
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_resnet50_is_trained_saved_and_adapted(tmp_path):
    twill = tfgad.load("weave:twill?size=32&train=2&calibration=2&test=2")
    fabrics = [read_source(tfgad.load("weave:plain?size=32&train=2&calibration=2&test=12"))]
    settings = {**TINY, "backbone": "resnet50", "steps": "1", "adapt_steps": "1", "batch_size": 2}
    arguments = {"out": tmp_path / "base", "settings": settings, "backbone_weights": "random"}
    run = segmenter_training.train_segmenter(fabrics, **arguments)
    assert run.config["backbone_weights"] == "random"
    with pytest.raises(UsageError, match="was begun with backbone_weights 'random'"):
        segmenter_training.train_segmenter(
            fabrics, **{**arguments, "backbone_weights": "imagenet"}, resume=True
        )
    adapted = adaptation.adapt_segmenter(run, None, twill, fabrics, tmp_path / "adapted")
    assert statistics_of(run.model)
    for old, now in zip(statistics_of(run.model), statistics_of(adapted.model), strict=True):
        np.testing.assert_array_equal(old, now)
    learnt = zip(run.model.get_weights(), adapted.model.get_weights(), strict=True)
    assert any((old != now).any() for old, now in learnt)
    assert np.isfinite(adapted.model.anomaly(fabrics[0].good[:1])["score"]).all()


def test_a_finished_run_is_not_replaced_unasked(run, fabrics):
    with pytest.raises(UsageError, match="--overwrite"):
        segmenter_training.train_segmenter(fabrics, run.folder, settings=TINY)
    resumed = segmenter_training.train_segmenter(fabrics, run.folder, settings=TINY, resume=True)
    for old, now in zip(run.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


def test_segmentation_figures_by_hand():
    masks = np.array([[1, 1, 0, 0, 0, 0, 0, 0]])
    marked = np.array([[1, 0, 1, 0, 0, 0, 0, 0]])
    figures = metrics.segmentation(masks, marked)
    assert figures["iou"] == pytest.approx(1 / 3)
    assert figures["mean_iou"] == pytest.approx((1 / 3 + 5 / 7) / 2)
    assert figures["pixel_precision"] == figures["pixel_recall"] == figures["f_measure"] == 0.5
    assert metrics.segmentation(masks, 0 * masks)["pixel_precision"] is None
    assert set(metrics.segmentation(0 * masks, marked).values()) == {None}


def test_a_segmenter_keeps_the_names_of_its_files(parts, fabrics, stop, tmp_path):
    """By them it is resumed with the same images alone, and judged by others alone."""
    specs = [f"folder:{parts}?tile=64", "weave:plain?size=64&train=2&calibration=2&test=12"]
    out = tmp_path / "run"

    def trained(**arguments):
        sources = read_sources(specs)
        return segmenter_training.train_segmenter(sources, out, settings=TINY, **arguments)

    with pytest.raises(KeyboardInterrupt):
        trained(callbacks=stop)
    dent = parts / "test" / "dent" / "0.png"
    before = dent.read_bytes()
    shutil.copy(parts / "test" / "dent" / "1.png", dent)
    with pytest.raises(UsageError, match=rf"with other images: 1 \({dent}\) changed"):
        trained(resume=True)
    dent.write_bytes(before)
    run = trained(resume=True)

    images = tfgad.load(specs[0], seed=3)  # which splits otherwise
    assert images.files.calibration != tfgad.load(specs[0]).files.calibration
    calibration = runs.calibrate(run, images, 0.01)
    assert calibration["images"] == tfgad.load(specs[0]).calibration_size
    shutil.copytree(parts, tmp_path / "copy")
    with pytest.raises(UsageError, match="holds only test images"):
        evaluation.evaluate(run, tfgad.load(f"folder:{tmp_path / 'copy'}?tile=64"))
