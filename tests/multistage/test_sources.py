"""Which fabrics are learnt from, and which are refused."""

import pytest

import tfgad
from tfgad.data.datasets.weave.weave import DEFECTS, WEAVES
from tfgad.errors import UsageError
from tfgad.multistage import sources


def test_a_star_is_every_weave_but_those_left_out():
    specs = sources.expand(["weave:*?size=64"], ["twill", "check"])
    assert len(specs) == len(WEAVES) - 2
    assert "weave:plain?size=64" in specs
    assert not any("twill" in spec or "check" in spec for spec in specs)


@pytest.mark.parametrize(
    ("specs", "leave_out", "fault"),
    [
        (["weave:*"], ["twil"], "did you mean twill|twill"),
        (["weave:plain"], ["plain"], "leaves nothing"),
        (["folder:*"], [], "cannot be listed"),
    ],
)
def test_mistakes_in_naming_fabrics(specs, leave_out, fault):
    with pytest.raises(UsageError, match=fault):
        sources.expand(specs, leave_out)


def test_a_source_holds_every_defect_with_its_mask(fabrics):
    plain = fabrics[0]
    assert plain.images.shape == (12, 64, 64, 1)
    assert plain.masks.any(axis=(1, 2, 3)).all()
    assert plain.kinds == DEFECTS
    assert plain.good.shape == (6, 64, 64, 1)
    assert plain.held_out.shape == (4, 64, 64, 1)
    assert sources.kinds_of(fabrics) == tuple(sorted(DEFECTS))


def test_data_without_masks_or_defects_are_refused(tmp_path):
    with pytest.raises(UsageError, match="has no masks"):
        sources.read_source(tfgad.load("digits:8"))
    with pytest.raises(UsageError, match="has no defects"):
        sources.read_source(tfgad.load("weave:plain?size=64&train=2&calibration=2&test=1"))


def test_grey_and_colour_do_not_mix():
    few = "size=64&train=2&calibration=2&test=2"
    with pytest.raises(UsageError, match="differ in colour"):
        sources.read_sources([f"weave:plain?{few}", f"weave:plain?{few}&channels=3"])


def test_a_data_set_given_twice_would_count_twice():
    with pytest.raises(UsageError, match="'weave:plain': is given more than once"):
        sources.read_sources(["weave:plain", "weave:twill", "weave:plain"])


def test_kinds_are_named_by_the_folder():
    assert sources._kind("slub/005", ("slub",)) == "slub"
    assert sources._kind("test/hole/1.png", ("hole",)) == "hole"
    assert sources._kind("test/hole/1.png/x0_y128", ("hole",)) == "hole"
    assert sources._kind("test/hole/monday/1.png", ("hole",)) == "hole"
    assert sources._kind("0018_010_03/x1300_y0", ("broken pick",)) == "defect"


def test_few_of_many_good_images_are_taken():
    data = tfgad.load("weave:plain?size=32&train=450&calibration=1&test=1")
    count = len(sources.good_images(data.train, data.train_size))
    assert count == sources.MOST_GOOD
