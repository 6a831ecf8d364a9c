"""The segmenter: its loss, its batches, its steps, its run, its export."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

import tfgad
from tfgad import evaluation
from tfgad.core import losses
from tfgad.core.settings import parse
from tfgad.errors import UsageError
from tfgad.evaluation import metrics
from tfgad.export.saved_model import export_run
from tfgad.inference import predictor
from tfgad.multistage import adaptation, segmenter
from tfgad.multistage.batches import segmentation_batches
from tfgad.multistage.segmenter_config import SegmenterConfig
from tfgad.multistage.segmenter_training import load_segmenter, train_segmenter
from tfgad.multistage.sources import read_source, read_sources
from tfgad.training import Run, calibrate, load_run
from tfgad.training.run_folder import CONFIG

pytestmark = pytest.mark.slow  # for the models that it trains

SMALL = SegmenterConfig(width=4)


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


def test_batches_start_at_any_number():
    arrays = np.random.default_rng(0).uniform(-1, 1, (2, 7, 8, 8, 1)).astype("float32")
    masks = np.zeros((7, 8, 8, 1), np.uint8)

    def batches(start):
        given = {"batch_size": 4, "seed": 3, "start": start}
        return list(segmentation_batches(arrays[0], masks, arrays[1], **given).take(6))

    np.testing.assert_array_equal(batches(0)[4][0], batches(4)[0][0])


def test_it_is_a_detector(run, fabrics, tmp_path):
    images = fabrics[0].images[:4]
    found = run.model.anomaly(images)
    assert found["map"].shape == (4, 64, 64)
    np.testing.assert_allclose(found["score"], found["map"].numpy().max(axis=(1, 2)), rtol=1e-6)
    large = run.model.anomaly(np.tile(images[:1], (1, 2, 3, 1)))
    assert large["map"].shape == (1, 128, 192)
    loaded = load_run(run.folder)
    np.testing.assert_allclose(loaded.model.anomaly(images)["score"], found["score"], rtol=1e-5)
    folder = export_run(run, tmp_path / "exported")
    served = predictor.load_predictor(folder)(images[0])
    np.testing.assert_allclose(served["score"], found["score"][0], atol=0.02)


@pytest.mark.integration
def test_its_run_is_read_by_a_process_that_trained_none(run):
    code = f"import tfgad; print(type(tfgad.load_model({str(run.folder)!r})).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "Segmenter", done.stderr


def test_images_are_called_anomalous_by_the_threshold_and_pixels_at_even_odds(run, tmp_path):
    """The threshold is one of pixels too: an image is above it exactly if one of its pixels is."""
    images = tfgad.load("weave:twill?size=64&train=2&calibration=2&test=12")
    threshold = run.calibration["threshold"]
    predictions = evaluation.predict_test_set(run.model, images)
    above = predictions.maps > threshold
    np.testing.assert_array_equal(above.any(axis=(1, 2)), predictions.scores > threshold)
    figures = evaluation.evaluate(run, images, tmp_path)
    expected = metrics.segmentation(predictions.masks, predictions.maps > 0.0)
    assert {name: figures[name] for name in expected} == expected
    assert figures["iou_at_threshold"] == metrics.segmentation(predictions.masks, above)["iou"]


def test_it_learns(fabrics, tiny_segmenter, tmp_path):
    settings = replace(tiny_segmenter, width=8, steps=60, batch_size=8)
    longer = train_segmenter(fabrics, tmp_path / "run", settings=settings)
    maps = longer.model.anomaly(fabrics[0].images)["map"].numpy()
    masks = fabrics[0].masks[..., 0] > 0
    assert maps[masks].mean() > maps[~masks].mean() + 0.5


def test_images_of_several_sizes_are_refused(fabrics, tmp_path):
    few = tfgad.load("weave:plain?size=32&train=2&calibration=2&test=2")
    with pytest.raises(UsageError, match="several sizes"):
        train_segmenter([*fabrics, read_source(few)], tmp_path / "a")


def test_an_unknown_backbone_is_refused():
    with pytest.raises(UsageError, match="resnet50"):
        parse(SegmenterConfig, {"backbone": "resnet"}, of="the segmenter")


def test_one_good_image_is_too_few_for_a_threshold(run, fabrics, tmp_path):
    few = tfgad.load("weave:twill?size=64&train=6&calibration=1&test=12")
    with pytest.raises(UsageError, match="too few good images"):
        adaptation.adapt_segmenter(run, None, few, fabrics, tmp_path / "a")
    with pytest.raises(UsageError, match="too few good images"):
        train_segmenter([read_source(few)], tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_only_the_run_of_a_segmenter_is_loaded(run, build_small, tmp_path):
    other = Run(tmp_path, {**run.config, "method": "ganomaly"}, build_small("ganomaly"))
    other.save()
    with pytest.raises(UsageError, match="is a ganomaly"):
        load_segmenter(tmp_path)


def test_images_of_odd_sides_are_cut_into_windows_that_touch():
    model, _ = segmenter.build(SMALL, (33, 33, 1))
    assert model.stride == 33
    assert model.anomaly(np.zeros((1, 70, 40, 1), "float32"))["map"].shape == (1, 70, 40)
    assert segmenter.build(SMALL, (48, 32, 1))[0].stride == 8


def test_a_segmenter_of_an_older_version_is_loaded():
    """Its file has the network and the constructor's arguments side by side, and no `config`."""
    model, _ = segmenter.build(SMALL, (32, 32, 1), seed=3)
    saved = {"name": "old", "seed": 3, "score": "defect", "stride": 16, "tile": (32, 32)}
    saved["network"] = keras.saving.serialize_keras_object(model.network)
    loaded = segmenter.Segmenter.from_config(saved)
    assert (loaded.name, loaded.seed, loaded.score, loaded.stride) == ("old", 3, "defect", 16)
    assert loaded.window == (32, 32, 1)
    shapes = [[w.shape for w in each.network.weights] for each in (loaded, model)]
    assert shapes[0] == shapes[1]


def test_weights_of_another_backbone_are_refused(fabrics, tiny_segmenter, tmp_path):
    with pytest.raises(UsageError, match="backbone=resnet50"):
        train_segmenter(
            fabrics, tmp_path / "run", settings=tiny_segmenter, backbone_weights="random"
        )
    assert not (tmp_path / "run").exists()


def test_lite0_needs_weights(fabrics, tiny_segmenter, tmp_path):
    settings = replace(tiny_segmenter, backbone="lite0")
    with pytest.raises(UsageError, match="Lite0 weights 'None': are needed"):
        train_segmenter(fabrics, tmp_path / "run", settings=settings)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_replaced_unasked(run, fabrics, tiny_segmenter):
    with pytest.raises(UsageError, match="--overwrite"):
        train_segmenter(fabrics, run.folder, settings=tiny_segmenter)
    resumed = train_segmenter(fabrics, run.folder, settings=tiny_segmenter, resume=True)
    for old, now in zip(run.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


def test_a_run_with_the_configuration_of_an_older_version_is_resumed(
    run, fabrics, tiny_segmenter, tmp_path
):
    """Its settings are strings, and it has `sources` in place of `learnt_from`."""
    folder = shutil.copytree(run.folder, tmp_path / "old")
    config = json.loads((folder / CONFIG).read_text())
    sources = config.pop("learnt_from")
    assert config["sources"] == sources
    config["settings"] |= {"steps": "2", "adapt_steps": "2"}
    (folder / CONFIG).write_text(json.dumps(config))
    resumed = train_segmenter(fabrics, folder, settings=tiny_segmenter, resume=True)
    assert resumed.config["learnt_from"] == sources
    with pytest.raises(UsageError, match="was started with steps 2, not 3"):
        train_segmenter(fabrics, folder, settings=replace(tiny_segmenter, steps=3), resume=True)


def test_segmentation_figures_by_hand():
    masks = np.array([[1, 1, 0, 0, 0, 0, 0, 0]])
    marked = np.array([[1, 0, 1, 0, 0, 0, 0, 0]])
    figures = metrics.segmentation(masks, marked)
    assert figures["iou"] == pytest.approx(1 / 3)
    assert figures["mean_iou"] == pytest.approx((1 / 3 + 5 / 7) / 2)
    assert figures["pixel_precision"] == figures["pixel_recall"] == figures["f_measure"] == 0.5
    assert metrics.segmentation(masks, 0 * masks)["pixel_precision"] is None
    assert set(metrics.segmentation(0 * masks, marked).values()) == {None}
    everywhere = metrics.segmentation(masks | 1, masks | 1)
    assert (everywhere["iou"], everywhere["mean_iou"]) == (1, 1)  # there is no background


def test_a_segmenter_keeps_the_names_of_its_files(parts, stop, tiny_segmenter, tmp_path):
    """They must be the same to resume it, and other ones to evaluate it."""
    specs = [f"folder:{parts}?tile=64", "weave:plain?size=64&train=2&calibration=2&test=12"]
    out = tmp_path / "run"

    def trained(**arguments):
        return train_segmenter(read_sources(specs), out, settings=tiny_segmenter, **arguments)

    with pytest.raises(KeyboardInterrupt):
        trained(callbacks=stop)
    dent = parts / "test" / "dent" / "0.png"
    before = dent.read_bytes()
    shutil.copy(parts / "test" / "dent" / "1.png", dent)
    with pytest.raises(UsageError, match=rf"with other images: 1 \({dent}\) changed"):
        trained(resume=True)
    dent.write_bytes(before)
    run = trained(resume=True)

    images = tfgad.load(specs[0], seed=3)  # with another split
    assert images.files.calibration != tfgad.load(specs[0]).files.calibration
    calibration = calibrate(run, images, 0.01)
    assert calibration["images"] == tfgad.load(specs[0]).calibration_size
    shutil.copytree(parts, tmp_path / "copy")
    with pytest.raises(UsageError, match="holds only test images"):
        evaluation.evaluate(run, tfgad.load(f"folder:{tmp_path / 'copy'}?tile=64"))
