import itertools

import numpy as np
import pytest

import tfgad
from tfgad.data.batches import count_classes
from tfgad.errors import UsageError

WHOLE, CROPPED = (32, 32, 1), (24, 24, 1)


@pytest.fixture(scope="module")
def data():
    return tfgad.load("digits:3+7")


def batches(data, window, count, **options):
    stream = tfgad.training_batches(data, window, batch_size=16, seed=1, **options)
    return list(itertools.islice(stream.as_numpy_iterator(), count))


@pytest.mark.parametrize("window", [WHOLE, CROPPED])
def test_every_iterator_yields_the_same_batches(data, window):
    """A distributed `fit` draws a batch to inspect it, then starts again with another iterator."""
    stream = tfgad.training_batches(data, window, batch_size=16, seed=1).take(30)  # two epochs
    for first, again in zip(*(stream.as_numpy_iterator() for _ in range(2)), strict=True):
        np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("window", [WHOLE, CROPPED])
def test_labelled_batches_hold_the_same_images(data, window):
    plain = batches(data, window, 3)
    for (images, labels), same in zip(batches(data, window, 3, labelled=True), plain, strict=True):
        np.testing.assert_array_equal(images, same)
        assert (labels.shape, labels.dtype) == ((16,), np.int32)


def test_labels_are_those_of_the_images(data):
    train = zip(data.train.as_numpy_iterator(), data.train_labels, strict=True)
    known = {image.tobytes(): label for image, label in train}
    assert {0, 1} == set(known.values())
    for images, labels in batches(data, WHOLE, 20, labelled=True):  # beyond the first epoch
        assert [known[image.tobytes()] for image in images] == labels.tolist()


@pytest.mark.parametrize("window", [WHOLE, CROPPED])
def test_labelled_batches_continue_at_start(data, window):
    whole = batches(data, window, 5, labelled=True)
    rest = batches(data, window, 2, labelled=True, start=3)
    for ours, theirs in zip(rest, whole[3:], strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_data_without_classes_have_no_labels():
    twill = tfgad.load("weave:twill?size=32&train=2&calibration=2&test=2")
    with pytest.raises(UsageError, match=r"data 'weave:twill.*has no classes.*mnist:!2"):
        tfgad.training_batches(twill, WHOLE, labelled=True)


def test_classes_are_counted(data):
    assert count_classes(data) == count_classes(data, given=2) == 2
    with pytest.raises(UsageError, match=r"classes '3'.*digits:3\+7 has 2"):
        count_classes(data, given=3)


def test_augmented_batches_continue_at_start(data):
    whole = batches(data, WHOLE, 3, jitter=1.0)
    later = batches(data, WHOLE, 1, jitter=1.0, start=2)
    np.testing.assert_array_equal(whole[2], later[0])
    difference = np.abs(whole[0] - batches(data, WHOLE, 1)[0])
    assert 0.01 < difference.mean() < 0.3


def test_augmented_images_keep_their_labels(data):
    (images, labels), (_, plain) = (
        batches(data, WHOLE, 1, labelled=True, jitter=jitter)[0] for jitter in (1.0, 0.0)
    )
    assert images.shape == (16, *WHOLE)
    np.testing.assert_array_equal(labels, plain)
