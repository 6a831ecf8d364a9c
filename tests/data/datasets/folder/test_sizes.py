"""Sizes that are no squares, aspect ratios that are kept, folders named otherwise than `good`."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfgad.data import load, pixels
from tfgad.errors import UsageError
from tfgad.export import letterbox


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def parts(tmp_path):
    """Parts of several sizes: light left half, dark right half; a defect in a corner."""
    for i, (height, width) in enumerate([(24, 48), (30, 60), (48, 24), (24, 24), (40, 20)] * 2):
        image = np.full((height, width), 40 + i)
        image[:, : width // 2] = 200
        save(tmp_path / "0.Normal" / f"{i}.png", image)
    image[:10, -5:] = 0
    save(tmp_path / "1.dent" / "a.png", image)
    mask = np.zeros(image.shape)
    mask[:10, -5:] = 255
    save(tmp_path / "ground_truth" / "1.dent" / "a.png", mask)
    return tmp_path


def defects(data):
    return [row for row in data.test.as_numpy_iterator() if row["label"]]


def test_parts_of_several_sizes_at_one_size_of_any_shape(parts):
    data = load(f"folder:{parts}?size=32x16&good=0.normal")
    assert data.image_shape == (32, 16, 1)
    assert data.kinds == ("1.dent",)
    images = [*data.train.as_numpy_iterator(), *data.calibration.as_numpy_iterator()]
    assert len(images) == data.train_size + data.calibration_size
    assert all(image.shape == (32, 16, 1) for image in images)
    (row,) = defects(data)
    assert row["mask"].sum() == 8 * 4  # a quarter of the height and width


def test_letterboxed_the_padding_mirrors_image_and_mask(parts):
    data = load(f"folder:{parts}?size=32&good=0.normal&fit=letterbox")
    assert data.fit == "letterbox"
    (row,) = defects(data)  # 40x20: 8 columns on either side are padding
    image, mask = row["image"][..., 0], row["mask"][..., 0]
    assert mask[:8, 20:24].all()
    np.testing.assert_array_equal(mask[:, 24:], mask[:, 16:24][:, ::-1])
    np.testing.assert_array_equal(image[:, :8], image[:, 8:16][:, ::-1])
    assert pixels.without_padding(image, (40, 20)).shape == (32, 16)


@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (7, 90), (33, 32), (1, 64), (32, 48)])
def test_a_graph_letterboxes_as_python_does(shape):
    image = np.random.default_rng(0).uniform(-1, 1, (*shape, 3)).astype(np.float32)
    ours = pixels.resize(image, (32, 48), pixels.LETTERBOX)
    assert ours.shape == (32, 48, 3)
    in_graph = tf.function(lambda x: letterbox.letterboxed(x, (32, 48)), reduce_retracing=True)
    any_images = tf.TensorSpec([None, None, None, 3], tf.float32)
    padded = in_graph.get_concrete_function(any_images)(tf.constant(image[None]))
    np.testing.assert_allclose(padded[0], ours, atol=1e-5)
    cut = letterbox.without_padding(padded, tf.constant(shape))[0]
    np.testing.assert_array_equal(cut, pixels.without_padding(padded[0].numpy(), shape))
    assert cut.shape[:2] == pixels.fitted_size(shape, (32, 48))


def test_two_folders_of_good_images_are_refused(parts):
    save(parts / "good" / "a.png", np.zeros((8, 8)))
    with pytest.raises(UsageError, match="there is good/ beside it"):
        load(f"folder:{parts}?good=0.normal")


def test_groups_are_found_below_a_folder_of_another_name(tmp_path):
    for roll in "abc":
        for i in range(3):
            save(tmp_path / "OK" / roll / f"{i}.png", np.full((8, 8), 20 * ord(roll) % 200 + i))
    for i in range(2):
        save(tmp_path / "NG" / f"{i}.png", np.full((8, 8), 250 + i))
    data = load(f"folder:{tmp_path}?size=8&good=ok&group=folder")
    assert set(data.files.groups.values()) < {"a", "b", "c"}
    assert set(data.test_groups.values()) == {"a", "b", "c"} - set(data.files.groups.values())


@pytest.mark.parametrize("test", ["test", "test_public"])
def test_layouts_of_loco_and_ad_2(tmp_path, caplog, test):
    caplog.set_level("INFO")
    for i in range(6):
        save(tmp_path / "train" / "good" / f"{i:03d}.png", np.full((16, 16), i))
    for i in range(3):
        save(tmp_path / "validation" / "good" / f"{i:03d}.png", np.full((16, 16), 50 + i))
    for kind in ("good", "bad"):
        save(tmp_path / test / kind / "000.png", np.full((16, 16), 90 + len(kind)))
    mask = np.zeros((16, 16))
    mask[:4] = 255
    if test == "test":  # LOCO: a folder of masks for each image
        save(tmp_path / "ground_truth" / "bad" / "000" / "000.png", mask)
        save(tmp_path / "ground_truth" / "bad" / "000" / "001.png", mask[::-1])
    else:
        save(tmp_path / test / "ground_truth" / "bad" / "000_mask.png", mask)
    data = load(f"folder:{tmp_path}?size=16", seed=3)
    assert (data.train_size, data.calibration_size, data.test_size) == (6, 3, 2)
    assert data.files.calibration.keys() == {f"validation/good/{i:03d}.png" for i in range(3)}
    (row,) = defects(data)
    assert row["mask"].sum() == (128 if test == "test" else 64)
    assert "3 images of validation/ are held out" in caplog.text
