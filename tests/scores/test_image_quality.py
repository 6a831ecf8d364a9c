"""Image quality: good images are within the limits, other images get a reason."""

import numpy as np
import pytest
from scipy import ndimage

from tfgad.data.datasets.weave.weave import render
from tfgad.scores.image_quality import ImageQuality, first_reason

TILE = 128
FABRICS = ("twill", "satin")


def good_images(fabric: str, count: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    tiles = [
        render(fabric, seed=seed, index=i, size=TILE, channels=channels)[0] for i in range(count)
    ]
    return np.stack(tiles).astype("float32").reshape(count, TILE, TILE, channels) / 127.5 - 1


@pytest.fixture(scope="module", params=FABRICS)
def known(request):
    """Images of a fabric, and an `ImageQuality` adapted to 40 of them."""
    images = good_images(request.param, 100)
    quality = ImageQuality((TILE, TILE), (32, 32), 1)
    quality.adapt(quality.tile_statistics(images[:40]).numpy())
    quality.calibrate(quality.tile_statistics(images[40:60]).numpy(), 0.01)
    return images, quality


def reason(quality, image) -> str:
    return quality(image[None]).numpy()[0].decode()


def test_good_images_are_within_the_limits(known):
    images, quality = known
    assert set(quality(images[60:]).numpy()) == {b""}


def of_blind_cameras(good: np.ndarray) -> dict[str, tuple[np.ndarray, str]]:
    """Returns images of a blind camera, made from a good image, and the reasons expected."""
    random = np.random.default_rng(0)
    mean = good.mean()
    x = np.broadcast_to(np.linspace(-1, 1, TILE, dtype="float32")[:, None], good.shape[:2])
    half = np.arange(TILE)[None, :, None] < TILE // 2
    return {
        "black": (np.full_like(good, -1), "too dark"),
        "white": (np.full_like(good, 1), "too bright"),
        "grey": (np.full_like(good, mean), "no texture"),
        "dimmed": ((good + 1) * 0.4 - 1, "too dark"),
        "sensor noise": (random.normal(-0.98, 0.01, good.shape), "too dark"),
        "overexposed": (np.clip(good * 0.1 + 0.95, -1, 1), "too bright"),
        "noise": (random.uniform(-1, 1, good.shape), "too much contrast"),
        "low contrast": ((good - mean) * 0.2 + mean, "too little contrast"),
        "out of focus": (ndimage.gaussian_filter(good, (3, 3, 0)), "too little contrast"),
        "sharpened blur": (
            (ndimage.gaussian_filter(good, (2, 2, 0)) - mean) * 2.2 + mean,
            "out of focus",
        ),
        "turned": (np.rot90(good), "other texture"),
        "gradient": (x[..., None], "dark area"),
        "half black": (np.where(half, good, -1), "too dark"),
        "half flat": (np.where(half, good, mean), "no texture"),
    }


@pytest.mark.parametrize("kind", of_blind_cameras(np.zeros((TILE, TILE, 1), "float32")))
def test_images_of_a_blind_camera_get_a_reason(known, kind):
    images, quality = known
    image, expected = of_blind_cameras(images[60])[kind]
    assert reason(quality, np.clip(image, -1, 1).astype("float32")) == expected


def test_negative_gets_a_reason_if_grey_levels_are_skewed():
    images = good_images("twill", 41)
    quality = ImageQuality((TILE, TILE), (32, 32), 1)
    quality.calibrate(quality.tile_statistics(images[:40]).numpy(), 0.01)
    assert reason(quality, 2 * images[40].mean() - images[40]) == "other texture"


def test_other_colour_gets_a_reason():
    images = good_images("twill", 30, channels=3)
    quality = ImageQuality((TILE, TILE), (32, 32), 3)
    quality.calibrate(quality.tile_statistics(images[:20]).numpy(), 0.01)
    assert reason(quality, images[20]) == ""
    tinted = np.clip(images[20] + np.array([0.3, -0.15, -0.15], "float32"), -1, 1)
    assert reason(quality, tinted) == "other colour"


def test_one_bad_tile_of_a_large_image_gives_it_a_reason(known):
    images, quality = known
    row = np.concatenate(images[60:64], axis=1)
    assert reason(quality, row) == ""
    assert reason(quality, row[:100, :300]) == ""  # smaller than a tile: padded by reflection
    row = row.copy()
    row[:, -TILE:] = -1
    assert reason(quality, row) == "too dark"


def test_no_part_of_a_tile_is_left_out():
    images = good_images("twill", 60)[:, :112, :112]
    quality = ImageQuality((112, 112), (32, 32), 1)  # a window of 32 and a half does not fit
    quality.adapt(quality.tile_statistics(images[:40]).numpy())
    quality.calibrate(quality.tile_statistics(images[40:]).numpy(), 0.01)
    smooth = images[0].copy()
    smooth[-32:, -32:] = smooth.mean()
    assert reason(quality, smooth) == "no texture"


def test_limits_include_the_calibration_images(known):
    images, _ = known
    quality = ImageQuality((TILE, TILE), (32, 32), 1)
    quality.adapt(quality.tile_statistics(images[:40]).numpy())
    dim = (images[40:60] + 1) * 0.4 - 1
    quality.calibrate(quality.tile_statistics(images[40:60]).numpy(), 0.01)
    assert reason(quality, dim[0]) == "too dark"
    quality.calibrate(quality.tile_statistics(dim).numpy(), 0.01)  # a new lamp, labelled good
    assert reason(quality, dim[0]) == ""
    quality.calibrate(quality.tile_statistics(images[40:60]).numpy(), 0.01)  # and no longer
    assert reason(quality, dim[0]) == "too dark"


def test_few_images_give_wide_limits(known):
    images, _ = known
    quality = ImageQuality((TILE, TILE), (32, 32), 1)
    quality.calibrate(quality.tile_statistics(images[:3]).numpy(), 0.01)
    assert set(quality(images[3:]).numpy()) == {b""}


def test_layer_without_limits_gives_no_reason():
    quality = ImageQuality((TILE, TILE), (32, 32), 1)
    assert not quality.is_adapted
    assert reason(quality, np.full((TILE, TILE, 1), -1, "float32")) == ""


def test_first_reason_is_the_first_by_priority():
    assert first_reason(["", "other texture", "no texture", ""]) == "no texture"
    assert first_reason(["", "dark area", "too bright"]) == "too bright"
    assert first_reason(["other colour", ""]) == "other colour"
    assert first_reason(["", ""]) == ""
