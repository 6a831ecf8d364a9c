"""Images of any size: tiles that change nothing, maps that show what was found."""

import dataclasses
import functools
import json
import os
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfgad import files
from tfgad.data.image_files import ImageError
from tfgad.data.pixels import from_uint8
from tfgad.errors import UsageError
from tfgad.export.endpoints import Endpoints
from tfgad.export.saved_model import CALIBRATION, METADATA, export, metadata_of_model
from tfgad.inference import heat_maps, predictor, results, saved_model, scoring
from tfgad.scores.image_quality import ImageQuality
from tfgad.scores.map_regions import find_regions
from tfgad.training import Run, load_model


@pytest.fixture(scope="module")
def exported(fitted, tmp_path_factory):
    """A function of a method, and of whether images are resized, to the exported model's folder.

    Each is exported once: nobody may change it.
    """

    @functools.cache
    def folder_of(method: str, resized: bool = False):
        form = {"image_shape": (48, 48, 1), "resized": resized, "metadata": {"method": method}}
        return export(fitted(method), tmp_path_factory.mktemp(method), **form)

    return folder_of


@pytest.mark.parametrize("method", ["ganomaly", "wgan_gp"])
def test_a_run_scores_a_large_image_block_by_block(fitted, monkeypatch, method):
    model = fitted(method)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 71, 401, 1)).astype("float32")
    whole = model.anomaly(image)
    served, anomaly = [], model.anomaly

    def noted(block, **given):
        served.append(block)
        return anomaly(block, **given)

    monkeypatch.setattr(model, "anomaly", noted)
    monkeypatch.setattr(saved_model, "AT_ONCE", 150**2)
    cut = predictor.predict_any_size(model, image)
    assert len(served) > 2
    assert max(block.shape[2] for block in served) < 300
    np.testing.assert_allclose(cut["map"], whole["map"], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(cut["score"], whole["score"], rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "at_once"),
    [("ganomaly", "AT_ONCE"), ("wgan_gp", "AT_ONCE"), ("ganomaly", "AT_ONCE_EARLIER")],
)
def test_a_saved_model_scores_a_large_image_block_by_block(exported, monkeypatch, method, at_once):
    scorer = predictor.SavedModelPredictor(exported(method))
    assert scorer.metadata.pop("by_block")
    scorer.metadata |= {"by_block": True} if at_once == "AT_ONCE" else {}
    rng = np.random.default_rng(0)
    pixels = rng.normal(128, 40, (70, 501, 1)).clip(0, 255).astype("uint8")
    image = pixels.astype("float32") / 127.5 - 1
    whole = scorer(image)
    served = []
    serve = scorer._serve
    monkeypatch.setattr(
        scorer, "_serve", lambda images: served.append(images) or serve(images=images)
    )
    monkeypatch.setattr(saved_model, at_once, 150**2)
    cut = scorer(image)
    assert len(served) > 2
    assert max(block.shape[2] for block in served) < 300
    assert cut.keys() == whole.keys()
    for name in ("map", "score", "probability"):
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-5, atol=1e-5)
    assert bool(cut["is_anomalous"]) == bool(whole["is_anomalous"])
    assert cut["reason"] == whole["reason"]
    for found in (cut, whole):
        np.testing.assert_allclose(found["brightness"], pixels.mean(), rtol=1e-5)
    deep = pixels.astype("uint16") * 257  # of a file of 16 bits, as a server has it
    deep = scorer._predict_any_size(deep, lambda block: (block // 257).astype("uint8"))
    np.testing.assert_allclose(deep["brightness"], cut["brightness"], rtol=1e-6)


def test_a_saved_model_reconstructs_as_the_model_does(fitted, exported, monkeypatch):
    model = fitted("ganomaly")
    scorer = predictor.SavedModelPredictor(exported("ganomaly"))
    pixels = np.random.default_rng(0).normal(128, 40, (40, 300, 1)).clip(0, 255).astype("uint8")
    image = pixels.astype("float32") / 127.5 - 1
    whole = scorer.reconstruct(image)
    assert whole.shape == image.shape
    np.testing.assert_allclose(whole, model.reconstruct(image[None])[0], atol=1 / 255 + 1e-5)
    served, reconstruct = [], scorer._reconstruct_block
    monkeypatch.setattr(
        scorer, "_reconstruct_block", lambda block: served.append(block) or reconstruct(block)
    )
    monkeypatch.setattr(saved_model, "AT_ONCE", 100**2)
    cut = scorer.reconstruct(image)
    assert len(served) > 2
    assert np.abs(cut - whole).max() < 1.01 / 127.5  # a grey level, where a half is rounded


def test_a_saved_model_that_reconstructs_nothing_says_so(exported):
    scorer = predictor.SavedModelPredictor(exported("wgan_gp"))
    assert not scorer.reconstructs
    with pytest.raises(UsageError, match="'wgan_gp': reconstructs nothing"):
        scorer.reconstruct(np.zeros((48, 48, 1), "float32"))


@pytest.mark.parametrize("earlier", [False, True])
def test_the_calibration_of_the_model_counts_and_not_its_copy(exported, tmp_path, earlier):
    """But for a SavedModel of before, which does not give its calibration out."""
    folder = shutil.copytree(exported("ganomaly"), tmp_path / "1")
    copy = files.read_object(folder / METADATA)
    files.write_json(folder / METADATA, {**copy, "threshold": 9.0, "scale": 7.0})
    loaded = None
    if earlier:
        signatures = dict(tf.saved_model.load(str(folder)).signatures)
        signatures.pop(CALIBRATION)
        loaded = types.SimpleNamespace(signatures=signatures)
    found = predictor.SavedModelPredictor(folder, loaded).metadata
    if earlier:
        assert (found["threshold"], found["scale"]) == (9.0, 7.0)
    else:
        assert found == copy


class Half:
    """A predictor of images resized to 32x32 whose map is 1 on the left half of each image."""

    image_shape, window, resized = (32, 32, 1), (32, 32, 1), True
    score, threshold, scale, depth = "residual", 0.5, 0.1, None
    ignored, fit = None, "stretch"

    def __init__(self):
        self.batches = []

    def predict_images(self, images):
        self.batches.append(images.shape[:3])
        count, height, width, _ = images.shape
        ramp = np.broadcast_to(np.arange(width) < width / 2, (height, width))
        score = {"score": 0.75, "probability": 0.8, "is_anomalous": True}
        return [{**score, "map": ramp.astype("float32")} for _ in range(count)]


def write_grey(path, size=(40, 60), level=128):
    Image.new("L", size[::-1], level).save(path)
    return path


def test_one_broken_file_does_not_stop_the_others(tmp_path):
    (tmp_path / "broken.png").touch()
    paths = [tmp_path / "broken.png", write_grey(tmp_path / "grey.png")]
    broken, verdict = scoring.score_files(Half(), paths)
    assert isinstance(broken, ImageError)
    assert broken.reason == "is empty"
    assert verdict.path == paths[1]
    assert verdict.image.shape == (40, 60, 1)
    assert verdict.map.shape == (40, 60)


def test_large_files_are_read_one_at_a_time(tmp_path):
    first = write_grey(tmp_path / "first.png", (400, 400))
    later = tmp_path / "later.png"
    verdicts = scoring.score_files(Half(), [first, later])
    next(verdicts)
    write_grey(later)
    assert next(verdicts).path == later


def test_12_bits_are_told_from_16(tmp_path, caplog):
    ramp = np.linspace(0, 1, 40 * 60).reshape(40, 60)
    path = tmp_path / "ramp.png"
    Image.fromarray(np.rint(ramp * 4095).astype(np.uint16)).save(path)
    scorer = Half()
    list(scoring.score_files(scorer, [path, write_grey(tmp_path / "grey.png"), path]))
    (said,) = [record.message for record in caplog.records]
    assert said.startswith(f"{path} and 1 other images: read as 16 bits")
    assert said.endswith("give --depth 12")

    caplog.clear()
    for known, given in ((12, None), (8, 12)):
        scorer.depth = known
        (verdict,) = scoring.score_files(scorer, [path], depth=given)
        np.testing.assert_allclose(verdict.image[..., 0], ramp * 2 - 1, atol=1 / 4095)
    (broken,) = scoring.score_files(scorer, [path], depth=10)
    assert broken.reason == "holds values above 1023, the maximum of 10 bits"
    assert broken.beyond == "depth"
    assert not caplog.records


def test_files_of_one_size_are_scored_together(tmp_path):
    scorer, sizes = Half(), 7 * [(200, 100)] + 2 * [(100, 200)] + [(200, 100)]
    paths = [write_grey(tmp_path / f"{i}.png", size) for i, size in enumerate(sizes)]
    (tmp_path / "broken.png").touch()
    paths.insert(4, tmp_path / "broken.png")
    verdicts = list(scoring.score_files(scorer, paths))
    assert [each.path for each in verdicts] == paths
    tall, wide = (200, 100), (100, 200)
    # 13 such images make a batch; a broken one or one of another size ends it.
    assert scorer.batches == [(4, *tall), (3, *tall), (2, *wide), (1, *tall)]


def test_a_batch_has_no_more_pixels_than_a_model_is_given_at_once(tmp_path):
    scorer = Half()
    path = write_grey(tmp_path / "grey.png", (200, 100))
    assert len(list(scoring.score_files(scorer, 27 * [path]))) == 27
    assert scorer.batches == [(13, 200, 100), (13, 200, 100), (1, 200, 100)]


@pytest.mark.parametrize("resized", [False, True])
def test_together_or_alone_makes_no_difference(exported, resized):
    rng = np.random.default_rng(1)
    images = rng.uniform(-1, 1, (3, 60, 60, 1)).astype("float32")
    scorer = predictor.SavedModelPredictor(exported("ganomaly", resized))
    for i, together in enumerate(scorer.predict_images(images)):
        alone = scorer(images[i])
        assert set(together) >= {"score", "probability", "is_anomalous", "map"}
        assert together.pop("reason") == alone.pop("reason")
        for name, value in alone.items():
            np.testing.assert_allclose(together[name], value, rtol=1e-4, atol=1e-5)


def test_a_map_without_a_threshold_has_a_scale_of_its_own(tmp_path):
    (verdict,) = scoring.score_files(Half(), [write_grey(tmp_path / "grey.png")])
    assert verdict.map_threshold is None  # the score of one window is no maximum
    assert scoring.regions_of(verdict) is None
    picture = heat_maps.overlay(verdict)
    assert picture.shape == (40, 60, 3)
    assert (picture[:, 30:] == 128).all()
    assert (picture[:, :30, 0] > picture[:, :30, 2]).all()  # warm
    passed = dataclasses.replace(verdict, is_anomalous=False)
    faint = heat_maps.overlay(passed).astype(int)
    assert (faint[:, 30:] == 128).all()
    assert (np.ptp(faint[:, :30], axis=-1) < np.ptp(picture[:, :30].astype(int), axis=-1)).all()


def test_strips_of_a_picture_are_those_of_the_whole(tmp_path, monkeypatch):
    (verdict,) = scoring.score_files(Half(), [write_grey(tmp_path / "grey.png")])
    verdict = dataclasses.replace(verdict, map=verdict.map.T[:40, :20].repeat(3, 1))
    for threshold in (None, 0.5):  # the second with a contour
        verdict = dataclasses.replace(verdict, map_threshold=threshold)
        monkeypatch.setattr(heat_maps, "STRIP", 2**20)
        whole = heat_maps.overlay(verdict)
        for rows in (1, 7):
            monkeypatch.setattr(heat_maps, "STRIP", rows * 60)
            np.testing.assert_array_equal(heat_maps.overlay(verdict), whole)


def test_the_scale_of_a_peak_is_the_threshold(tmp_path):
    scorer = Half()
    scorer.image_shape = (64, 64, 1)
    (verdict,) = scoring.score_files(scorer, [write_grey(tmp_path / "grey.png")])
    assert verdict.map_threshold == 0.5
    (region,) = scoring.regions_of(verdict)
    assert region[:5] == (0, 0, 30, 40, 1200)


def test_raw_maps_keep_values_threshold_and_scale(tmp_path):
    scorer = Half()
    scorer.image_shape = (64, 64, 1)
    (verdict,) = scoring.score_files(scorer, [write_grey(tmp_path / "grey.png")])
    values = np.random.default_rng(0).normal(size=(40, 60)).astype("float32")
    results.write_raw_map(tmp_path / "raw.tiff", dataclasses.replace(verdict, map=values))
    with Image.open(tmp_path / "raw.tiff") as image:
        np.testing.assert_array_equal(np.asarray(image), values)
        numbers = json.loads(image.tag_v2[270])
    assert numbers == {"score": 0.75, "threshold": 0.5, "scale": 0.1}


def test_regions_in_the_tables(tmp_path):
    anomaly_map = np.zeros((20, 30), "float32")
    anomaly_map[2:6, 3:13], anomaly_map[10, 20] = 2, 3
    found = find_regions(anomaly_map, 1.0)
    assert list(results.scored_row("a.png", 3, 1, True, "", found).values())[5:] == [
        *("2", "3", "2", "10", "4"),
    ]
    unknown, none = (results.scored_row("a.png", 3, 1, True, "", each) for each in (None, []))
    assert list(unknown.values())[5:] == 5 * [""]
    assert list(none.values())[5:] == ["0", *(4 * [""])]
    assert results.listed(found, 2, True) == (found[:1], 1, False)
    assert results.listed(found, 41, True) == ([], 2, True)
    assert results.listed(found, 41, False) == ([], 2, False)
    assert results.listed([], 2, True) == ([], 0, False)
    assert results.listed(None, 2, True) == (None, 0, False)
    path = tmp_path / "t.defects.csv"
    assert results.regions_path(str(tmp_path / "t.parquet")) == str(path)
    rows = results.region_rows("a.png", found, mm_per_pixel=0.5)
    results.write_csv(path, rows, results.region_columns(0.5))
    assert path.read_text().splitlines() == [
        "image,x,y,width,height,area,area_mm2,peak,mean,centroid_x,centroid_y",
        "a.png,3,2,10,4,40,10,2,2,7.5,3.5",
        "a.png,20,10,1,1,1,0.25,3,3,20,10",
    ]
    assert "area_mm2" not in results.region_columns(None)


def test_ignored_files_are_counted(tmp_path, caplog):
    write_grey(tmp_path / "a.JFIF")
    for name in ("a.txt", "b.txt", "c.GIF", "d", ".hidden"):
        (tmp_path / name).touch()
    assert results.find_images([tmp_path]) == [tmp_path / "a.JFIF"]
    (said,) = [record.message for record in caplog.records]
    counts = "2 .txt, 1 .gif, 1 without a suffix"
    assert said == f"{tmp_path}: ignored 4 files without the suffix of an image ({counts})"


def test_images_in_linked_folders_are_found_once(tmp_path):
    folder = tmp_path / "in"
    found = [folder / "b" / "real" / "1.png", folder / "roll2" / "2.png"]
    found[0].parent.mkdir(parents=True)
    write_grey(found[0])
    (tmp_path / "roll2").mkdir()
    write_grey(tmp_path / "roll2" / "2.png")
    (folder / "roll2").symlink_to("../roll2")
    (folder / "a").symlink_to("b/real")  # listed first, but the folder has a path of its own
    (folder / "b" / "loop").symlink_to(folder)
    assert results.find_images([folder]) == found


def test_images_in_hidden_folders_are_not_found(tmp_path):
    folder = tmp_path / ".new"  # itself hidden, but named by the user
    for name in ("a", ".cache", "a/.ipynb_checkpoints"):
        (folder / name).mkdir(parents=True)
        write_grey(folder / name / "1.png")
    assert results.find_images([folder]) == [folder / "a" / "1.png"]


def test_masks_and_maps_are_no_images(tmp_path):
    folder = tmp_path / "in"
    (folder / "masks").mkdir(parents=True)
    write_grey(folder / "1.png")
    write_grey(folder / "masks" / "1.png")
    (folder / "more").symlink_to("masks")
    assert results.find_images([folder], [folder / "masks"]) == [folder / "1.png"]
    results.check_outside("maps", tmp_path / "maps", [folder])
    results.check_outside("maps", folder / "maps", [folder / "1.png"])  # no folder of images
    for maps in (folder, folder / "maps", folder / "masks" / ".." / "maps"):
        with pytest.raises(UsageError, match="would be scored the next time; name a folder out"):
            results.check_outside("maps", maps, [folder / "1.png", folder])


def test_maps_mirror_the_folders_of_their_images(tmp_path):
    images = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.jpg"]
    places = results.map_paths("maps", tmp_path / "maps", images)
    assert list(places.values()) == [tmp_path / "maps/a/x.png", tmp_path / "maps/b/x.png"]


def test_a_map_whose_name_would_be_too_long_is_refused(tmp_path):
    images = [tmp_path / f"{250 * 'x'}{suffix}" for suffix in (".png", ".jpg")]
    results.map_paths("maps", tmp_path / "maps", images[:1])
    with pytest.raises(UsageError, match=r"a name of more than 255 bytes; rename .*x\.png"):
        results.map_paths("maps", tmp_path / "maps", images)  # x.png.png and x.jpg.png


def test_the_highest_version_of_a_saved_model_counts(tmp_path):
    for version in ("9", "10", "11"):
        (tmp_path / version).mkdir()
    for version in ("9", "10"):
        (tmp_path / version / "saved_model.pb").touch()
    assert predictor.saved_model_folder(tmp_path) == tmp_path / "10"
    assert predictor.saved_model_folder(tmp_path / "9") == tmp_path / "9"
    with pytest.raises(UsageError, match="has no assets"):
        predictor.metadata_of(tmp_path)


@pytest.mark.parametrize("metadata", ["", "[]", "{}", '{"threshold": 1}'])
def test_metadata_of_another_program_are_refused(tmp_path, metadata):
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / METADATA).parent.mkdir()
    (tmp_path / METADATA).write_text(metadata)
    with pytest.raises(UsageError, match="tfgad export"):
        predictor.load_predictor(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("products", 5),
        ("depth", "12"),
        ("depth", 99),
        ("fit", "crop"),
        ("ignored", {"region": "damaged"}),
        ("threshold", 10**400),
    ],
)
def test_metadata_with_a_wrong_value_are_refused(tmp_path, key, value):
    metadata = {
        **{"image_shape": [48, 48, 1], "resized": True, "window": [48, 48, 1], "stride": 8},
        **{"tile": [48, 48], "score": "residual", "threshold": 1.5, "scale": 2},
    }
    (tmp_path / "saved_model.pb").touch()
    files.write_json(tmp_path / METADATA, {**metadata, "depth": 12, "products": ["a", "b"]})
    predictor.metadata_of(tmp_path)
    files.write_json(tmp_path / METADATA, {**metadata, key: value})
    with pytest.raises(UsageError, match=f"with a wrong value of {key}; restore"):
        predictor.load_predictor(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no model", bytes(1000)])
def test_a_damaged_saved_model_is_refused(fitted, tmp_path, content):
    metadata = metadata_of_model(fitted("wgan_gp"), (48, 48, 1), resized=False)
    files.write_json(tmp_path / METADATA, metadata)
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read"):
        predictor.load_predictor(tmp_path)


def test_a_saved_model_whose_weights_are_cut_off_is_refused(exported, tmp_path):
    copy = shutil.copytree(exported("wgan_gp"), tmp_path / "copy")
    (weights,) = copy.rglob("variables.data*")
    os.truncate(weights, 1000)
    with pytest.raises(UsageError, match=r"cannot be read \(.*; export it again"):
        predictor.load_predictor(copy)


def test_a_table_is_written_whole(tmp_path):
    rows = [results.row(ImageError(tmp_path / "a, b.png", "is empty"))]
    results.write_csv(tmp_path / "t.csv", rows)
    expected = "image,score,probability,verdict,reason,regions,x,y,width,height\r\n"
    expected += f'"{tmp_path}/a, b.png",,,not scored,is empty,,,,,\r\n'
    assert (tmp_path / "t.csv").read_bytes().decode() == expected


@pytest.mark.slow
def test_a_model_saved_without_limits_of_quality_loads_and_says_so(
    fitted, tmp_path, monkeypatch, caplog
):
    model, black = fitted("ganomaly"), np.full((1, 48, 48, 1), -1, "float32")
    with monkeypatch.context() as then:
        then.setattr(ImageQuality, "save_own_variables", lambda layer, store: None)
        model.save(tmp_path / "model.keras")
    config = {"image_shape": [48, 48, 1], "resized": False}
    earlier = predictor.RunPredictor(Run(tmp_path, config, load_model(tmp_path / "model.keras")))
    assert earlier.predict_images(black)[0]["reason"] == ""
    assert "does not check the quality of images" in caplog.text
    caplog.clear()
    now = predictor.RunPredictor(Run(tmp_path, config, model))
    assert now.predict_images(black)[0]["reason"] == "too dark"
    assert not caplog.text


@pytest.mark.parametrize("of_saved_model", [False, True])
def test_a_black_strip_among_good_cloth_is_anomalous(
    fitted, exported, tmp_path, monkeypatch, of_saved_model
):
    if of_saved_model:
        scorer = predictor.SavedModelPredictor(exported("ganomaly"))
    else:
        config = {"image_shape": [48, 48, 1], "resized": False}
        scorer = predictor.RunPredictor(Run(tmp_path, config, fitted("ganomaly")))
    strip = np.full((1, 60, 300, 1), -1, "float32")
    for pixels in (2**20, 48 * 200):  # in one piece, and by blocks
        monkeypatch.setattr(saved_model, "AT_ONCE", pixels)
        (black,) = scorer.predict_images(strip)
        assert (black["reason"], bool(black["is_anomalous"])) == ("too dark", True)
        assert black["probability"] == 1
        assert black["score"] < scorer.threshold


def test_a_letterboxed_model_predicts_as_its_run(fitted):
    model, shape = fitted("ganomaly"), (48, 48, 1)
    images = np.random.default_rng(0).integers(60, 200, (2, 30, 70, 1)).astype(np.uint8)
    config = {"image_shape": shape, "resized": True, "fit": "letterbox"}
    ours = predictor.RunPredictor(Run(Path("run"), config, model)).predict_images(
        from_uint8(images)
    )
    endpoints = Endpoints(model, shape, True, 8, "letterbox")
    any_images = tf.TensorSpec([None, None, None, 1], tf.uint8)
    theirs = tf.function(endpoints.score, [any_images])(tf.constant(images))
    assert theirs["map"].shape == (2, 30, 70)
    for i, each in enumerate(ours):
        np.testing.assert_allclose(theirs["score"][i], each["score"], rtol=1e-3)
        np.testing.assert_allclose(theirs["map"][i], each["map"], atol=1e-3)
    stretched = predictor.RunPredictor(Run(Path("run"), config | {"fit": "stretch"}, model))
    assert stretched(from_uint8(images[0]))["score"] != pytest.approx(ours[0]["score"], rel=1e-3)
