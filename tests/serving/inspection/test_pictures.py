"""Pictures of the page, and the reduction of large ones."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfgad.inference import results
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
    return Verdict(**{**values, **numbers, **changes})


def spotted(shape=(40, 60)):
    """A map of zeros with a value of 4 at (20, 30)."""
    anomaly_map = np.zeros(shape, "float32")
    anomaly_map[20, 30] = 4
    return anomaly_map


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_keeps_its_grey_levels(channels):
    levels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    shown = pixels_of(pictures.image_uri(levels.astype("float32") / 127.5 - 1))
    np.testing.assert_array_equal(shown.reshape(levels.shape), levels)


def test_only_the_spot_has_heat():
    heat = pixels_of(pictures.heat_uri(verdict_of(spotted())))
    assert heat.shape == (40, 60, 4)
    assert np.argwhere(heat[..., 3]).tolist() == [[20, 30]]
    red, _, blue, opacity = heat[20, 30]
    assert red > 200 > blue
    assert opacity == round(0.85 * 255)


def test_a_good_image_has_no_heat():
    assert not pixels_of(pictures.heat_uri(verdict_of(spotted(), threshold=4.0)))[..., 3].any()


def test_image_and_heat_blend_to_the_overlay_of_the_command():
    verdict = verdict_of(spotted())
    image = pixels_of(pictures.image_uri(verdict.image))[..., None].astype(float)
    heat = pixels_of(pictures.heat_uri(verdict)).astype(float)
    alpha = heat[..., 3:] / 255
    blended = image * (1 - alpha) + heat[..., :3] * alpha
    np.testing.assert_allclose(blended, results.overlay(verdict), atol=2)


def test_a_small_spot_in_a_large_image_remains_visible(monkeypatch):
    monkeypatch.setattr(pictures, "SHOWN_PIXELS", 200)
    verdict = verdict_of(spotted((41, 62)))
    reduced = pictures.reduced(verdict)
    assert pictures.reduction(verdict.image.shape) == 4  # 2542 pixels to 176
    assert reduced.image.shape == (11, 16, 1)
    assert reduced.map.shape == (11, 16)
    assert reduced.map.max() == 4
    assert np.argwhere(reduced.map).tolist() == [[5, 7]]
    assert pictures.reduced_image(verdict.image).shape == (11, 16, 1)


def test_a_small_image_is_not_reduced():
    verdict = verdict_of(spotted())
    assert pictures.reduced(verdict) is verdict
    assert pictures.reduction((256, 4096, 1)) == 1
