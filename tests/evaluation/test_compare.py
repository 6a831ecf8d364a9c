"""The figures of a bootstrap draw, beside those of scikit-learn and the exact ones."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tfgad.evaluation import compare, metrics


def test_each_draw_has_the_figures_of_its_images():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3 == 0
    scores = np.round(labels + rng.normal(0, 1, 40), 1)  # with ties
    draws = rng.integers(0, 3, (5, 40)).astype(np.float32)
    aurocs, aps = compare._ranked(labels, scores, draws)
    for draw, auroc, ap in zip(draws.astype(int), aurocs, aps, strict=True):
        drawn, of_drawn = np.repeat(labels, draw), np.repeat(scores, draw)
        assert auroc == pytest.approx(roc_auc_score(drawn, of_drawn))
        assert ap == pytest.approx(average_precision_score(drawn, of_drawn))


def test_binned_maps_have_nearly_the_exact_pixel_figures():
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 32, 32), bool)
    masks[:4, 5:12, 8:20] = True
    maps = (masks + rng.normal(0, 0.7, masks.shape)).astype(np.float32)
    aurocs, aupros = compare._binned(masks, maps, np.ones((1, 6), np.float32))
    assert aurocs[0] == pytest.approx(metrics.pixel_auroc(masks, maps), abs=0.002)
    assert aupros[0] == pytest.approx(metrics.pixel_aupro(masks, maps), abs=0.005)


def test_a_common_weakness_falls_out_of_the_difference():
    """Two runs that differ by little, on images that are hard for both."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2 == 0
    hard = labels + rng.normal(0, 1.5, 200)
    ours, theirs = hard, hard + rng.normal(0, 0.05, 200)
    draws = compare.draw_images(labels, 400, rng, np.arange(200))
    found = compare._differences(
        {"image_auroc": (0.7, compare._ranked(labels, ours, draws)[0])},
        {"image_auroc": (0.7, compare._ranked(labels, theirs, draws)[0])},
    )
    low, high = found["image_auroc"]["interval"]
    alone = np.quantile(compare._ranked(labels, ours, draws)[0], [0.025, 0.975])
    assert high - low < 0.2 * (alone[1] - alone[0])
