"""Files decoded in a graph: the pixels that Python reads, or an error to the caller."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tfgad.data import exif
from tfgad.data.image_files import ImageError
from tfgad.data.images import read_image
from tfgad.export import decoding

RNG = np.random.default_rng(0)
COLOUR = Image.fromarray(RNG.integers(0, 256, (20, 28, 3), np.uint8))
OTHER = Image.fromarray(RNG.integers(0, 256, (20, 28, 3), np.uint8))
DEEP = RNG.integers(0, 65536, (20, 28, 4)).astype(np.uint16)
JPEG, PNG = {"format": "JPEG", "quality": 90}, {"format": "PNG"}


def graph(channels, depth=None):
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def decode(file):
        return decoding.decode(file, channels, depth)

    return lambda file: decode(file).numpy()


in_colour, in_grey = graph(3), graph(1)


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def python(file, channels=3, **options):
    return read_image("file", channels, file, **options)


FILES = {
    **{f"PNG {mode}": encoded(COLOUR.convert(mode), **PNG) for mode in ("1", "L", "LA", "RGB")},
    "PNG RGBA": encoded(Image.merge("RGBA", [*COLOUR.split(), OTHER.convert("L")]), **PNG),
    "PNG palette": encoded(COLOUR.quantize(4), **PNG, bits=2),
    "PNG palette with alpha": encoded(COLOUR.quantize(200), **PNG, transparency=3),
    "PNG transparent colour": encoded(COLOUR, **PNG, transparency=(1, 2, 3)),
    **{f"PNG of 16 bits, {n}": tf.io.encode_png(DEEP[..., :n]).numpy() for n in (1, 2, 3, 4)},
    **{f"JPEG {mode}": encoded(COLOUR.convert(mode), **JPEG) for mode in ("L", "RGB", "CMYK")},
    "progressive JPEG": encoded(COLOUR, **JPEG, progressive=True),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_python(name):
    file = FILES[name]
    np.testing.assert_allclose(in_colour(file), python(file), atol=1e-6)
    np.testing.assert_allclose(in_grey(file), python(file, 1), atol=1e-6)


def test_depth_is_that_of_python():
    of_12 = graph(1, depth=12)
    for channels in (1, 3):
        file = tf.io.encode_png(DEEP[..., :channels] // 16).numpy()
        np.testing.assert_allclose(of_12(file), python(file, 1, depth=12), atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="above 4095, the maximum of 12 bits"):
        of_12(FILES["PNG of 16 bits, 1"])
    np.testing.assert_array_equal(of_12(FILES["PNG L"]), in_grey(FILES["PNG L"]))


def with_exif(form, block):
    """A file with an Exif block."""
    if form is JPEG:
        return encoded(COLOUR, **JPEG, exif=b"Exif\0\0" + block)
    # By hand, as a mangled block must have its checksum.
    file, chunk = FILES["PNG RGB"], b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return file[:33] + chunk + file[33:]


def block_of(orientation, order="<", kind=exif.SHORT):
    """An Exif block of three tags."""
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    value = struct.pack(f"{order}HHI", 0x0112, kind, 1)
    value += struct.pack(f"{order}I" if kind == exif.LONG else f"{order}Hxx", orientation)
    maker = struct.pack(f"{order}HHII", 0x010F, 2, 8, 50) + value
    unit = struct.pack(f"{order}HHIHxx", 0x0128, exif.SHORT, 1, 2)
    return mark + struct.pack(f"{order}IH", 8, 3) + maker + unit + bytes(4) + b"A camera"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", [JPEG, PNG], ids=["JPEG", "PNG"])
def test_every_orientation_is_turned_as_pillow_turns_it(form, orientation):
    for order, kind in (("<", exif.SHORT), (">", exif.SHORT), ("<", exif.LONG), (">", exif.LONG)):
        file = with_exif(form, block_of(orientation, order, kind))
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
        expected = np.asarray(expected, np.float32) / 127.5 - 1
        np.testing.assert_array_equal(python(file), expected)
        np.testing.assert_allclose(in_colour(file), expected, atol=1e-6)


@pytest.mark.parametrize("form", [JPEG, PNG], ids=["JPEG", "PNG"])
def test_a_mangled_block_turns_both_alike_or_neither(form):
    rng = np.random.default_rng(1)
    turned = 0
    for trial in range(150):
        block = bytearray(block_of(1 + trial % 8, "<>"[trial % 2]))
        for place in rng.integers(0, len(block), rng.integers(1, 4)):
            block[place] = rng.integers(0, 256)
        del block[rng.integers(20, 200) :]
        file = with_exif(form, bytes(block))
        ours = python(file)
        np.testing.assert_allclose(in_colour(file), ours, atol=1e-6)
        turned += ours.shape[0] != COLOUR.height
    assert 20 < turned < 75


def test_mangled_files_are_decoded_alike_or_refused():
    rng = np.random.default_rng(2)
    refused = 0
    whole = with_exif(JPEG, block_of(6))
    for _ in range(150):
        file = bytearray(whole)
        for place in rng.integers(2, 160, 3):  # the segments before the picture
            file[place] = rng.integers(0, 256)
        try:
            decoded = in_colour(bytes(file))
        except tf.errors.InvalidArgumentError:
            refused += 1
            continue
        try:
            ours = python(bytes(file))
        except ImageError:  # Pillow asks more of a head than TensorFlow does
            continue
        np.testing.assert_allclose(decoded, ours, atol=1e-6)
    assert 0 < refused < 150


def test_many_segments_are_refused_and_not_gone_through():
    comment = b"\xff\xfe\x00\x03x"
    few, many = (FILES["JPEG RGB"][:2] + n * comment + FILES["JPEG RGB"][2:] for n in (200, 9999))
    np.testing.assert_allclose(in_colour(few), python(few), atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 256 parts"):
        in_colour(many)


def thumbnailed(multi_picture):
    """Marks the second picture of an MPO as a thumbnail of the first."""
    undefined = struct.pack("<I", 0)
    first = multi_picture.index(struct.pack("<I", 0x030000), multi_picture.index(b"MPF\0") + 50)
    second = first + 16
    assert multi_picture[second : second + 4] == undefined
    return multi_picture[:second] + struct.pack("<I", 0x010001) + multi_picture[second + 4 :]


def test_several_pages_are_refused():
    both = {"save_all": True, "append_images": [OTHER]}
    multi_picture = encoded(COLOUR, format="MPO", **both)
    animated = encoded(COLOUR, **PNG, **both)
    behind_a_picture = encoded(COLOUR, **PNG, **both, default_image=True)
    for file in (multi_picture, animated, behind_a_picture):
        with pytest.raises(ImageError, match="holds several pages"):
            python(file)
        with pytest.raises(tf.errors.InvalidArgumentError, match="several pages"):
            in_colour(file)
    text = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf hdrgm:Version="1.0"/></x:xmpmeta>'
    segment = b"\xff\xe1" + struct.pack(">H", len(text) + 2) + text
    with_gain_map = multi_picture[:2] + segment + multi_picture[2:]
    for file in (encoded(COLOUR, format="MPO"), thumbnailed(multi_picture), with_gain_map):
        np.testing.assert_allclose(in_colour(file), python(file), atol=1e-6)


@pytest.mark.parametrize("form", ["GIF", "BMP", "WEBP", "TIFF"])
def test_other_formats_are_refused(form):
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not a PNG or JPEG"):
        in_colour(encoded(COLOUR, format=form))


@pytest.mark.parametrize("name", ["PNG RGB", "PNG of 16 bits, 3", "JPEG RGB"])
def test_what_is_cut_off_is_refused(name):
    for end in range(0, len(FILES[name]) - 20, 97):
        with pytest.raises(tf.errors.InvalidArgumentError):
            in_colour(FILES[name][:end])
        with pytest.raises(ImageError):
            python(FILES[name][:end])
