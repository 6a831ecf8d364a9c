"""Masks of single images: what they cover changes nothing, and neighbours say what they did."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfgad.data.ignored_own import MARGIN, mirrored_into, with_margin
from tfgad.data.image_files import ImageError
from tfgad.errors import UsageError
from tfgad.export.saved_model import export
from tfgad.inference.masks_by_name import find_masks
from tfgad.inference.predictor import RunPredictor, SavedModelPredictor
from tfgad.inference.scoring import regions_of, score_files
from tfgad.training import Run

SHAPE = (96, 120)  # of the files; the model was trained on 48x48


def cloth(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] * (2 * np.pi / 8)
    return (128 + 60 * np.sin(x) * np.sin(y) + rng.normal(0, 6, x.shape)).clip(0, 255)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images with a scrawl at one place, masks of two of them, and another scrawl elsewhere."""
    folder = tmp_path_factory.mktemp("masked")
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:40, 60:90] = 255
    for name in ("images", "others", "masks"):
        (folder / name / "day").mkdir(parents=True)
    for i, name in enumerate(("day/a", "b", "c")):
        for where, level in (("images", 255), ("others", 0)):
            pixels = cloth(i)
            if name != "c":
                pixels[mask > 0] = level
            Image.fromarray(pixels.astype(np.uint8)).save(folder / where / f"{name}.png")
    Image.fromarray(mask).save(folder / "masks" / "day" / "a.png")
    Image.fromarray((mask > 0).astype(np.uint8)).save(folder / "masks" / "b_mask.png")
    return folder


@pytest.fixture(scope="module", params=["run", "resized", "letterboxed", "exported"])
def predictor(request, fitted, tmp_path_factory):
    model, resized = fitted("ganomaly"), request.param not in ("run", "exported")
    fit = "letterbox" if request.param == "letterboxed" else "stretch"
    config = {"image_shape": (48, 48, 1), "resized": resized, "fit": fit}
    if request.param != "exported":
        return RunPredictor(Run(Path("run"), config, model))
    directory = tmp_path_factory.mktemp("exported")
    return SavedModelPredictor(export(model, directory, **config, metadata={"method": "ganomaly"}))


def scored(predictor, folder, name, masks=True):
    arguments = [folder / name]
    images = sorted((folder / name).rglob("*.png"))
    found = find_masks(folder / "masks", arguments, images).of_image if masks else {}
    results = score_files(predictor, images, masks=found)
    return {str(each.path.relative_to(folder / name)): each for each in results}


def test_what_a_mask_covers_changes_nothing(predictor, folder):
    ours, theirs = (scored(predictor, folder, name) for name in ("images", "others"))
    whole = scored(predictor, folder, "images", masks=False)
    for name in ("day/a.png", "b.png"):
        one, two = ours[name], theirs[name]
        np.testing.assert_array_equal(one.map, two.map)
        for field in ("score", "probability", "is_anomalous", "reason"):
            assert getattr(one, field) == getattr(two, field), field
        assert regions_of(one) == regions_of(two)
        assert one.score != whole[name].score
        assert one.ignored.sum() == 20 * 30
        lowest = one.map[~one.ignored].min()
        assert (one.map[one.ignored] == lowest).all()
        if not predictor.resized:
            wide = with_margin(one.ignored)
            assert (one.map[wide] == lowest).all()
            assert one.score == one.map[~wide].max()
    assert ours["c.png"].ignored is None  # and no other image in its batch moves it
    assert ours["c.png"].score == whole["c.png"].score
    np.testing.assert_array_equal(ours["c.png"].map, whole["c.png"].map)


def test_python_ignores_them_alike(fitted, folder):
    model = fitted("ganomaly")
    predictor = RunPredictor(
        Run(Path("run"), {"image_shape": (48, 48, 1), "resized": False}, model)
    )
    of_file = scored(predictor, folder, "images")["b.png"]
    found = model.anomaly(of_file.image[None], ignored=of_file.ignored[None])
    np.testing.assert_allclose(found["map"][0], of_file.map, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["score"][0], of_file.score, rtol=1e-5)
    verdict = model.prediction(of_file.image[None], found["score"], ignored=of_file.ignored[None])
    assert bool(verdict["is_anomalous"][0]) == of_file.is_anomalous
    assert verdict["reason"].numpy()[0].decode() == of_file.reason
    for wrong, problem in (
        (of_file.ignored, "are no such masks"),
        (of_file.ignored[None].astype("uint8"), "are no such masks"),
        (np.ones((1, *SHAPE), bool), "leave nothing of an image"),
    ):
        with pytest.raises(UsageError, match=problem):
            model.anomaly(of_file.image[None], ignored=wrong)


def test_a_place_is_filled_with_what_lies_around_it():
    image = np.arange(8, dtype="float32")[None, :, None].repeat(3, axis=0)
    ignored = np.zeros((3, 8), bool)
    ignored[:, 2:5] = True
    filled = mirrored_into(image, ignored)[1, :, 0]
    np.testing.assert_array_equal(filled[[0, 1, 5, 6, 7]], [0, 1, 5, 6, 7])
    np.testing.assert_array_equal(filled[[2, 4]], [0, 6])
    assert filled[3] in (1, 7)  # the mirror image on the left is outside
    np.testing.assert_array_equal(mirrored_into(image, np.zeros((3, 8), bool)), image)
    rng = np.random.default_rng(0)
    noise, place = rng.uniform(-1, 1, (40, 50, 3)).astype("float32"), np.zeros((40, 50), bool)
    place[30:, 5:20] = place[3:8, 44:49] = True
    upper = mirrored_into(noise, place)[30:35, 10:15]
    np.testing.assert_array_equal(upper, noise[28:23:-1, 10:15])  # the pixel at the border is 29
    dot = np.zeros((50, 50), bool)
    dot[25, 25] = True
    assert with_margin(dot).sum() == (2 * MARGIN + 1) ** 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (np.full(SHAPE, 255, np.uint8), "has a mask that leaves nothing of it"),
        (np.full((96, 96), 0, np.uint8), "differs in aspect ratio from its mask b.png"),
        (b"no image", "has a mask b.png that is not a PNG"),
    ],
)
def test_a_mask_of_no_use_stops_no_other_image(fitted, folder, tmp_path, content, reason):
    model = fitted("ganomaly")
    predictor = RunPredictor(
        Run(Path("run"), {"image_shape": (48, 48, 1), "resized": False}, model)
    )
    mask, images = tmp_path / "b.png", sorted((folder / "images").rglob("*.png"))
    if isinstance(content, bytes):
        mask.write_bytes(content)
    else:
        Image.fromarray(content).save(mask)
    of_image = find_masks(tmp_path, [folder / "images"], images).of_image
    found = {each.path.name: each for each in score_files(predictor, images, masks=of_image)}
    assert isinstance(found["b.png"], ImageError)
    assert reason in found["b.png"].reason
    assert not any(isinstance(found[name], ImageError) for name in ("a.png", "c.png"))


@pytest.mark.parametrize(
    ("fit", "region", "kept"),
    [
        ("stretch", None, slice(40, 52)),  # 6 rows of the 48 that the model sees, and a margin of 8
        ("letterbox", None, slice(40, 52)),  # the padding is nothing that is left of the image
        ("stretch", slice(0, 24), slice(0, 60)),  # what the mask leaves the model ignores
    ],
)
def test_a_mask_that_leaves_the_model_nothing_is_refused(
    build_small, images, tmp_path, fit, region, kept
):
    ignored = None
    if region:
        ignored = np.zeros((48, 48), bool)
        ignored[region] = True
    model = build_small("ganomaly", score="residual", ignored=ignored)
    model.adapt(images)
    model.calibrate(images, false_positive_rate=0.1)
    config = {"image_shape": (48, 48, 1), "resized": True, "fit": fit}
    predictor = RunPredictor(Run(Path("run"), config, model))
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for number, path in enumerate(paths):
        Image.fromarray(cloth(number).astype(np.uint8)).save(path)
    mask = np.full(SHAPE, 255, np.uint8)
    mask[kept] = 0
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    of_image = find_masks(tmp_path / "masks", paths, paths).of_image
    refused, scored = score_files(predictor, paths, masks=of_image)
    assert isinstance(refused, ImageError)
    assert "has a mask that leaves nothing of it" in refused.reason
    assert np.isfinite(scored.score)
    if region:
        own = np.ones((1, 48, 48), bool)
        own[:, :30] = False
        with pytest.raises(
            UsageError, match=r"nothing of an image, .* and the region of the model"
        ):
            model.anomaly(images[:1], ignored=own)
        own[:, :40] = False
        assert np.isfinite(model.anomaly(images[:1], ignored=own)["score"]).all()


def test_a_mask_of_several_images_is_named(tmp_path):
    for path in ("masks/a.png", "masks/b.png", "in/a.png", "in/a.bmp", "in/b.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    images = sorted((tmp_path / "in").iterdir())
    found = find_masks(tmp_path / "masks", [tmp_path / "in"], images)
    assert found.shared == [tmp_path / "masks" / "a.png"]
    assert list(found.of_image) == images


def test_masks_are_found_by_name(folder, tmp_path):
    images = sorted((folder / "images").rglob("*.png"))
    (tmp_path / "other").mkdir()
    found = find_masks(folder / "masks", [folder / "images"], images)
    assert [path.name for path in found.without] == ["c.png"]
    assert found.unused == []
    of_files = find_masks(folder / "masks", images, images)  # by name alone: a.png is in day/
    assert [path.name for path in of_files.of_image] == ["b.png"]
    assert [path.name for path in of_files.unused] == ["a.png"]
    for wrong, problem in (
        (folder / "masks" / "b_mask.png", "is no folder"),
        (tmp_path / "none", "is not there"),
        (tmp_path / "other", "has no mask of these images"),
        (folder / "images", "is the folder of the images"),
    ):
        with pytest.raises(UsageError, match=problem):
            find_masks(wrong, [folder / "images"], images)
