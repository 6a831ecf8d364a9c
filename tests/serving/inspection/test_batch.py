"""Batches of files, and their verdicts at any threshold."""

import contextlib
import copy
import csv
import gc
import os
import struct
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfgad.data.image_files import ImageError
from tfgad.data.image_headers import MAX_TAGS
from tfgad.inference import results
from tfgad.inference.scoring import Verdict, regions_of, score_files
from tfgad.scores.map_regions import find_regions
from tfgad.scores.verdicts import NOT_SCORED
from tfgad.serving.file_cost import MAX_SCANS
from tfgad.serving.inspection import batch as batch_module
from tfgad.serving.inspection import file_checks
from tfgad.serving.inspection.batch import Batch, Batches
from tfgad.serving.inspection.file_checks import check_limits

DESCRIPTORS = Path("/proc/self/fd")


def scored(predictor, paths):
    batch = Batch("fabric", predictor)
    for path in paths:
        batch.add(path)
    return batch


def test_a_batch_gives_the_results_of_the_command(predictor, paths):
    batch = scored(predictor, paths.values())
    scores = score_files(predictor, paths.values())
    command = [
        results.row(each, None if isinstance(each, ImageError) else regions_of(each))
        for each in scores
    ]
    expected = [{**row, "image": Path(row["image"]).name} for row in command]
    assert batch.rows() == expected
    assert [row["verdict"] == NOT_SCORED for row in expected] == [False] * 4 + [True] * 2
    assert expected[4]["reason"] == "is smaller than 32x32 pixels"


def test_sixteen_bits_and_colour_are_scored_like_eight_bits_and_grey(predictor, paths):
    batch = scored(predictor, [paths["good.png"], paths["deep.png"], paths["colour.png"]])
    good, deep, colour = batch.results
    assert deep.score == good.score
    assert colour.score == good.score


def test_images_and_maps_are_on_the_disk(predictor, paths):
    batch = scored(predictor, [paths["noise.png"]])
    (whole,) = score_files(predictor, [paths["noise.png"]])
    for name in ("image", "map"):
        expected = getattr(whole, name)
        np.testing.assert_array_equal(getattr(batch.with_pictures(0), name), expected)
        in_its_place = getattr(batch.results[0], name)
        assert in_its_place.shape == expected.shape
        assert in_its_place.base.nbytes == 4
    assert batch.bytes == 60 * 70 * (1 + 4)


def test_a_batch_leaves_no_file(predictor, paths, temporary):
    batch = scored(predictor, [paths["good.png"]])
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
def test_descriptors_do_not_grow_with_the_files(predictor, paths, temporary):
    first = scored(predictor, [paths["good.png"]])
    before = len(nameless(temporary))
    assert before == 1
    for _ in range(5):
        first.add(paths["good.png"])
        first.reconstruction(len(first) - 1)
    assert len(nameless(temporary)) == before
    first.close()
    assert nameless(temporary) == []  # closing its last descriptor frees the file


def nameless(folder):
    """Returns the descriptors of deleted files of a folder."""
    there = []
    for descriptor in DESCRIPTORS.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing
            target = os.readlink(descriptor)
            if target.startswith(str(folder)) and target.endswith("(deleted)"):
                there.append(descriptor)
    return there


def test_a_closed_batch_keeps_only_its_table(predictor, paths):
    batch = scored(predictor, [paths["good.png"], paths["noise.png"]])
    batch.reconstruction(1)
    table = batch.rows()
    batch.close()
    assert batch.bytes == 0
    for index in (0, 1):
        assert batch.with_pictures(index) is None
        assert batch.reconstruction(index) is None
    assert batch.rows() == table
    assert batch.write_csv().is_file()
    batch.add(paths["good.png"])
    assert batch.results[2].reason == "was not scored: the server was busy, so score it again"


def test_a_closed_batch_does_not_hold_the_model(predictor, paths):
    own = copy.copy(predictor)
    batch = scored(own, [paths["good.png"]])
    reference = weakref.ref(own)
    batch.close()
    del own
    gc.collect()
    assert reference() is None


def test_a_batch_that_is_closed_during_scoring_has_its_verdict(predictor, paths, monkeypatch):
    batch = Batch("fabric", predictor)

    def closing(*arguments):
        batch.close()
        return score_files(*arguments)

    monkeypatch.setattr(batch_module, "score_files", closing)
    batch.add(paths["good.png"])
    assert isinstance(batch.results[0], Verdict)
    assert batch.with_pictures(0) is None


def opened(predictor, paths, count):
    """Returns `Batches` and its batches: one for each visitor, with one image each."""
    batches, each = Batches(), [Batch("fabric", predictor, str(number)) for number in range(count)]
    for batch in each:
        batches.start(batch)
        batch.add(paths["good.png"])
        batches.use(batch)
    return batches, each


def are_open(batches):
    return [batch.with_pictures(0) is not None for batch in batches]


@pytest.mark.parametrize(
    ("limit", "value"), [("MAX_OPEN_BYTES", 2 * 48 * 48 * 5), ("MAX_OPEN_BATCHES", 2)]
)
def test_the_least_recently_used_batch_is_closed(predictor, paths, monkeypatch, limit, value):
    monkeypatch.setattr(batch_module, limit, value)
    batches, (first, second) = opened(predictor, paths, 2)
    assert are_open([first, second]) == [True, True]
    batches.use(first)
    third = Batch("fabric", predictor, "2")
    batches.start(third)
    third.add(paths["good.png"])
    batches.use(third)
    assert are_open([first, second, third]) == [True, False, True]
    batches.use(second)  # which does not open it again
    assert are_open([first, second, third]) == [True, False, True]


def test_the_batch_in_use_is_never_closed(predictor, paths, monkeypatch):
    monkeypatch.setattr(batch_module, "MAX_OPEN_BYTES", 1)
    _, each = opened(predictor, paths, 3)
    assert are_open(each) == [False, False, True]


def test_a_visitor_has_one_batch_until_leaving(predictor, paths):
    batches, (first, other) = opened(predictor, paths, 2)
    second = Batch("fabric", predictor, first.visitor)
    batches.start(second)
    second.add(paths["good.png"])
    assert are_open([first, other, second]) == [False, True, True]
    assert (first.replaced, second.replaced) == (True, False)
    batches.leave(second.visitor)
    batches.leave("a stranger")
    assert are_open([other, second]) == [True, False]
    assert (other.replaced, second.replaced) == (False, True)


def test_the_table_is_that_of_the_command(predictor, paths):
    batch = scored(predictor, [paths["good.png"], paths["broken.png"]])
    with batch.write_csv().open(newline="") as file:
        table = list(csv.DictReader(file))
    assert table == batch.rows()
    assert tuple(table[0]) == results.COLUMNS


def test_another_threshold_gives_other_verdicts(predictor, paths):
    batch = scored(predictor, [paths["good.png"], paths["broken.png"], paths["noise.png"]])
    good, broken, noise = batch.results
    assert batch.verdicts == batch.results
    batch.threshold = (good.score + noise.score) / 2
    below, none, above = batch.verdicts
    assert (below.is_anomalous, above.is_anomalous) == (False, True)
    assert none is broken
    assert [each.score for each in (below, above)] == [good.score, noise.score]
    batch.threshold = noise.score  # the score is not above it, but noise has a reason
    below, _, at = batch.verdicts
    assert (below.is_anomalous, at.is_anomalous) == (False, True)
    assert (at.reason, at.probability) == ("too much contrast", 1.0)
    with batch.write_csv().open(newline="") as file:
        verdicts = [row["verdict"] for row in csv.DictReader(file)]
    assert verdicts == ["good", NOT_SCORED, "defective"]


def test_regions_follow_the_threshold(predictor, paths):
    batch = scored(predictor, [paths["noise.png"]])
    anomaly_map = batch.with_pictures(0).map
    for threshold in (float(np.median(anomaly_map)), float(anomaly_map.max()) - 1e-3):
        batch.threshold = threshold
        regions = find_regions(anomaly_map, threshold)
        (row,) = batch.rows()
        assert row["regions"] == str(len(regions))
        assert [int(row[name]) for name in results.BOX] == list(regions[0][:4])


def test_a_reconstruction_is_made_once(predictor, paths, monkeypatch):
    batch = scored(predictor, [paths["broken.png"], paths["good.png"]])
    expected = predictor.reconstruct(batch.with_pictures(1).image)
    calls = []
    monkeypatch.setattr(predictor, "reconstruct", lambda image: calls.append(image) or expected)
    for _ in range(2):
        np.testing.assert_array_equal(batch.reconstruction(1), expected)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MAX_BYTES", 200, "is larger than 0 MiB"),
        ("MAX_PIXELS", 2000, "has more than 0.0 megapixels"),
        ("MAX_FILES", 0, "was not scored: more than 0 files"),
    ],
)
def test_what_is_too_large_has_a_reason(predictor, paths, monkeypatch, limit, value, reason):
    monkeypatch.setattr(file_checks, limit, value)
    (result,) = scored(predictor, [paths["noise.png"]]).results
    assert isinstance(result, ImageError)
    assert result.reason == reason


def test_images_beyond_the_limit_of_a_batch_are_not_scored(predictor, paths, monkeypatch):
    monkeypatch.setattr(file_checks, "MAX_BATCH_PIXELS", 48 * 48 + 60 * 70 - 1)
    good, noise, deep = scored(
        predictor, [paths["good.png"], paths["noise.png"], paths["deep.png"]]
    ).results
    assert "all images together" in noise.reason
    assert isinstance(good, Verdict)
    assert isinstance(deep, Verdict)  # which still fits


def test_a_file_that_costs_more_than_its_pixels_has_a_reason(predictor, good, tmp_path):
    path = tmp_path / "scans.jpg"
    Image.fromarray(good).save(path)
    content = path.read_bytes()
    scan = content[content.rindex(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + scan * MAX_SCANS + content[-2:])
    (result,) = scored(predictor, [path]).results
    assert isinstance(result, ImageError)
    assert result.reason == "has more than 64 scans, and would be slow to decode"


def test_a_file_whose_header_is_slow_to_read_is_refused_unopened(tmp_path, monkeypatch):
    path = tmp_path / "tags.tif"
    head = struct.pack("<2sHLH", b"II", 42, 8, MAX_TAGS + 1)
    path.write_bytes(head + struct.pack("<HHLL", 1000, 3, 1, 1) * (MAX_TAGS + 1) + bytes(4))
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: pytest.fail("it was opened"))
    with pytest.raises(ImageError, match="more than 4096 tags, and would be slow to read"):
        check_limits(path)


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("1", (6000, 6000)).save(tmp_path / "huge.png")
    with pytest.raises(ImageError, match=r"has more than 33\.6 megapixels"):
        check_limits(tmp_path / "huge.png")
    Image.new("1", (1, 2**17)).save(tmp_path / "narrow.png")
    with pytest.raises(ImageError, match="has a side of more than 65536 pixels"):
        check_limits(tmp_path / "narrow.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own limit against bombs
    with pytest.raises(ImageError, match="megapixels"):
        check_limits(tmp_path / "huge.png")
