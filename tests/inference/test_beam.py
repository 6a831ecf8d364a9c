"""Scoring with Beam's local runner: the verdicts of `tfgad score`, whole files or none."""

import collections
import csv
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tfgad.cli import console, main
from tfgad.data.image_files import ImageError
from tfgad.data.images import read_image
from tfgad.errors import UsageError
from tfgad.export.saved_model import export
from tfgad.inference import heat_maps, predictor, results, saved_model, scoring
from tfgad.scores.verdicts import verdict_name

pytest.importorskip("apache_beam", reason="needs tfgad[scale]")
from apache_beam.io.filesystem import FileMetadata, FileSystem
from apache_beam.io.localfilesystem import LocalFileSystem

from tfgad.inference import beam
from tfgad.inference.beam import pipeline, storage, tables


@pytest.fixture(scope="module")
def model(fitted, tmp_path_factory):
    """A folder of versions with one small SavedModel, which scores images at native resolution."""
    folder = tmp_path_factory.mktemp("models")
    form = {"image_shape": (48, 48, 1), "resized": False, "metadata": {}}
    export(fitted("ganomaly"), folder, **form)
    return str(folder)


def write_noise(path, rng, height=48, width=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (height, width), np.uint8)).save(path)


@pytest.fixture
def tiles(tmp_path):
    """Images of three sizes in two folders, one large; two broken ones, a small, a CIELAB one."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "tiles"
    for i in range(9):
        place = folder / ("b" if i % 2 else "a") / f"{i}.png"
        write_noise(place, rng, height=48 + 8 * (i % 3))
    write_noise(folder / "a/large.png", rng, 560, 520)
    write_noise(folder / "a/small.png", rng, 20, 20)
    (folder / "a/empty.png").touch()
    (folder / "b/text.png").write_text("no image")
    Image.merge("LAB", 3 * [Image.new("L", (48, 48), 128)]).save(folder / "b/lab.tif")
    return folder


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def plain(model, paths):
    """Returns the verdicts of `tfgad score` on files, by path."""
    loaded = predictor.load_predictor(pathlib.Path(model))
    return {str(each.path): each for each in scoring.score_files(loaded, paths)}


def assert_rows_are_those_of(rows, expected):
    assert [row["image"] for row in rows] == sorted(
        name for name, each in expected.items() if not isinstance(each, ImageError)
    )
    for row in rows:
        verdict = expected[row["image"]]
        assert float(row["score"]) == pytest.approx(verdict.score, rel=1e-5)  # six digits
        assert float(row["probability"]) == pytest.approx(verdict.probability, abs=1e-5)
        assert row["verdict"] == verdict_name(verdict.is_anomalous)
        assert row["regions"] == str(len(scoring.regions_of(verdict)))


def test_a_folder_of_many_sizes(model, tiles, tmp_path):
    table, maps = tmp_path / "scores.csv", tmp_path / "maps"
    scored = beam.score(model, [str(tiles)], str(table), maps=str(maps), mm_per_pixel=0.1)
    expected = plain(model, results.find_images([tiles]))
    regions = read_csv(tmp_path / "scores.defects.csv")
    assert tuple(regions[0]) == results.region_columns(0.1)
    counts = collections.Counter(row["image"] for row in regions)
    assert {row["image"]: int(row["regions"]) for row in read_csv(table)} == {
        name: counts[name] for name, each in expected.items() if not isinstance(each, ImageError)
    }
    assert_rows_are_those_of(read_csv(table), expected)
    assert sum(scored.counts.values()) == 14
    assert scored.counts["not scored"] == 4
    assert scored.broken == [
        (str(tiles / "a/empty.png"), "is empty"),
        (str(tiles / "a/small.png"), "is smaller than 32x32 pixels"),
        (str(tiles / "b/lab.tif"), "is a LAB image; save it as grey or RGB"),
        (str(tiles / "b/text.png"), "is not a PNG, JPEG, BMP, TIFF or WebP"),
    ]
    letters = read_csv(tmp_path / "scores.dead_letters.csv")
    assert [(each["image"], each["reason"]) for each in letters] == scored.broken
    verdicts = [each for each in expected.values() if not isinstance(each, ImageError)]
    for verdict in verdicts:
        place = maps / verdict.path.relative_to(tiles)
        written = read_image(place.with_name(f"{place.name}.png"), channels=3)
        difference = written - heat_maps.overlay(verdict).astype("float32") / 127.5 + 1
        assert np.abs(difference).max() <= 2 / 255 + 1e-6  # one grey level
    assert len([path for path in maps.rglob("*") if path.is_file()]) == len(verdicts)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "maps",
        "scores.csv",
        "scores.dead_letters.csv",
        "scores.defects.csv",
        "tiles",
    ]


def test_patterns_files_and_duplicates_into_parquet(model, tiles, tmp_path):
    from pyarrow import parquet

    table = tmp_path / "scores.parquet"
    beam.score(
        model,
        [str(tiles / "*/[0-4].png"), str(tiles / "a/0.png"), str(tiles / "b/7.png")],
        str(table),
    )
    found = parquet.read_table(table)
    assert [str(field.type) for field in found.schema] == [
        "string",
        "double",
        "double",
        "string",
        "string",
        *(5 * ["int64"]),
    ]
    paths = [tiles / name for name in ("a/0.png", "b/1.png", "a/2.png", "b/3.png", "a/4.png")]
    expected = plain(model, [*paths, tiles / "b/7.png"])
    rows = found.to_pylist()
    assert [row["image"] for row in rows] == sorted(expected)
    for row in rows:  # a batch sums in another order than an image alone
        verdict = expected[row["image"]]
        assert row["score"] == pytest.approx(verdict.score, rel=1e-6, abs=1e-6)
        assert row["regions"] == len(scoring.regions_of(verdict))
        assert row["probability"] == pytest.approx(verdict.probability, rel=1e-6, abs=1e-6)


def test_a_file_that_looks_like_a_pattern_is_a_file(model, tiles, tmp_path):
    odd = tiles / "part[1].png"
    shutil.copy(tiles / "a/0.png", odd)
    beam.score(model, [str(odd)], str(tmp_path / "scores.csv"))
    assert [row["image"] for row in read_csv(tmp_path / "scores.csv")] == [str(odd)]


def test_what_cannot_be_given_to_beam_is_a_dead_letter(model, tiles, tmp_path):
    folder, long_name = tmp_path / "odd", f"{242 * 'x'}.png"
    folder.mkdir()
    shutil.copy(tiles / "a/0.png", folder / long_name)
    shutil.copy(tiles / "a/0.png", os.fsencode(folder) + b"/\xff.png")
    os.mkfifo(folder / "pipe.png")
    maps = tmp_path / "maps"
    scored = beam.score(model, [str(folder)], str(tmp_path / "t.csv"), maps=str(maps))
    assert [path.name for path in maps.iterdir()] == [f"{long_name}.png"]
    assert scored.broken == [
        (f"{folder}/\\xff.png", pipeline.NOT_UTF8),
        (f"{folder}/pipe.png", "is no file"),
    ]
    longer = tmp_path / f"{251 * 'x'}.png"
    shutil.copy(tiles / "a/0.png", longer)
    with pytest.raises(UsageError, match="a name of more than 255 bytes; rename"):
        beam.score(model, [str(longer)], str(tmp_path / "t.csv"), maps=str(maps))


@pytest.fixture(scope="module")
def dask_options():
    """The runner options of a Dask cluster of two worker processes, and tasks of two images.

    Workers that are threads of one process would share what DaskRunner collects, and repeat it.
    """
    distributed = pytest.importorskip("distributed", reason="needs tfgad[dask]")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        yield [f"dask_client_address={cluster.scheduler_address}", "dask_partition_size=2"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_tables_of_dask_are_those_of_the_local_runner(
    model, tiles, tmp_path, dask_options, suffix
):
    from pyarrow import parquet

    given = model, [str(tiles), f"{tiles}/**.png"]  # most of them twice
    local = beam.score(*given, str(tmp_path / f"local.{suffix}"), maps=str(tmp_path / "maps"))
    dask = {"runner": "DaskRunner", "options": dask_options}
    table = str(tmp_path / f"dask.{suffix}")
    scored = beam.score(*given, table, maps=str(tmp_path / "maps_of_dask"), **dask)
    assert (scored.counts, scored.broken) == (local.counts, local.broken)
    assert scored.counts["not scored"] == len(scored.broken) == 4
    for kind in ("dead_letters", "defects"):
        ours, theirs = (read_csv(tmp_path / f"{name}.{kind}.csv") for name in ("dask", "local"))
        assert [row["image"] for row in ours] == [row["image"] for row in theirs]
    if suffix == "csv":
        expected = plain(model, results.find_images([tiles]))
        assert_rows_are_those_of(read_csv(table), expected)
    else:
        both = (parquet.read_table(tmp_path / f"{name}.parquet") for name in ("dask", "local"))
        ours, theirs = (each.select(["image", "verdict"]).to_pylist() for each in both)
        assert ours == theirs
    maps = {path.relative_to(tmp_path / "maps") for path in (tmp_path / "maps").rglob("*")}
    of_dask = tmp_path / "maps_of_dask"
    assert {path.relative_to(of_dask) for path in of_dask.rglob("*")} == maps


@pytest.mark.slow
def test_where_dask_can_score_nothing_nothing_is_written(model, tiles, tmp_path, dask_options):
    out = tmp_path / "out"
    given = model, [str(tiles / "a/empty.png")], str(out / "t.csv")
    with pytest.raises(UsageError, match="is empty"):
        beam.score(*given, runner="DaskRunner", options=dask_options)
    assert not list(out.iterdir())


def test_counts_of_verdicts_are_read_from_the_table(tmp_path):
    rows = [tables.Row(f"{i}.png", 1.0, 0.5, i % 3 == 0, "", []) for i in range(7)]
    for name in ("t.csv", "t.parquet"):
        tables.write_table(rows, str(tmp_path / name))
        assert tables.count_verdicts(str(tmp_path / name)) == {"good": 4, "defective": 3}


def test_dask_that_is_not_installed_is_named(model, tiles, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'tfgad\[dask\]'"):
        beam.score(model, [str(tiles)], str(tmp_path / "t.csv"), runner="DaskRunner")


def test_where_nothing_can_be_scored_nothing_is_written(model, tiles, tmp_path):
    with pytest.raises(UsageError, match="is empty, nor 1 others"):
        beam.score(
            model,
            [str(tiles / "a/empty.png"), str(tiles / "b/t*.png")],
            str(tmp_path / "out/t.csv"),
        )
    assert not list((tmp_path / "out").iterdir())


def test_a_failing_model_leaves_the_old_table(model, tiles, tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("out of luck")

    table = tmp_path / "scores.csv"
    table.write_text("old")
    monkeypatch.setattr(predictor.SavedModelPredictor, "predict_batch", fails)
    with pytest.raises(RuntimeError, match="out of luck"):
        beam.score(model, [str(tiles)], str(table))
    assert table.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "tiles"]


def test_batches_hold_as_many_pixels_as_the_model_is_given_at_once(model):
    handler = beam.SavedModelHandler(model, beam.input_spec_of(model))

    def weight(height, width):
        return handler.weight(beam.Pixels("", np.empty((height, width, 1), np.uint8)))

    options = handler.batch_elements_kwargs()
    assert options["min_batch_size"] == options["max_batch_size"] == 16 * 128 * 128
    assert weight(64, 64) == 64 * 64
    assert weight(4000, 3000) == 16 * 128 * 128  # and no more, or it would not fit any batch


def test_maps_have_places_of_their_own():
    root = storage.common_folder(["/data/a/x.png", "/data/b/x.png", "/data/b/c/y.png"])
    assert root == "/data"
    places = [storage.map_path("/maps", root, f"/data/{name}") for name in ("a/x.png", "a/x.jpg")]
    assert places == ["/maps/a/x.png.png", "/maps/a/x.jpg.png"]
    remote = storage.common_folder(["gs://bucket/day-1/", "gs://bucket/day-2/x.png"])
    assert remote == "gs://bucket"
    assert storage.map_path("gs://m", remote, "gs://bucket/day-2/x.png") == "gs://m/day-2/x.png.png"
    assert storage.fixed_part("gs://bucket/day-?/*.png") == "gs://bucket/"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ["nowhere/*.png"]}, "matches no files"),
        ({"images": ["nowhere.png"]}, "is not there"),
        ({"table": "scores.txt"}, r"name a \.csv or \.parquet file"),
        ({"model": "nowhere"}, "is not there"),
        ({"options": ["direct_running_mode=fast"]}, "invalid choice: 'fast'"),
    ],
)
def test_a_mistake_is_said_in_one_line(model, tiles, tmp_path, changes, message):
    given = {"model": model, "images": [str(tiles)], "table": str(tmp_path / "t.csv"), **changes}
    with pytest.raises(UsageError, match=message):
        beam.score(**given)


def test_maps_among_the_images_are_refused(model, tiles, tmp_path):
    with pytest.raises(UsageError, match="among the images"):
        beam.score(model, [str(tiles)], str(tmp_path / "t.csv"), maps=str(tiles))


def test_a_run_is_to_be_exported_first(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model.RunFolder, "read_config", lambda _: {})
    with pytest.raises(UsageError, match="tfgad export"):
        beam.score(str(tmp_path), [str(tiles)], str(tmp_path / "t.csv"))


def tfgad(*arguments):
    console.show_log()
    return CliRunner().invoke(main.app, [str(each) for each in arguments])


def test_a_cluster_without_its_options_is_said_in_one_line(model, tiles, tmp_path):
    given = ("score", model, tiles, "--csv", tmp_path / "t.csv", "--runner", "DataflowRunner")
    result = tfgad(*given)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("tfgad: --runner 'DataflowRunner': ")
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_table_beam_has_nothing_to_write(model, tiles):
    result = tfgad("score", model, tiles, "--runner", "DirectRunner")
    assert result.exit_code == 2
    assert "add --csv FILE" in result.stderr


def test_a_model_of_resized_images_takes_any_size(fitted, tiles, tmp_path):
    form = {"image_shape": (48, 48, 1), "resized": True, "metadata": {}}
    model = str(export(fitted("ganomaly"), tmp_path / "resizing", **form))
    scored = beam.score(model, [str(tiles / "a")], str(tmp_path / "t.csv"))
    assert scored.broken == [(str(tiles / "a/empty.png"), "is empty")]  # and not the small one
    expected = plain(model, results.find_images([tiles / "a"]))
    assert_rows_are_those_of(read_csv(tmp_path / "t.csv"), expected)


class Far(LocalFileSystem):
    """A remote file system: `far://x` is the file x of the folder `root`, whoever asks."""

    root = None

    @classmethod
    def scheme(cls):
        return "far"

    def near(self, path):
        assert path.startswith("far://"), path
        return str(self.root / path.removeprefix("far://"))

    def _list(self, dir_or_prefix):
        for path in self.root.rglob("*"):
            name = f"far://{path.relative_to(self.root)}"
            if path.is_file() and name.startswith(dir_or_prefix):
                yield FileMetadata(name, path.stat().st_size)

    def match(self, patterns, limits=None):
        return FileSystem.match(self, patterns, limits)

    def has_dirs(self):
        return False

    def create(self, path, *args, **kwargs):
        return super().create(self.near(path), *args, **kwargs)

    def open(self, path, *args, **kwargs):
        return super().open(self.near(path), *args, **kwargs)

    def rename(self, sources, destinations):
        super().rename(list(map(self.near, sources)), list(map(self.near, destinations)))

    def exists(self, path):
        return super().exists(self.near(path))

    def delete(self, paths):
        super().delete(list(map(self.near, paths)))


def test_model_images_and_all_that_is_written_may_be_remote(model, tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(Far, "root", tmp_path)
    shutil.copytree(model, tmp_path / "models")
    scored = beam.score(
        "far://models", ["far://tiles/*/*.png"], "far://out/t.csv", maps="far://out/maps"
    )
    expected = plain(model, results.find_images([tiles]))
    rows = read_csv(tmp_path / "out/t.csv")
    near = [{**row, "image": str(tmp_path / row["image"].removeprefix("far://"))} for row in rows]
    assert_rows_are_those_of(near, expected)
    assert [name for name, _ in scored.broken] == [
        "far://tiles/a/empty.png",
        "far://tiles/a/small.png",
        "far://tiles/b/text.png",
    ]
    maps = (tmp_path / "out/maps").rglob("*.png")
    named = {str(path.relative_to(tmp_path / "out/maps")) for path in maps}
    assert named == {f"{row['image'].removeprefix('far://tiles/')}.png" for row in rows}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "maps",
        "t.csv",
        "t.defects.csv",
        "t.dead_letters.csv",
    }


@pytest.mark.slow
def test_depth_and_size_of_images_are_given(model, tmp_path):
    ramp = np.linspace(0, 4095, 48 * 48).reshape(48, 48).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    Image.fromarray(np.tile(ramp, (2, 1))).save(tmp_path / "tall.png")
    given = [str(tmp_path / "ramp.png"), str(tmp_path / "tall.png")], str(tmp_path / "t.csv")
    scored = beam.score(model, *given, max_pixels=48 * 48)
    assert scored.doubtful == {12: 1}
    (letter,) = scored.broken
    assert letter[1] == "has more than 2,304 pixels"
    assert scored.beyond == ["max_pixels"]
    assert beam.score(model, *given, depth=12).doubtful == {}
    with pytest.raises(UsageError, match="maximum of 11 bits, nor 1 others; give a larger --depth"):
        beam.score(model, *given, depth=11)
    loaded = predictor.load_predictor(pathlib.Path(model))
    (expected,) = scoring.score_files(loaded, [tmp_path / "ramp.png"], depth=12)
    assert float(read_csv(given[1])[0]["score"]) == pytest.approx(expected.score, rel=1e-5)


@pytest.mark.slow
def test_two_thousand_tiles_among_them_broken_ones(model, tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "tiles"
    for i in range(2000):
        write_noise(folder / f"{i % 10}/{i:04}.png", rng, 64, 64)
    broken = sorted(folder.rglob("*.png"))[::200]
    for i, path in enumerate(broken):
        path.write_bytes([b"", b"no image", path.read_bytes()[:200]][i % 3])
    table = tmp_path / "beam.csv"
    result = tfgad("score", model, f"{folder}/**.png", "--csv", table, "--runner", "DirectRunner")
    assert result.exit_code == 1
    assert f"not scored: {broken[0]}: is empty" in result.stderr
    letters = read_csv(tmp_path / "beam.dead_letters.csv")
    assert [each["image"] for each in letters] == list(map(str, broken))

    rows = {row["image"]: row for row in read_csv(table)}
    assert len(rows) == 2000 - len(broken)
    compared = sorted(set(folder.rglob("*.png")) - set(broken))[::10]
    expected = plain(model, compared)
    selected = [rows[str(path)] for path in compared]
    assert_rows_are_those_of(selected, expected)
