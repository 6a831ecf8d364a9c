"""Groups of a folder's images: how they are named, and that a split takes whole ones."""

import numpy as np
import pytest
from PIL import Image

from tfgad.data import load
from tfgad.data.datasets.folder.groups import groups_of
from tfgad.data.split import hold_out_by_name
from tfgad.errors import UsageError

ROLLS, IMAGES = 6, 3


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(90, 160, (48, 24), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def rolls(tmp_path):
    """Three images of each of six rolls, in `good/ROLL/`, and a defective one."""
    for i in range(ROLLS * IMAGES):
        save(tmp_path / "good" / f"roll{i // IMAGES}" / f"{i}.png", i)
    save(tmp_path / "dent" / "1.png", 100)
    return tmp_path


@pytest.mark.parametrize("group", ["folder", r"good/(roll\d+)/"])
@pytest.mark.parametrize("size", ["size=24", "tile=24"])
def test_whole_groups_are_held_out(rolls, group, size):
    data = load(f"folder:{rolls}?{size}&group={group}&calibration=0.4")
    train, held = set(data.train_origins.groups), set(data.calibration_origins.groups)
    assert len(train) >= 2
    assert len(held) >= 2
    tested = {name.split("/")[1] for name in data.files.test if name.startswith("good/")}
    assert not train & held
    assert sorted([*train, *held, *tested]) == [f"roll{i}" for i in range(ROLLS)]
    for origins, count, files in (
        (data.train_origins, data.train_size, data.files.train),
        (data.calibration_origins, data.calibration_size, data.files.calibration),
    ):
        tiles = 2 if size == "tile=24" else 1
        assert len(origins) == count == tiles * len(files)
        assert len(files) == IMAGES * len(set(origins.groups))  # none of a group is elsewhere
        for name, of_roll in zip(origins.images, origins.groups, strict=True):
            assert name.split("/")[1] == of_roll


def test_test_images_are_numbered_by_group_or_image(rolls):
    save(rolls / "dent" / "roll0_2.png", 101)
    data = load(f"folder:{rolls}?tile=24&group=(roll\\d+)")
    names = [each["name"].decode() for each in data.test.as_numpy_iterator()]
    numbers = data.groups_of(names)
    assert set(numbers) == set(range(max(numbers) + 1))
    of_names = dict(zip(names, numbers, strict=True))
    good = {name.split("/")[1] for name in names if name.startswith("good/")}
    # The expression matches each good image and one dent; the other dent is a group of its own.
    assert len(set(numbers)) == len(good | {"roll0"}) + 1
    assert (
        sum(
            number == of_names[next(name for name in names if name.startswith("dent/1.png"))]
            for number in numbers
        )
        == 2
    )  # its two tiles
    for name, number in of_names.items():
        roll = "roll0" if "roll0_2" in name else name.split("/")[1]
        assert all(number == of_names[other] for other in names if f"/{roll}/" in other)


def test_an_added_roll_moves_no_other(rolls):
    before = load(f"folder:{rolls}?size=24&group=folder").files
    for i in range(3):
        save(rolls / "good" / "roll9" / f"{i}.png", 200 + i)
    after = load(f"folder:{rolls}?size=24&group=folder").files
    moved = (before.train.keys() & after.calibration) | (before.calibration.keys() & after.train)
    assert not moved


def test_without_groups_the_tiles_of_an_image_share_it(rolls):
    data = load(f"folder:{rolls}?tile=24")
    origins = data.calibration_origins
    assert origins.kind == "image"
    assert len(origins) == data.calibration_size == 2 * len(data.files.calibration)
    assert set(origins.groups) == set(origins.images) == set(data.files.calibration)
    whole = load(f"folder:{rolls}?size=24")
    assert whole.train_origins is None
    assert whole.files.groups is None
    same = load(f"folder:{rolls}?size=24&group=image")
    assert same.files.train == whole.files.train


def test_the_folder_is_the_first_below_good():
    names = ["good/a/x.png", "train/good/b/c/x.png", "train/Good/d/x.png", "good/good/x.png"]
    assert list(groups_of(names, "folder").values()) == ["a", "b", "d", "good"]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("(", "is no regular expression"),
        ("roll", "has 0 capture groups, not one"),
        (r"(roll)(\d)", "has 2 capture groups, not one"),
        (r"roll([0-4])/", r"does not match: 3 of 18 \(good/roll5/15.png"),
        (r"roll5/(x)?", r"does not match: 18 of 18"),
        ("(good)", "gives 1 group of good images, of which training, calibration, test need"),
    ],
)
def test_a_wrong_group_is_named_in_one_line(rolls, group, message):
    with pytest.raises(UsageError, match=message) as error:
        load(f"folder:{rolls}?size=24&group={group}")
    assert "data option group" in str(error.value)
    assert "\n" not in str(error.value)


def test_images_without_a_folder_are_counted(rolls):
    save(rolls / "good" / "alone.png", 300)
    with pytest.raises(UsageError, match=r"no folder holds them: 1 of 19 \(good/alone.png\)"):
        load(f"folder:{rolls}?size=24&group=folder")


def test_a_flat_folder_has_no_folders_for_groups(tmp_path):
    for i in range(4):
        save(tmp_path / f"day{i // 2}_{i}.png", i)
    with pytest.raises(UsageError, match="4 of 4"):
        load(f"folder:{tmp_path}?size=24&group=folder")
    data = load(rf"folder:{tmp_path}?size=24&group=^(day\d)")
    assert {*data.train_origins.groups, *data.calibration_origins.groups} == {"day0", "day1"}
    assert (data.train_size, data.calibration_size) == (2, 2)


def test_three_groups_are_enough_for_three_parts(tmp_path):
    for i in range(9):
        save(tmp_path / "good" / f"{i // 3}" / f"{i}.png", i)
    save(tmp_path / "dent" / "1.png", 100)
    for seed in range(5):
        files = load(f"folder:{tmp_path}?size=24&group=folder", seed=seed).files
        assert (len(files.train), len(files.calibration), len(files.test)) == (3, 3, 4)


def test_least_kept_leaves_enough_for_a_second_split():
    for seed in range(200):
        kept, held = hold_out_by_name("abc", 0.9, seed, least=1, least_kept=2)
        assert (len(kept), len(held)) == (2, 1)
    kept, held = hold_out_by_name("ab", 0.9, 0, least=1, least_kept=2)
    assert (len(kept), len(held)) == (1, 1)
