"""The figures of a bootstrap draw, beside those of scikit-learn and the exact ones."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score, roc_auc_score

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.pixels import LETTERBOX
from tfgad.evaluation import compare, metrics
from tfgad.evaluation.intervals import draw_images, drawn_pixels, drawn_ranking, interval


def test_each_draw_has_the_figures_of_its_images():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3 == 0
    scores = np.round(labels + rng.normal(0, 1, 40), 1)  # with ties
    draws = rng.integers(0, 3, (5, 40)).astype(np.float32)
    found = drawn_ranking(labels, scores, draws)
    for i, draw in enumerate(draws.astype(int)):
        drawn, of_drawn = np.repeat(labels, draw), np.repeat(scores, draw)
        exact = metrics.image_metrics(drawn, of_drawn)
        assert found["image_auroc"][i] == pytest.approx(roc_auc_score(drawn, of_drawn))
        assert found["image_ap"][i] == pytest.approx(average_precision_score(drawn, of_drawn))
        assert found["image_f1_max"][i] == pytest.approx(exact["image_f1_max"])


def test_binned_maps_have_nearly_the_exact_pixel_figures():
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 32, 32), bool)
    masks[:4, 5:12, 8:20] = True
    maps = (masks + rng.normal(0, 0.7, masks.shape)).astype(np.float32)
    found = drawn_pixels(masks, maps, np.ones((1, 6), np.float32))
    assert found["pixel_auroc"][0] == pytest.approx(metrics.pixel_auroc(masks, maps), abs=0.0005)
    assert found["pixel_aupro"][0] == pytest.approx(metrics.pixel_aupro(masks, maps), abs=0.0005)


def test_a_common_weakness_falls_out_of_the_difference():
    """Two runs that differ by little, on images that are hard for both."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2 == 0
    hard = labels + rng.normal(0, 1.5, 200)
    ours, theirs = hard, hard + rng.normal(0, 0.05, 200)
    draws = draw_images(labels, 400, rng, np.arange(200))
    one, other = (drawn_ranking(labels, each, draws)["image_auroc"] for each in (ours, theirs))
    found = compare._differences({"image_auroc": (0.7, one)}, {"image_auroc": (0.7, other)})
    low, high = found["image_auroc"]["interval"]
    alone = interval(one)
    assert high - low < 0.2 * (alone[1] - alone[0])


def test_images_that_are_fitted_in_another_way_have_no_pixels_in_common():
    none = tf.data.Dataset.from_tensor_slices(np.zeros((0, 4, 4, 1), np.float32))
    one = AnomalyData("x", (4, 4, 1), none, none, none, 0, 0, 1, True, resized=True)
    found = SimpleNamespace(names=["dent/a.png"])
    for fit, alike in ((one.fit, True), (LETTERBOX, False)):
        other = dataclasses.replace(one, fit=fit)
        assert compare._are_alike([one, other], [found, found]) == alike
