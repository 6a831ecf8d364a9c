import json

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from tfgad.evaluation import intervals, metrics, pixel_metrics

KEYS = [
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_aupro",
    "threshold",
    "false_positive_rate",
    "recall",
]


def make_test_set(n=40, size=24, levels=None, seed=0):
    """Half the images hold one or two squares on which map and score are higher."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    masks = np.zeros((n, size, size, 1), np.uint8)
    for mask in masks[1::2]:
        for _ in range(rng.integers(1, 3)):
            y, x = rng.integers(0, size - 6, 2)
            mask[y : y + rng.integers(1, 6), x : x + rng.integers(1, 6)] = 1
    maps = (rng.normal(size=(n, size, size)) + 1.5 * masks[..., 0]).astype(np.float32)
    if levels:
        maps = np.round(maps * levels) / levels
    return labels, maps.max((1, 2)), masks, maps


def brute_force_aupro(masks, maps, limit):
    """Follows the definition: every threshold, every region, then the trapezoid rule."""
    regions = []
    for index, mask in enumerate(masks[..., 0]):
        numbered, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [maps[index][numbered == number] for number in range(1, count + 1)]
    normal = maps[masks[..., 0] == 0]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        overlap = np.mean([np.mean(region >= threshold) for region in regions])
        points.append((np.mean(normal >= threshold), overlap))
    x, y = np.array(points).T
    inside = x < limit
    x, y = np.append(x[inside], limit), np.append(y[inside], np.interp(limit, x, y))
    return auc(x, y) / limit


def test_image_metrics_by_hand():
    # Ranks from the top: 1 0 1 0. Pairs won 3 of 4; precision 1/1 and 2/3 at the two hits;
    # F1 of the top three: precision 2/3, recall 1.
    figures = metrics.image_metrics([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.9])
    assert figures["image_auroc"] == pytest.approx(0.75)
    assert figures["image_ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["image_f1_max"] == pytest.approx(0.8)


@pytest.mark.parametrize("levels", [None, 2])
def test_pixel_auroc_is_scikit_learns(levels):
    _, _, masks, maps = make_test_set(levels=levels)
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert metrics.pixel_auroc(masks, maps) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2], ids=["distinct", "tied"])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_pixel_aupro_is_the_brute_force_one(levels, limit):
    _, _, masks, maps = make_test_set(n=8, size=12, levels=levels)
    expected = brute_force_aupro(masks, maps, limit)
    assert metrics.pixel_aupro(masks, maps, limit) == pytest.approx(expected, abs=1e-12)


def test_pixel_aupro_counts_regions_not_pixels():
    # A one-pixel region found at once, a nine-pixel region never told from the background.
    masks = np.zeros((1, 20, 20), np.uint8)
    masks[0, 0, 0] = masks[0, 10:13, 10:13] = 1
    maps = np.zeros((1, 20, 20))
    maps[0, 0, 0] = 1.0
    # The overlap starts at 1/2 and rises to 1 along the tie of all other pixels.
    assert metrics.pixel_aupro(masks, maps, limit=1.0) == pytest.approx(0.75)
    assert metrics.pixel_aupro(masks, maps, limit=0.3) == pytest.approx(0.5 + 0.15 / 2)


def test_regions_do_not_join_across_images():
    masks = np.ones((2, 2, 2), np.uint8)
    masks[0, 0] = 0
    assert pixel_metrics.region_weights(masks != 0) == pytest.approx([1 / 2] * 2 + [1 / 4] * 4)


def test_at_threshold_is_strict():
    confusion = metrics.at_threshold([0, 0, 0, 1, 1], [1.0, 2.0, 3.0, 2.0, 4.0], 2.0)
    assert confusion == {
        "false_positive_rate": pytest.approx(1 / 3),
        "recall": 0.5,
        "true_positives": 1,
        "false_positives": 1,
        "true_negatives": 2,
        "false_negatives": 1,
    }


def test_evaluate_has_every_key_and_intervals_around_the_figures():
    labels, scores, masks, maps = make_test_set()
    result = metrics.evaluate(labels, scores, masks, maps, threshold=3.5, bootstrap=200)
    assert list(result) == KEYS + [f"{key}_ci" for key in KEYS]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["threshold_ci"] is None
    for key in set(KEYS) - {"threshold"}:
        low, high = result[f"{key}_ci"]
        assert low <= result[key] <= high
        assert high - low < 0.6


def test_evaluate_is_deterministic_by_seed():
    test_set = make_test_set()
    first = metrics.evaluate(*test_set, threshold=3.5, bootstrap=50, seed=1)
    assert first == metrics.evaluate(*test_set, threshold=3.5, bootstrap=50, seed=1)
    assert first != metrics.evaluate(*test_set, threshold=3.5, bootstrap=50, seed=2)


@pytest.mark.parametrize("levels", [None, 2], ids=["distinct", "tied"])
def test_an_interval_draw_is_what_scikit_learn_says_of_the_drawn_images(levels):
    labels, scores, masks, maps = make_test_set(levels=levels)
    draw = intervals.draw_images(labels != 0, 1, np.random.default_rng(3))
    assert draw[0, labels == 1].sum() == draw[0, labels == 0].sum() == 20
    drawn = np.repeat(np.arange(len(labels)), draw[0].astype(int))
    exact = metrics.image_metrics(labels[drawn], scores[drawn])
    exact |= {
        "image_ap": average_precision_score(labels[drawn], scores[drawn]),
        "pixel_auroc": metrics.pixel_auroc(masks[drawn], maps[drawn]),
        "pixel_aupro": metrics.pixel_aupro(masks[drawn], maps[drawn]),
    }
    found = intervals.drawn_ranking(labels != 0, scores, draw)
    found |= intervals.drawn_pixels(masks[..., 0] != 0, maps, draw)
    for key, (figure,) in found.items():
        assert figure == pytest.approx(exact[key], abs=1e-3 if "pixel" in key else 1e-9)


@pytest.mark.parametrize("least", [0.0, -9.0], ids=["rectified", "rare defects"])
def test_a_draw_is_exact_where_few_pixels_are_found(least):
    rng = np.random.default_rng(0)
    masks = np.zeros((30, 64, 64), bool)
    masks[:10, 20:24, 20:24] = True  # 0.1 % of the pixels
    maps = np.maximum(rng.normal(-5, 0.5, masks.shape), least).astype("float32")
    found = masks & (rng.uniform(size=masks.shape) < 0.75)
    maps[found] = rng.uniform(0.5, 3, found.sum())
    once = intervals.drawn_pixels(masks, maps, np.ones((1, len(masks)), np.float32))
    for key in ("pixel_auroc", "pixel_aupro"):
        exact = getattr(metrics, key)(masks, maps)
        assert once[key][0] == pytest.approx(exact, abs=5e-4)
    whole = np.rint(maps).astype("int16")
    drawn = intervals.drawn_pixels(masks, whole, np.ones((1, len(masks)), np.float32))
    assert drawn["pixel_auroc"][0] == pytest.approx(metrics.pixel_auroc(masks, whole), abs=5e-4)


def test_interval_has_the_width_theory_gives():
    # The recall of 100 images at 0.5: binomial, standard deviation 0.05.
    labels, scores = np.repeat([0, 1], 100), np.tile([0.0, 1.0], 100)
    low, high = metrics.evaluate(labels, scores, threshold=0.5)["recall_ci"]
    assert high - low == pytest.approx(2 * 1.96 * 0.05, abs=0.03)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_gives_none(label):
    scores = np.array([1.0, 2.0, 3.0])
    masks = np.full((3, 4, 4), label, np.uint8)
    maps = np.zeros((3, 4, 4))
    result = metrics.evaluate(np.full(3, label), scores, masks, maps, threshold=1.5, bootstrap=20)
    defined = {"threshold", "recall" if label else "false_positive_rate"}
    assert {key for key in KEYS if result[key] is not None} == defined
    json.dumps(result, allow_nan=False)


def test_without_masks_or_threshold():
    result = metrics.evaluate([0, 1], [1.0, 2.0], bootstrap=20)
    assert result["image_auroc"] == 1.0
    assert result["pixel_aupro"] is result["pixel_aupro_ci"] is result["recall"] is None


def test_masks_all_empty_give_no_pixel_figures():
    result = metrics.evaluate([0, 1], [1.0, 2.0], np.zeros((2, 4, 4)), np.ones((2, 4, 4)))
    assert result["pixel_auroc"] is result["pixel_auroc_ci"] is None


def test_not_a_number_is_refused_with_its_count():
    with pytest.raises(ValueError, match="2 of 3 scores are NaN"):
        metrics.evaluate([0, 1, 1], [np.nan, 1.0, np.inf])
    maps = np.zeros((2, 2, 2))
    maps[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 8 map values are NaN"):
        metrics.pixel_auroc(np.zeros((2, 2, 2)), maps)


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"labels \(2,\) and scores \(3,\)"):
        metrics.image_metrics([0, 1], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="masks"):
        metrics.pixel_aupro(np.zeros((2, 4, 4)), np.zeros((2, 8, 8)))


def test_images_are_counted_by_the_highest_of_their_tiles():
    labels, scores = np.array([1, 1, 0, 0, 1, 1]), np.array([0.1, 0.9, 0.3, 0.2, 0.0, 0.8])
    images_of = np.array([2, 2, 0, 0, 1, 1])
    by_image = metrics.by_image(labels, scores, images_of)
    np.testing.assert_array_equal(by_image, [[0, 1, 1], [0.3, 0.8, 0.9]])
    assert metrics.evaluate(labels, scores)["image_auroc"] == 0.5
    result = metrics.evaluate(labels, scores, threshold=0.25, images_of=images_of)
    assert result["image_auroc"] == 1.0
    assert (result["recall"], result["false_positive_rate"]) == (1.0, 1.0)
    assert metrics.by_image(labels, scores, None)[1] is scores


def test_pixels_without_a_known_mask_are_not_counted():
    rng = np.random.default_rng(0)
    masks = np.zeros((8, 6, 6), int)
    masks[4:6, 1:3, 1:3] = 1
    maps = masks + rng.uniform(0, 0.5, masks.shape)
    maps[6:] = 2  # defects all over, of which no mask tells
    labels, scores = np.repeat([0, 1], 4), maps.max(axis=(1, 2))
    masked = np.arange(8) < 6
    result = metrics.evaluate(labels, scores, masks, maps, masked=masked, bootstrap=50)
    assert result["image_auroc"] == result["pixel_auroc"] == result["pixel_aupro"] == 1.0
    assert result["pixel_auroc_ci"] == pytest.approx([1.0, 1.0])
    assert metrics.evaluate(labels, scores, masks, maps)["pixel_auroc"] < 1
    tiles = metrics.evaluate(
        labels, scores, masks, maps, masked=masked, images_of=np.arange(8) // 2, bootstrap=50
    )
    assert tiles["pixel_auroc_ci"] == pytest.approx([1.0, 1.0])


def test_without_any_known_mask_there_are_no_figures_of_pixels():
    labels, scores = np.array([0, 1]), np.array([0.1, 0.9])
    nothing = np.zeros(2, bool)
    figures = metrics.evaluate(
        labels, scores, np.ones((2, 4, 4)), np.ones((2, 4, 4)), masked=nothing, bootstrap=20
    )
    assert (figures["pixel_auroc"], figures["pixel_aupro_ci"]) == (None, None)
    assert figures["image_auroc"] == 1


def test_ignored_pixels_count_as_neither_marked_or_not():
    rng = np.random.default_rng(0)
    masks, maps = rng.uniform(size=(6, 8, 8)) < 0.2, rng.normal(size=(6, 8, 8))
    ignored = np.zeros((8, 8), bool)
    ignored[:, :4] = True
    of_half = metrics.pixel_auroc(masks[:, :, 4:], maps[:, :, 4:])
    assert metrics.pixel_auroc(masks, maps, ignored) == pytest.approx(of_half)
    of_half = metrics.pixel_aupro(masks[:, :, 4:], maps[:, :, 4:])
    assert metrics.pixel_aupro(masks, maps, ignored=ignored) == pytest.approx(of_half)


def test_figures_are_named_by_what_is_counted():
    assert metrics.names_of("image") == metrics.ALL_NAMES
    names = metrics.names_of("tile")
    assert names["image_auroc"] == "tile AUROC"
    assert names["recall"] == "tile recall"
    assert names["pixel_auroc"] == "pixel AUROC"


def test_images_outside_count_at_the_threshold_alone():
    labels, scores = np.array([0, 0, 0, 1, 1]), np.array([1.0, 2.0, 3.0, 2.0, 4.0])
    outside = np.array([True, False, False, True, False])
    without = metrics.evaluate(labels, scores, threshold=3.5)
    figures = metrics.evaluate(labels, scores, threshold=3.5, outside=outside)
    assert (without["false_positive_rate"], without["recall"]) == (0, 0.5)
    assert figures["false_positive_rate"] == pytest.approx(1 / 3)
    assert figures["recall"] == 1
    assert figures["image_auroc"] == without["image_auroc"]
    of_one = metrics.evaluate(
        labels, scores, threshold=3.5, outside=outside, images_of=np.array([0, 0, 0, 1, 1])
    )
    assert (of_one["false_positive_rate"], of_one["recall"]) == (1, 1)


def test_intervals_count_groups():
    # 100 images of 20 parts, of which each is found in all of its images or in none: as good as 20
    # independent images, with a standard deviation of the recall of 0.5 / sqrt(20).
    labels, scores = np.repeat([0, 1], 100), np.tile(np.repeat([0.0, 1.0], 5), 20)
    groups = np.arange(200) // 5
    by_part = metrics.evaluate(labels, scores, threshold=0.5, groups=groups)
    low, high = by_part["recall_ci"]
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20**0.5, abs=0.06)
    alone = metrics.evaluate(labels, scores, threshold=0.5)
    assert by_part["recall"] == alone["recall"] == 0.5
    assert high - low > 1.8 * (alone["recall_ci"][1] - alone["recall_ci"][0])


def test_a_draw_takes_whole_groups_good_and_defective_images_alike():
    labels = np.array([0, 0, 1, 1, 0, 1], bool)
    draws = intervals.draw_images(
        labels, 50, np.random.default_rng(0), np.array([0, 0, 1, 2, 2, 2])
    )
    assert (draws[:, 0] == draws[:, 1]).all()
    assert (draws[:, 3] == draws[:, 4]).all()
    assert (draws[:, 3] == draws[:, 5]).all()
    assert (draws[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert (draws[:, 0] == 1).all()  # the one group without a defect


def test_a_draw_without_a_good_image_gives_no_interval():
    # Good images stand beside defective ones, and one group has none.
    labels, scores = np.array([0, 1, 1]), np.array([0.0, 2.0, 1.0])
    found = metrics.evaluate(labels, scores, threshold=0.5, groups=np.array([0, 0, 1]))
    assert found["image_auroc"] == 1
    assert found["image_auroc_ci"] is None
    assert found["false_positive_rate_ci"] is None
    assert found["recall_ci"] == [1, 1]
