"""Examples are similar to the training data of a model."""

import numpy as np
import pytest

from tfgad.data.datasets.weave.weave import render
from tfgad.data.images import read_image
from tfgad.serving.inspection.examples import examples_for


def metadata_of(data, shape=(48, 48, 1)):
    return {"data": data, "image_shape": list(shape)}


@pytest.mark.parametrize("channels", [1, 3])
def test_fabric_of_its_weave_in_its_channels(tmp_path, channels):
    examples = examples_for(metadata_of("weave:plain?seed=3", (48, 48, channels)), tmp_path / "new")
    assert "plain" in examples.note
    labels = [label for _, label in examples.files]
    assert labels[:3] == ["good", "good", "hole"]
    path, _ = examples.files[0]
    tile, _ = render("plain", seed=3, index=0, split="test", size=48, channels=channels)
    np.testing.assert_array_equal(read_image(path, channels), tile.astype("float32") / 127.5 - 1)


def test_digits_normal_ones_first(tmp_path):
    examples = examples_for(metadata_of("digits:7+8", (32, 32, 1)), tmp_path)
    labels = [label for _, label in examples.files]
    assert {label.split()[0] for label in labels[:3]} <= {"7", "8"}
    assert labels[3:] == ["0 other", "1 other", "2 other", "3 other", "4 other"]
    assert {read_image(path).shape for path, _ in examples.files} == {(32, 32, 1)}


@pytest.mark.parametrize("data", ["folder:parts", "aitex:03?tile=128", None, "digits:99", "none"])
def test_other_models_get_fabric_and_a_note_on_their_training_data(tmp_path, data):
    examples = examples_for(metadata_of(data, (1024, 600, 1)), tmp_path)
    assert "was trained on" in examples.note
    assert len(examples.files) == 8
    assert read_image(examples.files[0][0]).shape == (256, 256, 1)
