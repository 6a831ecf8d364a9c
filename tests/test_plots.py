import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from tfgad import plots
from tfgad.errors import UsageError


def make_images(count=3, height=32, width=32, channels=1):
    return np.random.default_rng(0).uniform(-1, 1, (count, height, width, channels))


def texts(figure):
    """Returns every visible text of a figure."""
    found = figure.findobj(matplotlib.text.Text)
    return [text.get_text() for text in found if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 8, 9])
def test_image_grid_shows_every_image(count, channels):
    figure = plots.image_grid(make_images(count, channels=channels), "Training images")
    assert "Training images" in texts(figure)
    assert len(figure.axes) == count


def test_images_keep_their_brightness():
    # [-1, 1] is black to white, on one scale for all images.
    image = plots.image_grid(np.full((1, 8, 8, 1), 0.5)).axes[0].images[0]
    assert image.get_clim() == (0, 1)
    assert np.all(image.get_array() == 0.75)


def test_wide_images_get_the_room_of_several():
    width = plots.image_grid(make_images(2, 16, 256)).axes[0].get_position().width
    assert width > 0.9


def test_reconstructions_share_one_scale_of_residuals():
    images = make_images(4)
    residuals = np.abs(images[..., 0])
    figure = plots.reconstructions(images, -images, residuals)
    assert len(figure.axes) == 3 * 4 + 1
    scales = {axes.images[0].get_clim() for axes in figure.axes[8:12]}
    assert scales == {(0, residuals.max())}


def test_heat_maps_say_whether_the_verdict_is_right():
    scores, labels = np.array([1.0, 3.0, 1.0, 3.0]), [0, 0, 1, 1]
    images, masks = make_images(4), np.zeros((4, 32, 32, 1), np.uint8)
    maps = np.abs(images[..., 0])
    names = ["a", "b", "c", "a very long name of a file.png"]
    figure = plots.heat_maps(images, maps, masks, scores, 2.0, names, labels)
    written = texts(figure)
    assert {"passed 1", "false alarm 3", "missed 1", "found 3"} <= set(written)
    assert "a" in written
    long = [text for text in written if text.startswith("a very")]
    assert [text.replace("\n", "") for text in long] == [names[3]]
    assert max(map(len, long[0].split("\n"))) <= 16
    without = texts(plots.heat_maps(images, maps, masks, scores, 2.0))
    assert without.count("anomalous 3") == without.count("normal 1") == 2


def test_heat_maps_scale_has_the_threshold_in_its_middle():
    maps = np.linspace(0, 4, 2 * 32 * 32).reshape(2, 32, 32)
    figure = plots.heat_maps(make_images(2), maps, threshold=3.0)
    low, high = figure.axes[3].images[1].get_clim()
    assert (low + high) / 2 == pytest.approx(3.0)
    assert "3\nthreshold" in texts(figure)
    below, across = figure.axes[2:4]
    assert not below.collections  # the first map ends at 2
    (line,) = across.collections
    assert list(line.levels) == [3.0]


def test_a_threshold_of_scores_that_are_no_maxima_is_not_drawn_on_maps():
    maps = np.linspace(0, 4, 2 * 32 * 32).reshape(2, 32, 32)
    figure = plots.heat_maps(make_images(2), maps, scores=np.array([1.0, 3.5]), threshold=3.0)
    assert not any("threshold" in text for text in texts(figure))
    assert not figure.axes[3].collections


def test_heat_maps_of_another_scale_than_the_threshold():
    maps = np.linspace(0, 4, 2 * 32 * 32).reshape(2, 32, 32)
    figure = plots.heat_maps(make_images(2), maps, threshold=1e6)
    assert figure.axes[3].images[1].get_clim()[1] == pytest.approx(4, rel=0.01)
    assert plots.heat_maps(make_images(2), np.zeros((2, 32, 32)), threshold=1.0)


def test_mask_outline_is_drawn_only_where_there_is_a_mask():
    masks = np.zeros((2, 32, 32), np.uint8)
    masks[1, :5, :5] = 1
    figure = plots.heat_maps(make_images(2), np.ones((2, 32, 32)), masks)
    true_masks = figure.axes[2:4]
    assert not true_masks[0].collections
    assert len(true_masks[1].collections) == 2


def test_roc_marks_the_threshold():
    labels, scores = np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 2.0, 4.0])
    figure = plots.roc(labels, scores, 2.5)
    assert "ROC, area 0.750" in texts(figure)
    assert "at the threshold\n50.0% found\n50.0% false alarms" in texts(figure)
    (point,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert point.get_xydata().tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("threshold", [0.5, 2.5, 9.0])
@pytest.mark.parametrize("direction", [1, -1])
def test_the_label_of_the_threshold_lies_within_the_axes(threshold, direction):
    labels, scores = np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 2.0, 4.0])
    figure = plots.roc(labels, direction * scores, direction * threshold)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    (label,) = [each for each in axes.texts if "at the threshold" in each.get_text()]
    box, room = label.get_window_extent(), axes.get_window_extent()
    assert room.x0 <= box.x0
    assert room.y0 <= box.y0
    assert box.x1 <= room.x1
    assert box.y1 <= room.y1


def test_score_histogram_loses_no_image():
    rng = np.random.default_rng(0)
    normal, anomalous = rng.normal(size=200), rng.normal(5, 1, size=100)
    anomalous[0] = 1e9
    axes = plots.score_histogram(normal, anomalous, 2.0).axes[0]
    assert axes.get_xlim()[1] < 20
    assert "last bin: all above" in axes.get_xlabel()
    for patch in axes.patches:
        heights = np.unique(patch.get_xy(), axis=0)
        assert heights[:, 1].max() <= 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "normal (200)",
        "anomalous (100)",
        "threshold",
    ]


def test_score_histogram_of_equal_scores_or_of_normals_alone():
    assert plots.score_histogram(np.ones(5), np.ones(5), 1.0)
    assert plots.score_histogram(np.arange(5.0), np.array([]))


def test_save_writes_a_png_and_leaves_pyplot_alone(tmp_path):
    style = dict(matplotlib.rcParams)
    plots.save(plots.samples(make_images()), tmp_path / "figures" / "samples.png")
    with Image.open(tmp_path / "figures" / "samples.png") as image:
        assert image.format == "PNG"
        assert image.size[0] > 400
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["samples.png"]
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == style


def test_save_to_an_unwritable_path_is_the_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        plots.save(plots.samples(make_images()), tmp_path / "file" / "samples.png")
