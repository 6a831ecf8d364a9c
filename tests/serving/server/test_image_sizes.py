"""The sizes of images in requests."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tfgad.data.image_headers import PNG_START
from tfgad.serving.errors import ServingError
from tfgad.serving.file_cost import MAX_SCANS, MAX_SIDE
from tfgad.serving.server.image_sizes import encoded_size, measure
from tfgad.serving.server.limits import Limits

LIMITS = Limits(max_pixels=100, max_images=2)


def picture(height, width, form="PNG", mode="L"):
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, form)
    return file.getvalue()


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def by_hand(pixels, before=(), after=(), interlace=0, size=(16, 16)):
    """A grey PNG with these bytes in place of its pixels, and with chunks before and after them."""
    height, width = size
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlace)
    data = zlib.compress(pixels, 9)
    parts = [(b"IHDR", head), *before, (b"IDAT", data[:9]), (b"IDAT", data[9:]), *after]
    return PNG_START + b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])


PIXELS = bytes(16 * 17)  # each row has a byte for its filter
BOMB = zlib.compress(bytes(17 * 2**20), 9)
BOMBS = {
    "zTXt": b"x\0\0" + BOMB,
    "iCCP": b"x\0\0" + BOMB,
    "iTXt": b"x\0\1\0en\0x\0" + BOMB,
}


def files(*contents):
    array = np.empty(len(contents), object)
    array[:] = contents
    return {"image_bytes": array}


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_the_size_of_a_file(form):
    assert encoded_size(picture(5, 7, form)) == (5, 7)


def test_the_size_is_that_of_the_upright_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    for form in ("PNG", "JPEG"):
        file = io.BytesIO()
        Image.new("L", (7, 5)).save(file, form, exif=exif)
        assert encoded_size(file.getvalue()) == (7, 5)


def test_pixels_of_arrays_and_files_are_counted():
    rows = measure({"images": np.zeros((3, 5, 7, 1), "u1")}, LIMITS)
    assert (rows.count, rows.cost) == (3, 35)
    rows = measure(files(picture(5, 7), picture(5, 7)), LIMITS)
    assert (rows.count, rows.cost) == (2, 35)
    rows = measure({"x": np.zeros((4, 6), "f4")}, LIMITS)
    assert (rows.count, rows.cost) == (4, 6)


def test_only_equal_shapes_and_types_are_of_one_kind():
    def kind(inputs):
        return measure(inputs, LIMITS).kind

    small, wide = np.zeros((1, 5, 7, 1), "u1"), np.zeros((1, 5, 8, 1), "u1")
    assert kind({"x": small}) == kind({"x": np.concatenate([small] * 2)})
    assert kind({"x": small}) != kind({"x": wide})
    assert kind({"x": small}) != kind({"x": small.astype("f4")})
    assert kind(files(picture(5, 7))) == kind(files(picture(5, 7, "JPEG", "RGB")))
    assert kind(files(picture(5, 7))) != kind(files(picture(7, 5)))
    assert kind(files(picture(5, 7), picture(7, 5))) is None


def test_what_is_too_large_is_refused():
    with pytest.raises(ServingError, match=r"11x10 pixels is larger .* 100 \(--max-pixels\)"):
        measure(files(picture(11, 10)), LIMITS)
    with pytest.raises(ServingError, match="11x10 pixels"):
        measure({"images": np.zeros((1, 11, 10, 1), "u1")}, LIMITS)
    measure(files(*[picture(10, 10)] * 2), LIMITS)
    with pytest.raises(ServingError, match=r"300 pixels, more than 200 .*--max-images"):
        measure(files(*[picture(10, 10)] * 3), LIMITS)


def test_a_side_that_is_too_long_is_refused():
    """The time of a graph grows with the rows of a narrow image."""
    limits = Limits()
    for side, width in ((MAX_SIDE, 1), (1, MAX_SIDE)):
        measure({"images": np.zeros((1, side, width, 1), "u1")}, limits)
        measure(files(by_hand(PIXELS, size=(side, width))), limits)
    for size in ((2 * MAX_SIDE, 1), (1, 2 * MAX_SIDE)):
        with pytest.raises(ServingError, match=r"x\d+ pixels has a side of more than 65536"):
            measure({"images": np.zeros((1, *size, 1), "u1")}, limits)
        with pytest.raises(ServingError, match=r"x\d+ pixels has a side of more than 65536"):
            measure(files(by_hand(PIXELS, size=size)), limits)


def test_too_many_files_are_refused_unread():
    with pytest.raises(ServingError, match=r"holds 3 images, more than 2 \(--max-files\)"):
        measure(files(b"none", b"none", b"none"), Limits(max_files=2))
    measure(files(*[picture(5, 7)] * 2), Limits(max_files=2))
    with pytest.raises(ServingError, match=r"holds 9 images, more than 2 \(--max-files\)"):
        measure({"images": np.zeros((9, 1, 1, 1), "u1")}, Limits(max_files=2))
    measure({"x": np.zeros((9, 6), "f4")}, Limits(max_files=2))  # these are no images


def test_an_unreadable_image_is_named_by_its_number():
    with pytest.raises(ServingError, match="image 1 is not a readable PNG or JPEG"):
        measure(files(picture(5, 7), b"GIF89a"), LIMITS)


@pytest.mark.parametrize("interlace", [0, 1])
def test_a_png_with_more_than_its_pixels_is_refused(interlace):
    # Interlaced, 16x16 pixels come in passes of 2x2, 2x2, 2x4, 4x4, 4x8, 8x8 and 8x16.
    size = len(PIXELS) if not interlace else 16 * 16 + 2 + 2 + 2 + 4 + 4 + 8 + 8
    file = by_hand(bytes(size), interlace=interlace)
    assert encoded_size(file) == (16, 16)
    with Image.open(io.BytesIO(file)) as image:
        image.load()
    for longer in (size + 1, 10**8):
        with pytest.raises(ServingError, match="image 3 holds more than its 16x16 pixels"):
            encoded_size(by_hand(bytes(longer), interlace=interlace), 3)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", BOMBS)
def test_texts_and_profiles_that_decompress_to_much_are_refused(kind, place):
    with pytest.raises(ServingError, match="image 0 has texts and a profile that decompress"):
        encoded_size(by_hand(PIXELS, **{place: [(kind.encode(), BOMBS[kind])]}))
    text = [(b"zTXt", b"x\0\0" + zlib.compress(b"text")), (b"iTXt", b"x\0\0\0\0\0" + BOMB)]
    assert encoded_size(by_hand(PIXELS, **{place: text})) == (
        16,
        16,
    )  # the 2nd is plain


@pytest.mark.parametrize("names", [b"en\0" + b"x" * 2**10 + b"\0", b"e" * 2**10 + b"\0x\0"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_text_whose_name_is_too_long_is_refused(place, names):
    file = by_hand(PIXELS, **{place: [(b"iTXt", b"x\0\1\0" + names + BOMB)]})
    with pytest.raises(ServingError, match="image 2 has a text whose name is longer than 1024"):
        encoded_size(file, 2)
    plain = [(b"iTXt", b"x\0\0\0" + names + b"text"), (b"iTXt", b"x\0\1\0en")]
    assert encoded_size(by_hand(PIXELS, **{place: plain})) == (16, 16)  # neither is compressed


def test_ordinary_metadata_are_accepted():
    info = {"icc_profile": bytes(3000), "exif": b"Exif\0\0"}
    for mode, form in (("RGB", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("1", "PNG"), ("RGB", "JPEG")):
        file = io.BytesIO()
        Image.new(mode, (7, 5)).save(file, form, **info)
        assert encoded_size(file.getvalue()) == (5, 7)


def test_a_broken_header_is_refused():
    for file in (PNG_START, by_hand(PIXELS)[:20], by_hand(PIXELS, size=(0, 16))):
        with pytest.raises(ServingError, match="not a readable PNG or JPEG"):
            encoded_size(file)
    with pytest.raises(ServingError, match="more than 65536 chunks"):
        encoded_size(by_hand(PIXELS, after=[(b"tEXt", b"")] * 2**16))
    with pytest.raises(ServingError, match="more than 4096 chunks before its pixels"):
        encoded_size(by_hand(PIXELS, before=[(b"tEXt", b"")] * 2**12))


def test_a_jpeg_of_many_scans_is_refused():
    file = picture(16, 16, "JPEG")
    scan = file[file.rindex(b"\xff\xda") : -2]
    assert encoded_size(file[:-2] + scan * (MAX_SCANS - 1) + file[-2:]) == (16, 16)
    with pytest.raises(ServingError, match="more than 64 scans"):
        encoded_size(file[:-2] + scan * MAX_SCANS + file[-2:])


def test_a_jpeg_whose_header_is_slow_to_read_is_refused():
    """Pillow copies the value of each tag when it opens the file."""
    tags = b"".join(struct.pack("<HHLL", 1000 + i, 7, 20000, 8) for i in range(1000))
    block = struct.pack("<2sHLH", b"II", 42, 8, 1000) + tags + bytes(20000)
    file = picture(16, 16, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block
    with pytest.raises(ServingError, match="image 1 has tags that together are larger than"):
        encoded_size(file[:2] + segment + file[2:], 1)
