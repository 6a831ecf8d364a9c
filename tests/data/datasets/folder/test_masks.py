"""Which levels of a mask are defective."""

import numpy as np
import pytest
from PIL import Image

from tfgad.data.datasets.folder.masks import mask_levels, read_ground_truth, resize
from tfgad.data.image_files import ImageError

SHAPE = (12, 20)


def save(path, levels, mode=None):
    Image.fromarray(np.asarray(levels, np.uint8), mode).save(path)
    return path


def drawn(*levels):
    """Stripes of three columns for each level, on 0."""
    mask = np.zeros(SHAPE, np.uint8)
    for i, level in enumerate(levels):
        mask[:, 3 * i : 3 * i + 3] = level
    return mask


def marked(*paths):
    """Reads the masks of as many images; returns how many columns of each are defective."""
    truth = read_ground_truth([(path.name, [path], SHAPE) for path in paths])
    read = [[mask.read(SHAPE) for mask in truth.masks.get(path.name, ())] for path in paths]
    return [int(masks[0].sum()) / SHAPE[0] if masks else None for masks in read]


@pytest.mark.parametrize(
    ("levels", "columns"),
    [
        ((255,), 3),
        ((1,), 3),
        ((1, 2, 3), 9),  # kinds of defect
        ((1, 2, 255), 6),  # VOC: 255 is void
        ((128, 255), 6),
        ((253, 254, 255), 9),  # MVTec LOCO numbers kinds from above
    ],
)
def test_of_few_levels_each_above_0_is_defective(tmp_path, caplog, levels, columns):
    assert marked(save(tmp_path / "a.png", drawn(*levels))) == [columns]
    assert ("levels 0, " in caplog.text) == (len(levels) > 1)
    assert ("255 as void in 1 (a.png)" in caplog.text) == (levels == (1, 2, 255))


def test_of_many_levels_those_above_half_of_the_highest_are_defective(tmp_path, caplog):
    soft = save(tmp_path / "soft.png", np.tile(np.arange(0, 240, 12, np.uint8), (12, 1)))
    others = [save(tmp_path / f"{i}.png", drawn(i, 240)) for i in range(1, 240, 12)]
    # 228 is the highest of the first; of the others, 240.
    assert marked(soft, *others) == [10, *(6 if i > 120 else 3 for i in range(1, 240, 12))]
    assert "41 grey levels" in caplog.text


def test_jpeg_masks_are_thresholded_at_half(tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:8, 5:12] = 255
    path = save(tmp_path / "a.jpg", mask)
    read = read_ground_truth([("a", [path], SHAPE)]).masks["a"][0].read(SHAPE)
    np.testing.assert_array_equal(read[..., 0], mask > 0)


def test_opacity_is_the_mask_if_there_is_one_colour(tmp_path):
    for mode, colour in (("RGBA", (255, 255, 255)), ("RGBA", (0, 0, 0)), ("LA", (255,))):
        layers = [np.full(SHAPE, each, np.uint8) for each in colour]
        path = tmp_path / "a.png"
        Image.fromarray(np.stack([*layers, drawn(255)], axis=-1), mode).save(path)
        assert marked(path) == [3]


def test_transparent_pixels_are_background(tmp_path):
    image = np.full((*SHAPE, 4), 255, np.uint8)
    image[:, 6:, 3] = 0  # white, but nothing to see
    image[:, :3, :3] = 0
    Image.fromarray(image, "RGBA").save(tmp_path / "a.png")
    assert marked(tmp_path / "a.png") == [3]


def test_an_opaque_alpha_channel_is_ignored(tmp_path):
    layers = [drawn(255)] * 3 + [np.full(SHAPE, 255, np.uint8)]
    Image.fromarray(np.stack(layers, axis=-1), "RGBA").save(tmp_path / "a.png")
    assert marked(tmp_path / "a.png") == [3]


def test_palettes_are_read_by_index_and_other_colours_by_their_brightest(tmp_path):
    indexed = Image.fromarray(drawn(1, 2), "P")
    indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    indexed.save(tmp_path / "a.png")
    np.testing.assert_array_equal(mask_levels(tmp_path / "a.png"), drawn(1, 2))
    Image.merge("RGB", [Image.fromarray(drawn(0, 7, level)) for level in (0, 0, 9)]).save(
        tmp_path / "b.png"
    )
    np.testing.assert_array_equal(mask_levels(tmp_path / "b.png"), drawn(0, 7, 9))


def test_deep_and_binary_masks(tmp_path):
    Image.fromarray(drawn(1).astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(drawn(255).astype(np.uint16) * 257).save(tmp_path / "b.tif")
    Image.fromarray(drawn(255) > 0).save(tmp_path / "c.png")
    assert marked(*(tmp_path / name for name in ("a.png", "b.tif", "c.png"))) == [3, 3, 3]


def test_inverted_masks_are_logged(tmp_path, caplog):
    marked(save(tmp_path / "a.png", 255 - drawn(255)))
    assert "mark 85 % of all pixels: are they inverted?" in caplog.text


def test_a_broken_mask_counts_as_missing(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"broken")
    assert (
        "has a mask a.png that is not a PNG"
        in read_ground_truth([("a", [path], SHAPE)]).missing["a"]
    )
    with pytest.raises(ImageError):
        mask_levels(path)


@pytest.mark.parametrize("sides", [(5, 7), (16, 16), (33, 64), (200, 3)])
def test_resizing_a_mask_neither_removes_nor_adds_defects(sides):
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((33, 64, 1), np.uint8)
        y, x = rng.integers(0, 33), rng.integers(0, 64)
        mask[y, x] = 1
        resized = resize(mask, *sides)
        assert resized.shape == (*sides, 1)
        assert resized.dtype == np.uint8
        ys, xs = np.nonzero(resized[..., 0])
        assert len(ys) > 0 or sides[0] > 33
        # Where a pixel of the result lies in the mask, give or take its own size.
        assert (abs((ys + 0.5) * 33 / sides[0] - y - 0.5) <= 0.5 * (33 / sides[0] + 1)).all()
        assert (abs((xs + 0.5) * 64 / sides[1] - x - 0.5) <= 0.5 * (64 / sides[1] + 1)).all()
    np.testing.assert_array_equal(resize(mask, 33, 64), mask)
    half = np.zeros((64, 64, 1), np.uint8)
    half[:32] = 1
    np.testing.assert_array_equal(resize(half, 16, 16)[:, 0, 0], [1] * 8 + [0] * 8)
    np.testing.assert_array_equal(resize(half, 128, 128)[:, 0, 0], [1] * 64 + [0] * 64)
