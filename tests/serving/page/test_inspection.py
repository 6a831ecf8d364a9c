"""Batches of files, and their verdicts at any threshold."""

import contextlib
import copy
import csv
import gc
import os
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfgad.data.image_files import ImageError
from tfgad.inference import predictor, results
from tfgad.inference.predictor import Verdict
from tfgad.serving.inspection import inspection
from tfgad.serving.inspection.inspection import (
    Batch,
    Batches,
    at_threshold,
    check_limits,
    rows,
    thresholds_of,
)
from tfgad.serving.server.image_sizes import MOST_SCANS
from tfgad.training import runs

DESCRIPTORS = Path("/proc/self/fd")


def judged(judge, paths):
    batch = Batch("fabric", judge)
    for path in paths:
        batch.add(path)
    return batch


def test_a_batch_says_what_the_command_says(judge, paths):
    batch = judged(judge, paths.values())
    command = [results.row(each) for each in predictor.score_files(judge, paths.values())]
    expected = [{**row, "image": Path(row["image"]).name} for row in command]
    assert rows(batch.results) == expected
    assert [row["verdict"] == results.NOT_SCORED for row in expected] == [False] * 4 + [True] * 2
    assert expected[4]["reason"] == "is smaller than 32x32 pixels"


def test_sixteen_bits_and_colour_are_judged_as_eight_and_grey_are(judge, paths):
    batch = judged(judge, [paths["good.png"], paths["deep.png"], paths["colour.png"]])
    good, deep, colour = batch.results
    assert deep.score == good.score
    assert colour.score == good.score


def test_images_and_maps_lie_on_the_disk(judge, paths):
    batch = judged(judge, [paths["noise.png"]])
    (whole,) = predictor.score_files(judge, [paths["noise.png"]])
    for name in ("image", "map"):
        expected = getattr(whole, name)
        np.testing.assert_array_equal(getattr(batch.with_pictures(0), name), expected)
        in_its_place = getattr(batch.results[0], name)
        assert in_its_place.shape == expected.shape
        assert in_its_place.base.nbytes == 4
    assert batch.bytes == 60 * 70 * (1 + 4)


def test_a_batch_leaves_no_file(judge, paths, temporary):
    batch = judged(judge, [paths["good.png"]])
    batch.reconstruction(0)
    assert list(temporary.glob("*/*")) == []
    assert batch.write_csv().is_file()
    del batch
    gc.collect()
    assert list(temporary.iterdir()) == []


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="needs Linux's list of descriptors")
def test_descriptors_do_not_grow_with_the_files(judge, paths, temporary):
    first = judged(judge, [paths["good.png"]])
    before = len(nameless(temporary))
    assert before == 1
    for _ in range(5):
        first.add(paths["good.png"])
        first.reconstruction(len(first) - 1)
    assert len(nameless(temporary)) == before
    first.close()
    assert nameless(temporary) == []  # with its last descriptor the file is gone from the disk


def nameless(folder):
    """Returns the descriptors of files in a folder that have no name there."""
    there = []
    for descriptor in DESCRIPTORS.iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            target = os.readlink(descriptor)
            if target.startswith(str(folder)) and target.endswith("(deleted)"):
                there.append(descriptor)
    return there


def test_a_closed_batch_keeps_its_table_alone(judge, paths):
    batch = judged(judge, [paths["good.png"], paths["noise.png"]])
    batch.reconstruction(1)
    table = rows(batch.verdicts)
    batch.close()
    assert batch.bytes == 0
    for index in (0, 1):
        assert batch.with_pictures(index) is None
        assert batch.reconstruction(index) is None
    assert rows(batch.verdicts) == table
    assert batch.write_csv().is_file()
    batch.add(paths["good.png"])
    assert batch.results[2].reason == "is left out: others needed the room, so judge it again"


def test_a_closed_batch_does_not_hold_the_model(judge, paths):
    own = copy.copy(judge)
    batch = judged(own, [paths["good.png"]])
    reference = weakref.ref(own)
    batch.close()
    del own
    gc.collect()
    assert reference() is None


def test_a_batch_that_is_closed_while_it_judges_says_its_verdict(judge, paths, monkeypatch):
    batch = Batch("fabric", judge)

    def closing(*arguments):
        batch.close()
        return predictor.score_files(*arguments)

    monkeypatch.setattr(inspection, "score_files", closing)
    batch.add(paths["good.png"])
    assert isinstance(batch.results[0], Verdict)
    assert batch.with_pictures(0) is None


def opened(judge, paths, count):
    """Returns batches of one image each, of as many visitors, and what holds them."""
    batches, each = Batches(), [Batch("fabric", judge, str(number)) for number in range(count)]
    for batch in each:
        batches.start(batch)
        batch.add(paths["good.png"])
        batches.use(batch)
    return batches, each


def are_open(batches):
    return [batch.with_pictures(0) is not None for batch in batches]


@pytest.mark.parametrize(
    ("limit", "value"), [("MOST_OPEN_BYTES", 2 * 48 * 48 * 5), ("MOST_OPEN_BATCHES", 2)]
)
def test_the_batch_that_was_not_used_for_longest_is_closed(judge, paths, monkeypatch, limit, value):
    monkeypatch.setattr(inspection, limit, value)
    batches, (first, second) = opened(judge, paths, 2)
    assert are_open([first, second]) == [True, True]
    batches.use(first)
    third = Batch("fabric", judge, "2")
    batches.start(third)
    third.add(paths["good.png"])
    batches.use(third)
    assert are_open([first, second, third]) == [True, False, True]
    batches.use(second)  # which does not open it again
    assert are_open([first, second, third]) == [True, False, True]


def test_the_batch_in_use_stays_however_large(judge, paths, monkeypatch):
    monkeypatch.setattr(inspection, "MOST_OPEN_BYTES", 1)
    _, each = opened(judge, paths, 3)
    assert are_open(each) == [False, False, True]


def test_a_visitor_has_one_batch_until_leaving(judge, paths):
    batches, (first, other) = opened(judge, paths, 2)
    second = Batch("fabric", judge, first.visitor)
    batches.start(second)
    second.add(paths["good.png"])
    assert are_open([first, other, second]) == [False, True, True]
    assert (first.replaced, second.replaced) == (True, False)
    batches.leave(second.visitor)
    batches.leave("a stranger")
    assert are_open([other, second]) == [True, False]
    assert (other.replaced, second.replaced) == (False, True)


def test_the_table_is_that_of_the_command(judge, paths):
    batch = judged(judge, [paths["good.png"], paths["broken.png"]])
    with batch.write_csv().open(newline="") as file:
        table = list(csv.DictReader(file))
    assert table == rows(batch.results)
    assert tuple(table[0]) == results.COLUMNS


def test_another_threshold_gives_other_verdicts(judge, paths):
    batch = judged(judge, [paths["good.png"], paths["broken.png"], paths["noise.png"]])
    good, broken, noise = batch.results
    assert batch.verdicts == batch.results
    batch.threshold = (good.score + noise.score) / 2
    below, none, above = batch.verdicts
    assert (below.is_anomalous, above.is_anomalous) == (False, True)
    assert none is broken
    assert [each.score for each in (below, above)] == [good.score, noise.score]
    batch.threshold = noise.score  # a score at the threshold is good, but noise is no cloth
    below, _, at = batch.verdicts
    assert (below.is_anomalous, at.is_anomalous) == (False, True)
    assert (at.reason, at.probability) == ("too much contrast", 1.0)
    with batch.write_csv().open(newline="") as file:
        verdicts = [row["verdict"] for row in csv.DictReader(file)]
    assert verdicts == ["good", "not judged", "defective"]


def test_probability_and_map_follow_the_threshold():
    image = np.zeros((2, 2, 1), "float32")
    forms = {"image": image, "map": image[..., 0], "path": Path("a.png")}
    numbers = {"score": 3.0, "probability": 0.1, "is_anomalous": False}
    verdict = at_threshold(Verdict(**forms, **numbers, map_threshold=9.0), threshold=2.0, scale=0.5)
    assert verdict.probability == pytest.approx(1 / (1 + np.exp(-2)))
    assert verdict.is_anomalous
    assert verdict.map_threshold == 2.0
    own_scale = at_threshold(Verdict(**forms, **numbers, map_threshold=None), 2.0, 0.5)
    assert own_scale.map_threshold is None


@pytest.mark.parametrize("rate", [0.0001, 0.0125, 0.1, 0.2])
def test_a_threshold_is_what_calibrating_at_its_rate_would_give(
    fitted, images, judge, tmp_path, rate
):
    fitted("ganomaly").save(tmp_path / "model.keras")
    model = runs.load_model(tmp_path / "model.keras")
    model.calibrate(tf.data.Dataset.from_tensor_slices(images), rate)
    assert thresholds_of(judge.metadata)[rate] == float(model.calibration.threshold)


def test_the_own_rate_is_among_the_others_in_order():
    metadata = {"false_positive_rate": 0.03, "threshold": 2.5}
    known = {**metadata, "thresholds": [[0.01, 3.0], [0.2, 1.0]]}
    assert list(thresholds_of(known).items()) == [(0.01, 3.0), (0.03, 2.5), (0.2, 1.0)]


def test_an_older_model_knows_no_other_thresholds():
    assert thresholds_of({"false_positive_rate": 0.03, "threshold": 2.5}) == {}


def test_a_reconstruction_is_made_once(judge, paths, monkeypatch):
    batch = judged(judge, [paths["broken.png"], paths["good.png"]])
    expected = judge.reconstruct(batch.with_pictures(1).image)
    calls = []
    monkeypatch.setattr(judge, "reconstruct", lambda image: calls.append(image) or expected)
    for _ in range(2):
        np.testing.assert_array_equal(batch.reconstruction(1), expected)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MOST_BYTES", 200, "is larger than 0 MiB"),
        ("MOST_PIXELS", 2000, "has more than 0.0 megapixels"),
        ("MOST_FILES", 0, "is more than 0 files at once"),
    ],
)
def test_what_is_too_large_is_a_row_that_says_so(judge, paths, monkeypatch, limit, value, reason):
    monkeypatch.setattr(inspection, limit, value)
    (result,) = judged(judge, [paths["noise.png"]]).results
    assert isinstance(result, ImageError)
    assert result.reason == reason


def test_images_beyond_the_limit_for_all_are_left_out(judge, paths, monkeypatch):
    monkeypatch.setattr(inspection, "MOST_PIXELS_TOGETHER", 48 * 48 + 60 * 70 - 1)
    good, noise, deep = judged(
        judge, [paths["good.png"], paths["noise.png"], paths["deep.png"]]
    ).results
    assert "all images together" in noise.reason
    assert isinstance(good, Verdict)
    assert isinstance(deep, Verdict)  # which still fits


def test_a_file_that_costs_more_than_its_pixels_is_a_row_that_says_so(judge, good, tmp_path):
    path = tmp_path / "scans.jpg"
    Image.fromarray(good).save(path)
    content = path.read_bytes()
    scan = content[content.rindex(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + scan * MOST_SCANS + content[-2:])
    (result,) = judged(judge, [path]).results
    assert isinstance(result, ImageError)
    assert result.reason == "has more than 64 scans, and would be slow to decode"


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("1", (6000, 6000)).save(tmp_path / "huge.png")
    with pytest.raises(ImageError, match=r"has more than 33\.6 megapixels"):
        check_limits(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own limit against bombs
    with pytest.raises(ImageError, match="megapixels"):
        check_limits(tmp_path / "huge.png")
