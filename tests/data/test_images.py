"""Reading image files: every depth and mode, and broken files."""

import os
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, TiffImagePlugin

from tfgad.data.datasets.folder.masks import mask_levels
from tfgad.data.image_files import ImageError
from tfgad.data.images import is_grey, open_image, read_image, read_levels
from tfgad.data.pixels import resize

GREY = np.array([[0, 51, 255], [102, 204, 153]], np.uint8)
SCALED = np.array([[-1, -0.6, 1], [-0.2, 0.6, 0.2]], np.float32)
LOSSLESS = {"webp": {"lossless": True, "exact": True}, "jpg": {"quality": 95}}
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


def test_colour_of_16_bits_keeps_them(tmp_path):
    path = tmp_path / "a.png"
    colour = np.stack([DEEP, DEEP[::-1], DEEP], axis=2)
    path.write_bytes(tf.io.encode_png(colour).numpy())
    np.testing.assert_allclose(read_image(path), colour / 32767.5 - 1, atol=1e-6)
    grey = colour @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(read_image(path, 1)[..., 0], grey / 32767.5 - 1, atol=1e-4)
    path.write_bytes(tf.io.encode_png(DEEP[..., None].repeat(2, axis=2)).numpy())  # with alpha
    np.testing.assert_allclose(read_image(path)[..., 0], DEEP / 32767.5 - 1, atol=1e-6)


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_and_masks_are_rotated_alike(tmp_path, orientation):
    path, exif = tmp_path / "a.png", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GREY).save(path, exif=exif)
    np.testing.assert_array_equal(mask_levels(path), read_levels(path)[:, :, 0])


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])  # all eight, and JPEG: test_decoding
def test_exif_orientation_is_applied(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    Image.fromarray(GREY).save(path, exif=exif, **LOSSLESS.get(suffix, {}))
    np.testing.assert_allclose(read_image(path, 1)[:, :, 0], np.rot90(SCALED, -1), atol=1e-6)
    opened = open_image(path).convert("L")
    np.testing.assert_array_equal(np.asarray(opened), np.rot90(GREY, -1))


NOISE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
# Not lossless, so that it is given an even image.
EVEN = np.full((16, 16, 3), [200, 120, 40], np.uint8)
EIGHT_BITS = ("L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def picture(mode, pixels):
    """Returns an image in a mode of Pillow's, and the pixels that should be read."""
    if mode in DEEP_MODES:
        levels = pixels[..., 0].astype(np.uint16) * 257
        if mode == "F":
            image = Image.fromarray(levels.astype(np.float32) / 65535)
        elif mode == "I":
            image = Image.fromarray(levels.astype(np.int32))
        else:
            order = {"I;16B": ">", "I;16N": "="}.get(mode, "<")
            image = Image.frombytes(mode, levels.shape[::-1], levels.astype(f"{order}u2").tobytes())
        return image, pixels[..., :1]
    colour = Image.fromarray(pixels)
    if mode == "LAB":
        return Image.merge("LAB", colour.split()), None
    if mode in ("La", "PA"):
        colour = colour.convert("LA")
    if mode == "RGBa":
        colour = colour.convert("RGBA")
    image = colour.convert(mode, dither=Image.Dither.NONE)
    return image, np.asarray(image.convert("LA" if mode == "La" else "RGB").convert("RGB"))


@pytest.mark.parametrize("mode", ["1", *EIGHT_BITS, "LAB", *DEEP_MODES])
def test_every_mode_in_every_format_is_read_correctly_or_refused(tmp_path, mode):
    image, right = picture(mode, NOISE)
    even, even_right = picture(mode, EVEN)
    written = 0
    for suffix in ("png", "tif", "bmp", "webp", "jpg"):
        path = tmp_path / f"a.{suffix}"
        if suffix == "webp" and mode not in EIGHT_BITS:  # the writer makes something else of it
            continue
        try:
            (even if suffix == "jpg" else image).save(path, **LOSSLESS.get(suffix, {}))
        except (OSError, ValueError, KeyError):  # the format has no such mode
            continue
        written += 1
        try:
            read = read_image(path, 3)
        except ImageError:
            # Pillow cannot read YCbCr that it has written itself, without compression.
            assert (mode, suffix) in (("LAB", "tif"), ("YCbCr", "tif"))
            continue
        expected = even_right if suffix == "jpg" else right
        tolerance = 3.1 if suffix == "jpg" else 0.51
        difference = (read + 1) * 127.5 - expected
        assert np.abs(difference).max() < tolerance, suffix
        assert read_image(path, 1).shape == (*read.shape[:2], 1)
    assert written or mode in ("La", "HSV", "I;16L", "I;16N", "PA", "RGBa")


def write_tiff(path, pixels, bits, photometric, planes=1):
    """Writes a TIFF as Pillow's writer does not."""
    height, width, channels = pixels.shape
    strips = [pixels] if planes == 1 else np.moveaxis(pixels, 2, 0)
    if bits == 1:
        strips = [np.packbits(pixels[..., 0].astype(bool), axis=1)]
    strips = [strip.astype("<u2" if bits > 8 else "u1").tobytes() for strip in strips]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[256], tags[257], tags[278] = width, height, height
    tags[258], tags[277] = (bits,) * channels, channels
    tags[259], tags[262], tags[284] = 1, photometric, planes
    tags[279] = tuple(map(len, strips))
    # From the end of the tags on; Pillow adds where that is.
    tags[273] = tuple(i * len(strips[0]) for i in range(len(strips)))
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + tags.tobytes(8) + b"".join(strips))


@pytest.mark.parametrize(("bits", "white"), [(1, 1), (8, 255), (16, 65535)])
def test_a_tiff_whose_zero_is_white_is_read_correctly_or_refused(tmp_path, bits, white):
    levels = np.tile([[0, white]], (4, 4))[..., None]
    black_is_zero, white_is_zero = tmp_path / "a.tif", tmp_path / "b.tif"
    write_tiff(black_is_zero, levels, bits, photometric=1)
    write_tiff(white_is_zero, levels, bits, photometric=0)
    image = read_image(black_is_zero)
    np.testing.assert_array_equal(image, levels / (white / 2) - 1)
    if bits == 16:
        with pytest.raises(ImageError, match="is a TIFF of 16 bits whose zero is white"):
            read_image(white_is_zero)
    else:
        np.testing.assert_array_equal(read_image(white_is_zero), -image)


@pytest.mark.parametrize("planes", [1, 2])
def test_a_tiff_in_colour_is_read_correctly_or_refused(tmp_path, planes):
    path = tmp_path / "a.tif"
    write_tiff(path, NOISE, 8, photometric=2, planes=planes)
    np.testing.assert_allclose(read_image(path), NOISE / 127.5 - 1, atol=1e-6)
    write_tiff(path, NOISE.astype(int) * 257, 16, photometric=2, planes=planes)
    with pytest.raises(ImageError, match="several channels of 16 bits"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["tif", "webp", "png", "mpo"])
def test_several_pages_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    first, second = Image.fromarray(NOISE), Image.fromarray(NOISE[::-1])
    first.save(path, save_all=True, append_images=[second])
    with pytest.raises(ImageError, match="holds several pages"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_only_the_given_limit_of_pixels_applies(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(NOISE).save(path)
    for limit in (10, 47, None):  # Pillow's own, less than half of the 48 pixels, and of all
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_image(path).shape == NOISE.shape
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ImageError, match="has more than 20 pixels") as error:
            read_image(path, max_pixels=20)
        assert error.value.beyond == "max_pixels"
        assert read_image(path, max_pixels=48).shape == NOISE.shape


@pytest.mark.parametrize("depth", [10, 12, 14, 16])
def test_white_is_that_of_the_depth(tmp_path, depth):
    path, white = tmp_path / "a.png", 2**depth - 1
    Image.fromarray(np.array([[0, white // 2, white]], np.uint16)).save(path)
    np.testing.assert_allclose(read_image(path, depth=depth)[0, :, 0], [-1, 0, 1], atol=1 / white)
    if depth < 16:
        with pytest.raises(
            ImageError, match=f"above {white // 2}, the maximum of {depth - 1} bits"
        ):
            read_image(path, depth=depth - 1)
        assert read_image(path).max() < 0  # 16 bits if the depth is unknown


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have a name")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is no file"):
        read_image(tmp_path / "a.png")


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
def test_resize_equals_tensorflows(shape):
    image = np.random.default_rng(0).uniform(-1, 1, (*shape, 3)).astype(np.float32)
    expected = tf.image.resize(image, (32, 32), antialias=True)
    np.testing.assert_allclose(resize(image, (32, 32)), expected, atol=1e-5)
