"""Reading image files: every depth and mode, and every way to be broken."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfgad.data.images import ImageError, is_grey, read_image, resize

GREY = np.array([[0, 51, 255], [102, 204, 153]], np.uint8)
SCALED = np.array([[-1, -0.6, 1], [-0.2, 0.6, 0.2]], np.float32)
DEEP = np.array([[0, 13107, 65535], [1, 65534, 300]], np.uint16)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_grey_of_8_bits(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREY).save(path)
    image = read_image(path)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[:, :, 0], SCALED, atol=1e-6)
    np.testing.assert_array_equal(read_image(path, 3), np.repeat(image, 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_keeps_them(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(DEEP).save(path)
    image = read_image(path)
    np.testing.assert_allclose(image[:, :, 0], DEEP / 32767.5 - 1, atol=1e-6)
    assert image[1, 0, 0] > -1
    assert read_image(path, 3).shape == (2, 3, 3)


def test_colour_of_16_bits(tmp_path):
    path = tmp_path / "a.png"
    colour = np.stack([DEEP, DEEP[::-1], DEEP], axis=2)
    path.write_bytes(tf.io.encode_png(colour).numpy())
    np.testing.assert_allclose(read_image(path), colour / 32767.5 - 1, atol=1 / 127)


def test_colour_jpeg(tmp_path):
    path = tmp_path / "a.jpeg"
    Image.new("RGB", (8, 6), (255, 0, 128)).save(path, quality=95)
    image = read_image(path)
    assert image.shape == (6, 8, 3)
    np.testing.assert_allclose(image[3, 4], [1, -1, 0], atol=0.03)
    assert read_image(path, 1).shape == (6, 8, 1)


@pytest.mark.parametrize(("mode", "channels"), [("LA", 1), ("RGBA", 3)])
def test_alpha_is_dropped(tmp_path, mode, channels):
    path = tmp_path / "a.png"
    image = Image.fromarray(GREY).convert(mode)
    image.putalpha(7)
    image.save(path)
    expected = np.repeat(SCALED[:, :, None], channels, axis=2)
    np.testing.assert_allclose(read_image(path), expected, atol=1e-6)


def test_palettes_and_bits(tmp_path):
    colour = Image.new("RGB", (4, 4), (255, 0, 0)).quantize(2)
    grey = Image.fromarray(GREY).convert("P")
    assert not is_grey(colour)
    assert is_grey(grey)
    colour.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, 0], [1, -1, -1])
    Image.fromarray(GREY).convert("1", dither=Image.Dither.NONE).save(tmp_path / "b.png")
    assert set(np.unique(read_image(tmp_path / "b.png"))) == {-1, 1}


def test_floats_from_0_to_1(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0, 0.25, 1]], np.float32)).save(path)
    np.testing.assert_array_equal(read_image(path)[0, :, 0], [-1, -0.5, 1])


def test_exif_orientation_is_applied(tmp_path):
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    Image.fromarray(GREY).save(path, exif=exif)
    np.testing.assert_allclose(read_image(path)[:, :, 0], np.rot90(SCALED, -1), atol=1e-6)


def test_broken_files(tmp_path, broken_files):
    for name, reason in broken_files.items():
        with pytest.raises(ImageError, match=reason) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert caught.value.path.name == name


def test_a_missing_file(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "missing.png")


@pytest.mark.parametrize("shape", [(64, 48), (20, 30), (100, 33)])
def test_resize_is_tensorflows(shape):
    image = np.random.default_rng(0).uniform(-1, 1, (*shape, 3)).astype(np.float32)
    expected = tf.image.resize(image, (32, 32), antialias=True)
    np.testing.assert_allclose(resize(image, 32), expected, atol=1e-5)
