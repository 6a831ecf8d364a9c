"""Image folders: every layout, mixed sizes and depths, broken files among good ones."""

import os

import numpy as np
import pytest
from PIL import Image

from tfgad.data import load
from tfgad.errors import UsageError


def save(path, level=100, size=(24, 20), mode="L"):
    """Writes an image of one level; size is width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).convert(mode).save(path)


def save_mask(path, box, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    mask.save(path)


@pytest.fixture
def mvtec(tmp_path):
    for i in range(10):
        save(tmp_path / "train" / "good" / f"{i:03d}.png", i * 10)
    for i in range(2):
        save(tmp_path / "test" / "good" / f"{i:03d}.png")
        save(tmp_path / "test" / "cut" / f"{i:03d}.png")
    save(tmp_path / "test" / "hole" / "000.png")
    for kind, i in (("cut", 0), ("cut", 1), ("hole", 0)):
        save_mask(tmp_path / "ground_truth" / kind / f"{i:03d}_mask.png", (0, 0, 12, 10))
    return tmp_path


def elements(data):
    return list(data.test.as_numpy_iterator())


def levels(stream):
    return sorted(round((image[0, 0, 0] + 1) * 127.5) for image in stream.as_numpy_iterator())


def test_mvtec_layout(mvtec):
    data = load(f"folder:{mvtec}?size=16")
    assert (data.train_size, data.calibration_size, data.test_size) == (8, 2, 5)
    assert data.image_shape == (16, 16, 1)
    assert data.has_masks
    assert data.kinds == ("cut", "hole")
    assert sorted(levels(data.train) + levels(data.calibration)) == list(range(0, 100, 10))
    test = elements(data)
    names = [element["name"].decode() for element in test]
    assert names == [
        "test/cut/000.png", "test/cut/001.png",
        "test/good/000.png", "test/good/001.png",
        "test/hole/000.png",
    ]  # fmt: skip
    assert [element["label"] for element in test] == [1, 1, 0, 0, 1]
    assert [int(element["mask"].sum()) for element in test] == [64, 64, 0, 0, 64]
    assert test[0]["mask"][:8, :8].all()


def test_contract(mvtec):
    data = load(f"folder:{mvtec}?size=16&channels=3")
    assert data.train.element_spec.shape == (16, 16, 3)
    spec = {key: (tuple(s.shape), s.dtype.name) for key, s in data.test.element_spec.items()}
    assert spec == {
        "image": ((16, 16, 3), "float32"),
        "label": ((), "int32"),
        "mask": ((16, 16, 1), "uint8"),
        "name": ((), "string"),
    }


def test_tiles_are_labelled_by_their_masks(mvtec):
    data = load(f"folder:{mvtec}?tile=12")
    assert (data.train_size, data.test_size) == (8 * 4, 5 * 4)  # 24x20: two tiles each way
    test = elements(data)
    assert len(test) == data.test_size
    assert len(list(data.train)) == data.train_size
    assert [int(element["label"]) for element in test[:4]] == [1, 0, 1, 0]
    assert [int(element["mask"].sum()) for element in test[:4]] == [120, 0, 24, 0]
    assert test[3]["name"] == b"test/cut/000.png/x12_y8"


def test_calibration_is_by_whole_image_and_seed(mvtec):
    def held(seed):
        return levels(load(f"folder:{mvtec}?tile=12", seed=seed).calibration)

    assert len(set(held(0))) == 2
    assert all(held(0).count(level) == 4 for level in held(0))
    assert held(0) == held(0)
    assert any(held(0) != held(seed) for seed in (1, 2, 3))


def test_a_flat_folder_is_all_good_and_has_no_test_set(tmp_path, caplog):
    for i in range(5):
        save(tmp_path / f"{i}.png", i)
    (tmp_path / "notes.txt").write_text("ignored")
    save(tmp_path / "._0.png")
    data = load(f"folder:{tmp_path}?size=8")
    assert "ignored 1 file without the suffix of an image (1 .txt)" in caplog.text
    assert data.depth == 8
    assert data.test_size == 0
    assert sorted(levels(data.train) + levels(data.calibration)) == list(range(5))
    assert min(data.train_size, data.calibration_size) == 2
    assert not data.has_masks
    assert data.skipped == ()
    assert elements(data) == []
    assert data.test.element_spec["image"].shape == (8, 8, 1)


def test_good_and_other_folders(tmp_path):
    for i in range(10):
        save(tmp_path / "good" / "monday" / f"{i}.png", i)
    save(tmp_path / "scratch" / "a.png")
    save(tmp_path / "dent" / "a.png")
    data = load(f"folder:{tmp_path}?size=8&seed=0")
    assert (data.train_size, data.calibration_size, data.test_size) == (6, 2, 4)
    assert data.kinds == ("dent", "scratch")
    assert not data.has_masks
    assert [element["label"] for element in elements(data)] == [0, 0, 1, 1]
    other = load(f"folder:{tmp_path}?size=8&seed=1")
    assert [e["name"] for e in elements(other)] == [e["name"] for e in elements(data)]


def test_two_good_images_beside_defects_are_too_few(tmp_path):
    save(tmp_path / "bad" / "a.png")
    for level in (1, 2):
        save(tmp_path / "good" / f"{level}.png", level)
    with pytest.raises(UsageError, match="good images '2': are too few: one is for the test"):
        load(f"folder:{tmp_path}?size=8")
    save(tmp_path / "good" / "3.png", 3)
    data = load(f"folder:{tmp_path}?size=8")
    assert (data.train_size, data.calibration_size, data.test_size) == (1, 1, 2)


def test_without_masks_tiles_are_counted_by_image(tmp_path):
    for i in range(5):
        save(tmp_path / "good" / f"{i}.png", i)
    save(tmp_path / "dent" / "a.png")
    data = load(f"folder:{tmp_path}?tile=20")
    names = [element["name"].decode() for element in elements(data)]
    labels = [element["label"] for element in elements(data)]
    assert labels == [0, 0, 1, 1]
    assert (data.unit, data.counted_unit) == ("tile", "image")
    assert data.images_of(names).tolist() == [1, 1, 0, 0]


def test_mixed_formats_sizes_and_modes(tmp_path):
    save(tmp_path / "a.png", 102, (50, 30))
    save(tmp_path / "b.jpg", 102, (10, 70))
    save(tmp_path / "c.bmp", 102, (3, 3))
    save(tmp_path / "d.PNG", 102, mode="LA")
    Image.fromarray(np.full((9, 9), 26214, np.uint16)).save(tmp_path / "e.tiff")
    data = load(f"folder:{tmp_path}?size=16")
    assert data.image_shape == (16, 16, 1)
    images = [*data.train.as_numpy_iterator(), *data.calibration.as_numpy_iterator()]
    np.testing.assert_allclose(np.stack(images), -0.2, atol=0.01)

    save(tmp_path / "f.png", 102, mode="RGBA")
    assert load(f"folder:{tmp_path}?size=16").image_shape == (16, 16, 3)
    assert load(f"folder:{tmp_path}?size=16&channels=1").image_shape == (16, 16, 1)


def test_images_smaller_than_a_tile_are_padded(tmp_path):
    for i in range(2):
        save(tmp_path / f"{i}.png", 51, (5, 40))
    data = load(f"folder:{tmp_path}?tile=32")
    images = np.stack(list(data.train.as_numpy_iterator()))
    assert images.shape == (2, 32, 32, 1)
    np.testing.assert_allclose(images, -0.6, atol=1e-6)


def test_broken_files_are_logged_and_skipped(tmp_path, broken_files, caplog):
    data = load(f"folder:{tmp_path}?size=16")
    assert data.train_size + data.calibration_size == 5  # the whole one in each format
    assert [reason.split(":")[0] for reason in data.skipped] == sorted(broken_files)
    for name, reason in broken_files.items():
        said = [record.message for record in caplog.records if f"{name}:" in record.message]
        assert len(said) == 1
        assert reason in said[0]
    assert len(list(data.train)) == data.train_size


def test_a_defective_image_without_a_mask_stays_in_the_test(mvtec, caplog):
    (mvtec / "ground_truth" / "hole" / "000_mask.png").unlink()
    save_mask(mvtec / "ground_truth" / "cut" / "000_mask.png", (0, 0, 0, 0))
    data = load(f"folder:{mvtec}?size=16")
    assert data.has_masks
    assert data.unmasked == {"test/hole/000.png", "test/cut/000.png"}
    test = elements(data)
    assert [element["label"] for element in test] == [1, 1, 0, 0, 1]
    names = [element["name"].decode() for element in test]
    assert data.is_masked(names).tolist() == [False, True, True, True, False]
    assert data.images_of(names) is None
    assert "without a mask: 2 of 3 (test/cut/000.png has an all-black mask" in caplog.text
    assert "test/hole/000.png has no mask)" in caplog.text

    tiles = load(f"folder:{mvtec}?tile=12")
    assert (tiles.unit, tiles.counted_unit) == ("tile", "image")
    names = [element["name"].decode() for element in elements(tiles)]
    assert tiles.images_of(names).tolist() == [i for i in range(5) for _ in range(4)]
    assert "whole images are scored" in caplog.text


def test_masks_that_fit_no_image_are_refused(mvtec):
    masks = list((mvtec / "ground_truth").rglob("*.png"))
    for path in masks:
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(UsageError, match=r"has ground_truth/cut/x000_mask\.png, but no mask"):
        load(f"folder:{mvtec}")
    for path in masks:
        path.with_name(f"x{path.name}").unlink()
    with pytest.raises(UsageError, match=r"has ground_truth, but .*ground_truth/cut/000\.\*"):
        load(f"folder:{mvtec}")


@pytest.mark.parametrize(
    ("good", "image", "mask"),
    [
        ("Good/a", "hole/000.JPG", "Ground_Truth/HOLE/000_MASK.PNG"),
        ("good/a", "hole/000.png", "ground_truth/hole/000.png"),
        ("GOOD/a", "hole/monday/A 1.bmp", "masks/hole/monday/a 1-gt.tif"),
        ("train/good/a", "test/hole/000.png", "ground_truth/hole/000/001.png"),
        ("train/Good/a", "test/hole/000.png", "test/ground_truth/hole/000_mask2.png"),
        ("good/a", "hole/000.jpg", "hole/000.png"),
        ("good/a", "hole/000.png", "hole/000_mask.png"),
    ],
)
def test_masks_are_found_by_the_stem_of_their_image(tmp_path, good, image, mask):
    for i in range(8):
        save(tmp_path / f"{good}{i}.png", 100 + i)
    rng = np.random.default_rng(0)
    (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (20, 24), np.uint8)).save(tmp_path / image)
    save_mask(tmp_path / mask, (0, 0, 12, 10))
    data = load(f"folder:{tmp_path}?size=16")
    assert data.has_masks
    assert data.kinds == ("hole",)
    defective = [element for element in elements(data) if element["label"]]
    assert [int(element["mask"].sum()) for element in defective] == [64]
    assert defective[0]["name"].decode() == image


def test_masks_beside_good_images_are_no_good_images(tmp_path, caplog):
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (20, 24), np.uint8)).save(tmp_path / f"{i}.jpg")
        save_mask(tmp_path / f"{i}.png", (0, 0, 4, 4) if i == 3 else (0, 0, 0, 0))
    data = load(f"folder:{tmp_path}?size=16")
    assert data.train_size + data.calibration_size == 5
    assert data.skipped == ("3.jpg: is in a folder of good images, but its mask marks a defect",)
    assert "masks beside their images" in caplog.text
    assert "6 (0.png, 1.png, 2.png, ...)" in caplog.text


def test_one_picture_in_two_formats_is_no_image_and_mask(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        image = Image.fromarray(rng.integers(0, 256, (20, 24), np.uint8))
        image.save(tmp_path / f"{i}.jpg")
        image.save(tmp_path / f"{i}.png")
    data = load(f"folder:{tmp_path}?size=16")
    assert data.train_size + data.calibration_size == 8


def test_a_mask_of_another_size_is_resized_if_the_aspect_agrees(mvtec, caplog):
    save_mask(mvtec / "ground_truth" / "cut" / "000_mask.png", (0, 0, 6, 5), (12, 10))
    save_mask(mvtec / "ground_truth" / "cut" / "001_mask.png", (0, 0, 6, 5), (12, 20))
    data = load(f"folder:{mvtec}?size=16")
    assert data.unmasked == {"test/cut/001.png"}
    assert "differs in aspect ratio from its mask 001_mask.png" in caplog.text
    assert "resized: 1 (000_mask.png)" in caplog.text
    assert elements(data)[0]["mask"].sum() == 64


def test_all_masks_of_an_image_count(mvtec):
    save_mask(mvtec / "ground_truth" / "hole" / "000_mask1.png", (12, 10, 24, 20))
    assert elements(load(f"folder:{mvtec}?size=16"))[-1]["mask"].sum() == 128


def test_names_that_differ_in_case_alone_have_their_own_masks(mvtec):
    for name, box in (("a", (0, 0, 12, 10)), ("A", (0, 0, 24, 10))):
        save(mvtec / "test" / "hole" / f"{name}.png", level=50 + len(box))
        save_mask(mvtec / "ground_truth" / "hole" / f"{name}_mask.png", box)
    marked = {
        e["name"].decode(): e["mask"].sum() for e in elements(load(f"folder:{mvtec}?size=16"))
    }
    assert (marked["test/hole/a.png"], marked["test/hole/A.png"]) == (64, 128)


def test_a_mask_named_as_an_image_marks_no_similar_one(mvtec, caplog):
    for n, name in enumerate(("dup.png", "dup.bmp", "bottle.png", "bottle label.png", "two.bmp")):
        save(mvtec / "test" / "hole" / name, level=151 + n)
        save_mask(mvtec / "ground_truth" / "hole" / name, (0, 0, 12, 2 * n + 2))
    save(mvtec / "test" / "hole" / "two.png", level=160)  # without a mask of its own
    save_mask(mvtec / "ground_truth" / "hole" / "bottle_mask.png", (12, 0, 24, 6))
    data = load(f"folder:{mvtec}?tile=24")
    marked = {e["name"].decode().split("/")[2]: e["mask"].sum() for e in elements(data)}
    assert (marked["dup.png"], marked["dup.bmp"]) == (12 * 2, 12 * 4)
    assert (marked["bottle.png"], marked["bottle label.png"]) == (2 * 12 * 6, 12 * 8)
    assert (marked["two.bmp"], marked["two.png"]) == (12 * 10, 12 * 10)
    assert "masks of several images each: 1 (ground_truth/hole/two.bmp)" in caplog.text


def test_masks_are_found_in_either_unicode_form(mvtec):
    save(mvtec / "test" / "hole" / "u\u0308.png")
    save_mask(mvtec / "ground_truth" / "hole" / "\u00fc_mask.png", (0, 0, 12, 10))
    assert elements(load(f"folder:{mvtec}?size=16"))[-1]["mask"].sum() == 64


def test_names_that_are_not_valid_utf_8(mvtec):
    for folder in ("train/good", "test/good"):
        save(mvtec / "odd.png", level=101 + len(folder))
        (mvtec / "odd.png").rename(os.fsdecode(os.fsencode(mvtec / folder) + b"/\xff.png"))
    data = load(f"folder:{mvtec}?size=16")
    assert data.train_size + data.calibration_size == 11
    assert len(list(data.train)) == data.train_size
    assert b"test/good/\\xff.png" in [element["name"] for element in elements(data)]


def test_broken_links_and_pipes_are_skipped(mvtec, caplog):
    (mvtec / "train" / "good" / "lost.png").symlink_to(mvtec / "gone.png")
    os.mkfifo(mvtec / "train" / "good" / "pipe.png")
    data = load(f"folder:{mvtec}?size=16")
    assert data.train_size + data.calibration_size == 10
    skipped = " ".join(data.skipped)
    assert "lost.png" in skipped
    assert "pipe.png" in skipped


def test_linked_folders_are_read_once(mvtec, tmp_path_factory, caplog):
    away = tmp_path_factory.mktemp("away")
    for i in range(5):
        save(away / "roll" / f"{i}.png", 110 + i)
    save_mask(away / "masks" / "002_mask.png", (0, 0, 12, 10))
    good = mvtec / "train" / "good"
    (good / "roll").symlink_to(away / "roll")
    (good / "roll" / "again").symlink_to(good)  # a loop
    (mvtec / "roll").symlink_to(away / "roll")  # no part of the layout, but in it by another path
    (mvtec / "ground_truth" / "cut" / "more").symlink_to(away / "masks")
    (mvtec / "gone").symlink_to(away / "gone")
    data = load(f"folder:{mvtec}?size=16")
    assert data.train_size + data.calibration_size == 15
    said = [record.message for record in caplog.records]
    assert said == [
        f"{mvtec}/gone: is a link that leads nowhere",
        "masks that fit no image: 1 (ground_truth/cut/more/002_mask.png)",
    ]


def test_hidden_folders_are_left_out(tmp_path, caplog):
    root = tmp_path / ".parts"  # the folder that the user names may be hidden
    for i in range(6):
        save(root / "good" / f"{i}.png", i)
        save(root / "good" / ".thumbnails" / f"{i}.png", 100 + i)
    save(root / "cut" / "0.png", 99)
    save_mask(root / "ground_truth" / "cut" / "0.png", (0, 0, 12, 10))
    save_mask(root / "ground_truth" / "cut" / ".old" / "1.png", (0, 0, 12, 10))
    save(root / ".cache" / "0.png", 98)
    (root / ".cache" / "index.txt").touch()
    data = load(f"folder:{root}?size=16")
    assert (data.train_size + data.calibration_size + data.test_size) == 7
    assert not caplog.records


def test_a_small_defect_survives_resizing(mvtec):
    save_mask(mvtec / "ground_truth" / "hole" / "000_mask.png", (7, 3, 8, 4))
    assert elements(load(f"folder:{mvtec}?size=4"))[-1]["mask"].sum() == 1


def test_files_outside_the_layout_are_logged(mvtec, caplog):
    save(mvtec / "test_private" / "good" / "000.png")
    save_mask(mvtec / "ground_truth" / "cut" / "007_mask.png", (0, 0, 4, 4))
    save(mvtec / "test" / "OK" / "000.png", 33)
    save_mask(mvtec / "ground_truth" / "OK" / "000.png", (0, 0, 4, 4))
    load(f"folder:{mvtec}")
    assert "not part of the layout: 1 (test_private/good/000.png)" in caplog.text
    assert "masks that fit no image: 1 (ground_truth/cut/007_mask.png)" in caplog.text
    assert "the images in OK/ count as defective" in caplog.text


def test_a_folder_without_good_is_refused_with_its_subfolders(tmp_path):
    for kind in ("OK", "NG"):
        save(tmp_path / kind / "0.png")
    with pytest.raises(UsageError, match=r"has no good images, but NG/, OK/.*\?good=OK"):
        load(f"folder:{tmp_path}")
    with pytest.raises(UsageError, match="has no images in a folder Good/, but NG/, OK/"):
        load(f"folder:{tmp_path}?good=Good")


def test_no_image_changes_its_part_when_the_folder_grows(tmp_path):
    def parts():
        return load(f"folder:{tmp_path}?size=8").files

    for i in range(30):
        save(tmp_path / "good" / f"{i}.png", i)
    save(tmp_path / "dent" / "a.png", 250)
    before = parts()
    for i in range(30, 120):
        save(tmp_path / "good" / f"{i}.png", i)
    after = parts()
    for part in ("train", "calibration", "test"):
        assert getattr(before, part).items() <= getattr(after, part).items()
    assert len(after.train) + len(after.calibration) + len(after.test) == 121


def test_copies_of_training_images_are_removed_from_the_test(mvtec, caplog):
    for name in ("000.png", "001.png"):
        (mvtec / "test" / "good" / name).unlink()
    (mvtec / "test" / "good" / "link.png").symlink_to(mvtec / "train" / "good" / "003.png")
    save(mvtec / "test" / "good" / "002.png", 123)
    data = load(f"folder:{mvtec}?size=16")
    assert data.skipped == ("test/good/link.png: is a copy of train/good/003.png",)
    assert "copies of training or calibration images: 1" in caplog.text
    assert len(elements(data)) == data.test_size == 4


def save_deep(path, highest):
    """Writes a 16-bit grey image, a linear ramp up to a level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    slope = np.rint(np.linspace(0, highest, 20 * 24)).astype(np.uint16)
    Image.fromarray(slope.reshape(20, 24)).save(path)


def test_the_depth_of_a_camera_is_found(tmp_path, caplog):
    for i in range(6):
        highest = 4095 if i == 3 else 2000 + i
        save_deep(tmp_path / "12" / "good" / f"{i}.png", highest)
        save_deep(tmp_path / "16" / "good" / f"{i}.png", highest * 65535 / 4095)
    save_deep(tmp_path / "12" / "glare" / "0.png", 5000)
    save_deep(tmp_path / "16" / "glare" / "0.png", 5000)
    caplog.set_level("INFO", "tfgad")
    narrow, full = (load(f"folder:{tmp_path / depth}?size=16") for depth in ("12", "16"))
    assert (narrow.depth, full.depth) == (12, 16)
    for ours, theirs in zip(narrow.train, full.train, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1 / 2000)
    reason = (
        "glare/0.png: holds values up to 5000, above 4095, the maximum of 12 bits; give depth=14"
    )
    assert narrow.skipped == (reason,)
    said = [record.message for record in caplog.records]
    assert any("values up to 4095: read as 12 bits" in line for line in said)
    assert any("values up to 65535: read as 16 bits" in line for line in said)
    assert not any("check exposure" in line for line in said)

    caplog.clear()
    given = load(f"folder:{tmp_path / '12'}?size=16&depth=14")
    assert (given.depth, given.skipped) == (14, ())
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / '12'}: no image has a value above 4095 of 16383, the maximum of 14 bits; "
        "check exposure and depth"
    ]


def test_the_home_folder(mvtec, monkeypatch):
    monkeypatch.setenv("HOME", str(mvtec.parent))
    assert load(f"folder:~/{mvtec.name}").train_size == 8


def make_empty(path):
    path.mkdir()


def make_file(path):
    path.write_text("")


def make_without_good(path):
    save(path / "test" / "cut" / "000.png")


def make_all_broken(path):
    path.mkdir()
    (path / "a.png").touch()


def make_single(path):
    save(path / "a.png")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (make_empty, "has no good images"),
        (make_file, "is not a folder"),
        (make_without_good, "has no good images"),
        (make_all_broken, r"no good image that can be read \(a.png: is empty\)"),
        (make_single, "at least two good images"),
    ],
)
def test_unusable_folders(tmp_path, make, message):
    make(tmp_path / "parts")
    with pytest.raises(UsageError, match=message) as caught:
        load(f"folder:{tmp_path / 'parts'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        "channels=2",
        "size=0",
        "size=4x0",
        "size=1x2x3",
        "size=8&tile=8",
        "fit=crop",
        "fit=letterbox&tile=8",
        "tile=0",
        "tile=99999",
        "calibration=1",
        "depth=8",
        "depth=17",
    ],
)
def test_options_out_of_range(mvtec, option):
    with pytest.raises(UsageError):
        load(f"folder:{mvtec}?{option}")
