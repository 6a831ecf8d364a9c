"""Data of several products: each as by itself, with names that begin with the product."""

import numpy as np
import pytest
from PIL import Image

from tfgad import data
from tfgad.errors import UsageError

SIDE = 24


def write_product(root, good=8, defects=2, kind="hole", masks=False, channels=1, seed=0):
    """Writes a folder with good images and one kind of defect."""
    rng = np.random.default_rng(seed)
    for folder, count in (("good", good), (kind, defects)):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(0, 256, (SIDE, SIDE, channels), np.uint8)
            Image.fromarray(noise.squeeze()).save(root / folder / f"{number}.png")
    if masks:
        (root / "ground_truth" / kind).mkdir(parents=True)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:5] = 255
        for number in range(defects):
            Image.fromarray(mask).save(root / "ground_truth" / kind / f"{number}_mask.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """`bolt` with masks, a kind that is named like the product `nut`, and `nut` without masks."""
    root = tmp_path_factory.mktemp("products")
    write_product(root / "bolt", kind="nut", masks=True)
    write_product(root / "nut", good=10, seed=1)
    (root / "notes").mkdir()
    return root


def names(stream):
    return [each["name"].decode() for each in stream.as_numpy_iterator()]


def test_each_product_is_split_as_it_is_alone(root):
    both = data.load(f"folder:{root}?products=nut+bolt&size={SIDE}")
    assert both.products == ("nut", "bolt")
    alone = {each: data.load(f"folder:{root / each}?size={SIDE}") for each in both.products}
    for part in ("train", "calibration"):
        images = np.stack(list(getattr(both, part).as_numpy_iterator()))
        of_image = getattr(both, f"{part}_products")
        assert len(images) == getattr(both, f"{part}_size") == len(of_image)
        for number, product in enumerate(both.products):
            own = np.stack(list(getattr(alone[product], part).as_numpy_iterator()))
            np.testing.assert_array_equal(images[of_image == number], own)
    assert names(both.test) == [
        f"{product}/{name}" for product in both.products for name in names(alone[product].test)
    ]
    assert {both.product_of(name) for name in names(both.test)} == {"nut", "bolt"}


def test_names_kinds_masks_and_files_are_those_of_the_products(root):
    both = data.load(f"folder:{root}?products=all&size={SIDE}")
    assert both.products == ("bolt", "nut")  # `notes` holds no good/
    assert both.kind_of("nut/hole/0.png") == "hole"
    assert both.kind_of("bolt/nut/0.png") == "nut"
    assert both.has_masks
    assert both.unmasked == {"nut/hole/0.png", "nut/hole/1.png"}
    masked = both.is_masked(["nut/hole/0.png", "bolt/nut/0.png", "nut/good/1.png"])
    assert masked.tolist() == [False, True, True]
    left = [name for name in both.files.train if name.endswith(("0.png", "3.png", "5.png"))]
    stream, size = both.files.of_good(left)
    assert both.files.products_of(left).tolist() == sorted(name.startswith("nut/") for name in left)
    assert size == len(left) == len(list(stream))
    some = ["nut/hole/1.png", "bolt/nut/0.png"]
    assert sorted(names(both.files.of_test(some)[0])) == sorted(some)


@pytest.mark.parametrize("spec", ["weave:twill+satin?size=32&train=2&calibration=2&test=2"])
def test_other_data_sets_have_products_too(spec):
    both = data.load(spec)
    assert both.products == ("twill", "satin")
    assert both.train_products.tolist() == [0, 0, 1, 1]
    assert names(both.test) == [
        f"{product}/{kind}" for product in both.products for kind in ("good/000", "broken_end/001")
    ]
    assert data.load(both.spec).products == both.products


def test_groups_of_two_products_are_two_groups(tmp_path):
    for number, product in enumerate(("bolt", "nut")):
        write_product(tmp_path / product, good=0, seed=number)
        for roll in "abc":
            write_product(tmp_path / "new", good=2, defects=0, seed=ord(roll) + number)
            (tmp_path / "new" / "good").rename(tmp_path / product / "good" / roll)
            (tmp_path / "new" / "hole").rmdir()
            (tmp_path / "new").rmdir()
    both = data.load(f"folder:{tmp_path}?products=bolt+nut&size={SIDE}&group=folder")
    groups = set(both.train_origins.groups) | set(both.calibration_origins.groups)
    assert len(groups) == 4  # of three, one is for the test
    assert {group.partition("/")[0] for group in groups} == {"bolt", "nut"}


@pytest.mark.parametrize(
    ("products", "said"),
    [
        ("bolt+bolt", "names bolt twice"),
        ("bolt+nutt", "nutt is not one of the products there; did you mean 'nut'?"),
        ("bolt+../nut", "'../nut' names no product"),
        ("bolt+.", "'.' names no product"),
        ("bolt+", "'' names no product"),
        ("bolt+\x1b[31mnut", "is not one of the products there"),
        ("all&good=fine", "takes each folder with fine/ or train/fine/ in it"),
    ],
)
def test_wrong_products(root, products, said):
    with pytest.raises(UsageError) as raised:
        data.load(f"folder:{root}?products={products}")
    assert said in str(raised.value)


def test_wrong_folders(root, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        data.load(f"folder:{tmp_path / 'none'}?products=all")
    with pytest.raises(UsageError, match="has no good images"):
        data.load(f"folder:{root}?products=bolt+notes")
    write_product(tmp_path / "grey")
    write_product(tmp_path / "red", channels=3)
    with pytest.raises(UsageError, match="'red': has images with channels 3, but grey with"):
        data.load(f"folder:{tmp_path}?products=all&size={SIDE}")
    assert data.load(f"folder:{tmp_path}?products=all&channels=3").image_shape == (128, 128, 3)
    write_product(tmp_path / "a+b")
    with pytest.raises(UsageError, match=r"finds a\+b/, which no spec can name; rename it"):
        data.load(f"folder:{tmp_path}?products=all")


def test_wrong_weaves():
    with pytest.raises(UsageError, match="did you mean 'satin'"):
        data.load("weave:twill+satn")
