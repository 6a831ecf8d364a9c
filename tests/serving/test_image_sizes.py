"""The sizes of images in requests, by hand."""

import io

import numpy as np
import pytest
from PIL import Image

from tfgad.serving.errors import ServingError
from tfgad.serving.image_sizes import encoded_size, measure
from tfgad.serving.limits import Limits

LIMITS = Limits(max_pixels=100, max_images=2)


def picture(height, width, form="PNG", mode="L"):
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, form)
    return file.getvalue()


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


def test_pixels_are_counted_whichever_way_they_come():
    rows = measure({"images": np.zeros((3, 5, 7, 1), "u1")}, LIMITS)
    assert (rows.count, rows.cost) == (3, 35)
    rows = measure(files(picture(5, 7), picture(5, 7)), LIMITS)
    assert (rows.count, rows.cost) == (2, 35)
    rows = measure({"x": np.zeros((4, 6), "f4")}, LIMITS)
    assert (rows.count, rows.cost) == (4, 6)


def test_only_what_is_alike_is_of_one_kind():
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
    with pytest.raises(ServingError, match="11x10 pixels is larger than the limit of 100"):
        measure(files(picture(11, 10)), LIMITS)
    with pytest.raises(ServingError, match="11x10 pixels"):
        measure({"images": np.zeros((1, 11, 10, 1), "u1")}, LIMITS)
    measure(files(*[picture(10, 10)] * 2), LIMITS)
    with pytest.raises(ServingError, match="holds 300 pixels, more than 200"):
        measure(files(*[picture(10, 10)] * 3), LIMITS)


def test_too_many_files_are_refused_unread():
    with pytest.raises(ServingError, match="holds 3 images, more than 2"):
        measure(files(b"none", b"none", b"none"), Limits(max_files=2))
    measure(files(*[picture(5, 7)] * 2), Limits(max_files=2))


def test_what_is_no_image_is_named_by_its_place():
    with pytest.raises(ServingError, match="image 1 is no PNG or JPEG"):
        measure(files(picture(5, 7), b"GIF89a"), LIMITS)
