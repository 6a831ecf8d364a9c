"""Pictures of the page, and the reduction of large ones."""

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfgad.inference import heat_maps
from tfgad.inference.scoring import Verdict
from tfgad.serving.inspection import pictures


def pixels_of(uri):
    start, content = uri.split(",")
    assert start == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def verdict_of(anomaly_map, threshold=1.0, **changes):
    image = np.zeros((*anomaly_map.shape, 1), "float32")
    peak = float(anomaly_map.max())
    numbers = {"score": peak, "probability": 0.5, "is_anomalous": peak > threshold}
    values = {"path": Path("a.png"), "image": image, "map": anomaly_map, "map_threshold": threshold}
    values["scale"] = 0.25
    return Verdict(**{**values, **numbers, **changes})


def spotted(shape=(40, 60)):
    """A map of zeros with a value of 4 at (20, 30)."""
    anomaly_map = np.full(shape, -9, "float32")
    anomaly_map[20, 30] = 4
    return anomaly_map


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_keeps_its_grey_levels(channels):
    levels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    shown = pixels_of(pictures.image_uri(levels.astype("float32") / 127.5 - 1))
    np.testing.assert_array_equal(shown.reshape(levels.shape), levels)


def test_heat_ends_in_a_line_at_the_threshold_and_is_faint_below():
    anomaly_map = spotted()
    anomaly_map[18:23, 28:33] = 3
    anomaly_map[30, 30] = 0.9  # just below
    heat = pixels_of(pictures.heat_uri(verdict_of(anomaly_map))).astype(int)
    assert heat.shape == (40, 60, 4)
    opacity = heat[..., 3]
    inside = heat[19:22, 29:32].reshape(-1, 4)
    assert (inside[:, 3] == round(0.85 * 255)).all()
    assert (inside[:, 0] > 200).all()
    assert (inside[:, 2] < 200).all()
    white = (heat == 255).all(axis=-1)
    assert white.sum() == 25 - 9
    assert white[18, 28:33].all()
    assert 30 < opacity[30, 30] < 80
    assert np.count_nonzero(opacity) == 25 + 1


def test_two_images_share_one_scale():
    """The colour of a value hangs on no other value of its image."""
    first, second = spotted(), spotted()
    second[:20] = 9
    heats = [heat_maps.heat(verdict_of(each)) for each in (first, second)]
    np.testing.assert_array_equal(heats[0][25:], heats[1][25:])
    assert heat_maps.heat_scale(verdict_of(first)) == (-0.5, 1, 2.5)


def test_image_and_heat_blend_to_the_overlay_of_the_command():
    verdict = verdict_of(spotted())
    image = pixels_of(pictures.image_uri(verdict.image))[..., None].astype(float)
    heat = pixels_of(pictures.heat_uri(verdict)).astype(float)
    alpha = heat[..., 3:] / 255
    blended = image * (1 - alpha) + heat[..., :3] * alpha
    np.testing.assert_allclose(blended, heat_maps.overlay(verdict), atol=2)


def test_a_small_spot_in_a_large_image_remains_visible(monkeypatch):
    monkeypatch.setattr(pictures, "SHOWN_PIXELS", 200)
    verdict = verdict_of(spotted((41, 62)))
    reduced = pictures.reduced(verdict)
    assert pictures.reduction(verdict.image.shape) == 4  # 2542 pixels to 176
    assert reduced.image.shape == (11, 16, 1)
    assert reduced.map.shape == (11, 16)
    assert reduced.map.max() == 4
    assert np.argwhere(reduced.map > 0).tolist() == [[5, 7]]
    assert pictures.reduced_image(verdict.image).shape == (11, 16, 1)


def test_a_small_image_is_not_reduced():
    verdict = verdict_of(spotted())
    assert pictures.reduced(verdict) is verdict
    assert pictures.reduction((256, 4096, 1)) == 1


def test_what_is_ignored_is_outlined_hatched_and_without_heat():
    anomaly_map = spotted()
    anomaly_map[5:15, 5:25] = 3  # as no model has it there
    ignored = np.zeros((40, 60), bool)
    ignored[5:15, 5:25] = True
    verdict = verdict_of(anomaly_map, ignored=ignored)
    heat = heat_maps.heat(verdict)
    edge = ignored.copy()
    edge[6:14, 6:24] = False
    assert (heat[edge] == heat_maps.OUTLINE).all()
    inside = heat[6:14, 6:24].reshape(-1, 4)
    lines = (inside == heat_maps.HATCH).all(axis=-1)
    assert 0.15 < lines.mean() < 0.35
    assert (inside[~lines, 3] == 0).all()
    without = heat_maps.heat(dataclasses.replace(verdict, ignored=None))
    np.testing.assert_array_equal(heat[~ignored], without[~ignored])
    strips = [
        heat_maps._heat(verdict, slice(i, i + 7), heat_maps.heat_scale(verdict)) for i in (0, 7, 14)
    ]
    np.testing.assert_array_equal(np.concatenate(strips), heat[:21])
