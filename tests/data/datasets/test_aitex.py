"""The AITEX protocol on a tiny database in the published layout."""

import os

import numpy as np
import pytest
from PIL import Image

from tfgad.data import load
from tfgad.data.datasets.aitex_strips import LEFT, strips
from tfgad.errors import UsageError

TILE, HEIGHT, WIDTH = 16, 32, LEFT + 70
NORMAL = 20


def save(path, pixels, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(path)


def mask(*boxes):
    """Boxes (y, x, height, width) in coordinates of the cropped strip, on black."""
    pixels = np.zeros((HEIGHT, WIDTH))
    for y, x, height, width in boxes:
        pixels[y : y + height, LEFT + x : LEFT + x + width] = 255
    return pixels


@pytest.fixture
def root(tmp_path):
    """20 normal strips of fabric 03, 1 of fabric 01, and a strip for every special case."""
    normal = tmp_path / "NODefect_images"
    for i in range(1, NORMAL + 1):
        mode = "LA" if i == 1 else "L"
        save(normal / "a" / f"{i:04d}_000_03.png", np.full((HEIGHT, WIDTH), i), mode)
    save(normal / "b" / "0018_00_01.png", np.zeros((HEIGHT, WIDTH)))
    strip = np.full((HEIGHT, WIDTH), 100)
    masks = {
        "0030_010_03_mask": mask((0, 0, 4, 4)),  # a whole defect in the first tile
        "0031_019_03_mask1": mask((0, 0, 2, 2)),  # 4 px of the first tile ...
        "0031_019_03_mask2": mask((2, 2, 3, 3), (20, 40, 3, 3)),  # ... and 9 more; 9 elsewhere
        "0032_030_03_mask": mask(),  # all black
        "0033_030_03_mask": np.where(mask((0, 0, 8, 8)) > 0, 127, 0),  # nothing but rim
        "0034_036_03_mask": mask((0, -50, 8, 8)),  # left of the crop
        "0099_010_03_mask": mask((0, 0, 4, 4)),  # of no strip
        "0040_010_01_mask": mask((0, 0, 4, 4)),  # of another fabric
    }
    for name, pixels in masks.items():
        save(tmp_path / "Mask_images" / f"{name}.png", pixels)
    for name in ("0030_010_03", "0031_019_03", "0032_030_03", "0033_030_03", "0034_036_03"):
        save(tmp_path / "Defect_images" / f"{name}.png", strip)
    save(tmp_path / "Defect_images" / "0035_010_03.png", strip)  # without a mask
    (tmp_path / "Defect_images" / "0036_010_03.png").write_bytes(b"broken")
    save(tmp_path / "Mask_images" / "0036_010_03_mask.png", mask((0, 0, 4, 4)))
    return tmp_path


def read(root, **options):
    options = {"root": root, "tile": TILE, **options}
    return load("aitex:03?" + "&".join(f"{key}={value}" for key, value in options.items()))


def test_the_first_14_normal_strips_are_for_training_less_3_for_calibration(root):
    found = strips("03", root=str(root))
    levels = sorted(strip.image[0, 0, 0] for strip in (*found.train, *found.calibration))
    assert levels == list(range(1, 15))
    assert (len(found.train), len(found.calibration)) == (11, 3)
    assert [strip.name for strip in found.test[:6]] == [f"{i:04d}_000_03" for i in range(15, 21)]
    assert found.train[0].image.shape == (HEIGHT, WIDTH - LEFT, 1)


def test_calibration_is_by_whole_strip_and_by_seed(root):
    def levels(stream):
        images = np.stack(list(stream.as_numpy_iterator()))
        return set(np.round((images + 1) * 127.5).astype(int).ravel())

    data = read(root, seed=1)
    assert levels(data.calibration) | levels(data.train) == set(range(1, 15))
    assert not levels(data.calibration) & levels(data.train)
    assert levels(data.calibration) == levels(read(root, seed=1).calibration)
    assert any(levels(data.calibration) != levels(read(root, seed=s).calibration) for s in (2, 3))


def test_masks_are_united_and_labels_are_of_the_visible_part(root):
    found = {strip.name: strip for strip in strips("03", root=str(root)).test}
    assert found["0030_010_03"].label == 1
    assert found["0031_019_03"].mask.sum() == 4 + 9 + 9
    assert found["0034_036_03"].label == 0
    assert found["0015_000_03"].label == 0


def test_tiles_are_defective_left_out_or_normal_by_their_mask_pixels(root):
    data = read(root)
    grid = (HEIGHT // TILE) * ((WIDTH - LEFT) // TILE)
    assert grid == 8
    assert data.train_size == 11 * grid
    assert data.calibration_size == 3 * grid
    assert data.test_size == (6 + 3) * grid - 1  # the tile with 9 px is left out
    test = list(data.test.as_numpy_iterator())
    assert len(test) == data.test_size
    defective = {e["name"].decode(): int(e["mask"].sum()) for e in test if e["label"]}
    assert defective == {"0030_010_03/x1300_y0": 16, "0031_019_03/x1300_y0": 13}
    names = [element["name"].decode() for element in test]
    assert "0031_019_03/x1332_y16" not in names
    assert "0031_019_03/x1316_y16" in names
    assert data.kinds == ("broken pick", "fuzzyball")


def test_contract(root):
    data = read(root)
    assert data.image_shape == (TILE, TILE, 1)
    assert data.train.element_spec.shape == (TILE, TILE, 1)
    spec = data.test.element_spec
    assert (spec["label"].dtype.name, spec["mask"].dtype.name) == ("int32", "uint8")
    assert data.has_masks


def test_skipped_files_are_listed_with_their_reasons(root):
    skipped = " | ".join(read(root).skipped)
    for part in (
        "Mask_images/0032_030_03_mask.png: is all black",
        "Mask_images/0033_030_03_mask.png: is all black",
        "Mask_images/0099_010_03_mask.png: is the mask of a strip that does not exist",
        "Defect_images/0035_010_03.png: has no mask",
        "Defect_images/0036_010_03.png: is not a PNG",
    ):
        assert part in skipped
    assert len(read(root).skipped) == 5


def test_letter_case_does_not_matter(root):
    expected = read(root)
    for old, new in (
        ("NODefect_images", "NoDefect_images"),
        ("Defect_images", "defect_images"),
        ("Mask_images", "MASK_IMAGES"),
    ):
        (root / old).rename(root / new)
    for path in sorted(root.rglob("00[0-3]*.png")):
        path.rename(path.with_name(path.name.replace("_mask", "_Mask")).with_suffix(".PNG"))
    found = read(root)
    sizes = ("train_size", "calibration_size", "test_size", "kinds")
    assert [getattr(found, size) for size in sizes] == [getattr(expected, s) for s in sizes]
    assert [each.lower() for each in found.skipped] == [each.lower() for each in expected.skipped]
    assert (found.unit, found.counted_unit) == ("tile", "tile")


def test_the_fabric_is_the_last_field_of_the_name(root):
    with pytest.raises(UsageError, match="at least two good"):  # found, though only one strip
        strips("01", root=str(root))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("aitex:3", "did you mean '03'"),
        ("aitex:03?tile=33", "1 to 32"),
        ("aitex:03?tile=0", "1 to"),
    ],
)
def test_usage_errors(root, spec, message):
    with pytest.raises(UsageError, match=message):
        load(spec, root=root)


def test_the_database_is_searched_in_the_data_folder(root, monkeypatch, tmp_path):
    monkeypatch.setenv("TFGAD_DATA_DIR", str(root.parent))
    root.rename(root.parent / "aitex")
    assert load("aitex:03", tile=TILE).train_size == 88
    monkeypatch.setenv("TFGAD_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"aitex\.es"):
        load("aitex:03")
    monkeypatch.delenv("TFGAD_DATA_DIR")
    with pytest.raises(UsageError, match=r"aitex\.es"):
        load("aitex:03")


@pytest.mark.real_data
@pytest.mark.skipif("TFGAD_DATA_DIR" not in os.environ, reason="TFGAD_DATA_DIR is not set")
def test_the_published_fabric_03():
    data = load("aitex:03?tile=128")
    assert data.train_size + data.calibration_size == 14 * 42
    assert data.test_size == 36 * 42 - 1
    assert data.skipped == ("Mask_images/0106_010_03_mask.png: is all black",)
