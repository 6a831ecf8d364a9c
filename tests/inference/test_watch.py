"""Images that arrive in a folder are scored once each, whatever happens in between."""

import errno
import os
import shutil
import threading
import time

import pytest
from PIL import Image

from tfgad.data.image_files import ImageError
from tfgad.errors import UsageError
from tfgad.inference import results, watch
from tfgad.inference.watch import Folder, Watch
from tfgad.inference.watch_table import COLUMNS, Table

from .conftest import BAD, GOOD, SIDE, Brightness


class Killed(BaseException):
    """What ends a watch in these tests; nothing catches it."""


def test_each_image_has_one_row_in_the_order_of_arrival(scene):
    for number, name in enumerate(["b.png", "sub/deep/a.PNG", "a.png"]):
        os.utime(scene.write(name, BAD if name == "a.png" else GOOD), ns=(0, number))  # of 1970
    scene.write(".hidden.png")
    scene.write(".rsync/a.png")
    (scene.folder / "notes.txt").write_text("no image")
    (first, second) = scene.process(passes=2)
    assert [result.path.name for _, result in first] == ["b.png", "a.PNG", "a.png"]
    assert second == []
    os.utime(scene.write("late.png"), (4e9, 4e9))  # the camera's clock is ahead
    assert [result.path.name for _, result in scene.process()[0]] == ["late.png"]
    assert scene.process() == [[]]
    assert tuple(scene.rows()[0]) == COLUMNS
    assert scene.verdicts() == {
        "b.png": ["good"],
        "sub/deep/a.PNG": ["good"],
        "a.png": ["defective"],
        "late.png": ["good"],
    }


@pytest.mark.parametrize(
    "name", [b"new\nline.png", b"\xff.png", 'ü, "x".png'.encode(), b"back\\nslash.png", b"\r.png"]
)
def test_odd_names(scene, name):
    scene.write(os.fsdecode(name), BAD)
    scene.process(bad=scene.bad, maps=scene.maps)
    assert scene.process() == [[]]
    scene.csv.read_text("utf-8")
    assert len(scene.csv.read_bytes().splitlines()) == 2
    assert os.listdir(os.fsencode(scene.bad)) == [name]


STEPS = {  # in the order of work
    "heat map": (results, "write_map"),
    "row": (Table, "append"),
    "disk": (Table, "sync"),
    "move": (watch, "_move"),
}


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step(scene, monkeypatch, step, is_done):
    for number in range(4):
        scene.write(f"{number}.png", BAD if number % 2 else GOOD)
    owner, name = STEPS[step]
    original, calls = getattr(owner, name), []

    def killed(*arguments):
        calls.append(arguments)
        if step != "disk" and len(calls) == 1:
            return original(*arguments)
        if is_done:
            original(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            scene.process(bad=scene.bad, maps=scene.maps)
    scene.process(bad=scene.bad, maps=scene.maps)
    verdicts = {f"{number}.png": ["defective" if number % 2 else "good"] for number in range(4)}
    assert scene.verdicts() == verdicts
    assert sorted(os.listdir(scene.folder)) == ["0.png", "2.png"]
    assert sorted(os.listdir(scene.bad)) == ["1.png", "3.png"]
    assert len(os.listdir(scene.maps)) == 4


def test_killed_while_an_image_is_copied_to_another_disk(scene, monkeypatch):
    scene.write("a.png", BAD)
    content = (scene.folder / "a.png").read_bytes()
    replace = os.replace

    def other_disk(source, target):
        if os.path.dirname(source) == str(scene.folder):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, target)

    def killed(*_):
        raise Killed

    monkeypatch.setattr(watch.os, "replace", other_disk)
    for function in ("shutil.copy2", "pathlib.Path.unlink"):
        with monkeypatch.context() as patch:
            patch.setattr(function, killed)
            with pytest.raises(Killed):
                scene.process(bad=scene.bad)
        assert (scene.folder / "a.png").read_bytes() == content
    scene.process(bad=scene.bad)
    assert os.listdir(scene.folder) == []
    assert {path.name: path.read_bytes() for path in scene.bad.rglob("*")} == {"a.png": content}
    assert len(scene.rows()) == 1


def test_a_file_is_scored_once_it_no_longer_changes(scene, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
    path = scene.write("a.png")
    content = path.read_bytes()
    folder, table = Folder(scene.folder, settle=1), Table(scene.csv)
    watching = Watch(Brightness(), folder, table, threading.Event())
    for part in (content[:30], content[:60], content):
        path.write_bytes(part)
        assert list(watching.arrived()) == []
        clock[0] += 0.9
        assert list(watching.arrived()) == []
        assert folder.left == 1
    clock[0] += 0.2
    assert len(list(watching.arrived())) == 1
    assert (folder.left, scene.verdicts()) == (0, {"a.png": ["good"]})
    folder.close()
    table.close()


def test_a_file_that_changes_while_it_is_scored_is_scored_again(scene):
    path = scene.write("a.png", BAD)

    class Overwritten(Brightness):
        def predict_images(self, images):
            os.utime(scene.write("a.png", GOOD), (1, 1))
            return super().predict_images(images)

    assert scene.process(predictor=Overwritten(), bad=scene.bad) == [[]]
    assert scene.rows() == []
    scene.process(bad=scene.bad)
    assert scene.verdicts() == {"a.png": ["good"]}
    assert path.exists()


def test_new_content_under_the_same_name_has_a_row_of_its_own(scene):
    for time_ns in (1, 2, 3):
        os.utime(scene.write("a.png", BAD, SIDE + time_ns), ns=(time_ns, time_ns))
        scene.process(bad=scene.bad)
    assert scene.verdicts() == {"a.png": ["defective"] * 3}
    assert sorted(os.listdir(scene.bad)) == ["a.2.png", "a.3.png", "a.png"]
    assert [Image.open(scene.bad / name).size[0] for name in ("a.png", "a.3.png")] == [9, 11]


def test_a_file_replaced_before_its_move_stays(scene, monkeypatch):
    scene.write("a.png", BAD)
    monkeypatch.setattr(Table, "sync", lambda self: os.utime(scene.write("a.png", GOOD), (1, 1)))
    scene.process(bad=scene.bad)
    scene.process(bad=scene.bad)
    assert scene.verdicts() == {"a.png": ["defective", "good"]}
    assert (scene.folder / "a.png").exists()


def test_an_unreadable_file_is_reported_once_until_it_changes(scene):
    (scene.folder / "a.png").write_text("no image")
    (first, second) = scene.process(passes=2)
    ((row, result),) = first
    assert (type(result), row["verdict"]) == (ImageError, "not scored")
    assert row["reason"] == result.reason
    assert [second, *scene.process()] == [[], []]
    scene.write("a.png")
    scene.process()
    assert scene.verdicts() == {"a.png": ["not scored", "good"]}


def test_an_image_that_is_too_large_is_not_scored(scene):
    scene.write("large.png", side=100)
    scene.write("small.png")
    scene.process(max_pixels=99 * 100)
    assert scene.verdicts() == {"large.png": ["not scored"], "small.png": ["good"]}
    assert "more than 9,900 pixels" in scene.rows()[0]["reason"]


def test_a_deleted_file_has_no_row(scene, monkeypatch, caplog):
    scene.write("a.png")
    scene.write("b.png")

    def deleting(predictor, paths, **reading):
        (scene.folder / "a.png").unlink()
        yield from original(predictor, paths, **reading)

    original = watch.score_files
    monkeypatch.setattr(watch, "score_files", deleting)
    scene.process()
    assert scene.verdicts() == {"b.png": ["good"]}
    assert "a.png: is gone, and was not scored" in caplog.text


def test_what_is_passed_over_is_logged_once(scene, monkeypatch, caplog):
    outside = scene.write("../outside.png")
    (scene.folder / "link.png").symlink_to(outside)
    (scene.folder / "loop").symlink_to(scene.folder)
    os.mkfifo(scene.folder / "pipe.png")
    shutil.copy(outside, scene.folder / f"{'n' * 240}.png")
    scene.write("private.png")
    monkeypatch.setattr(os, "access", lambda path, mode: "private" not in os.fspath(path))
    assert scene.process(passes=3) == [[], [], []]
    for problem in ("link.png: is a link", "loop: is a link", "pipe.png: is no file"):
        assert caplog.text.count(problem) == 1
    assert caplog.text.count("has a name of more than 200 bytes") == 1
    assert caplog.text.count("private.png: cannot be read (Permission denied)") == 1
    monkeypatch.undo()
    scene.process()
    assert scene.verdicts() == {"private.png": ["good"]}


def test_a_folder_that_is_gone_for_a_while(scene, caplog):
    scene.write("a.png")
    folder, table = Folder(scene.folder, settle=0), Table(scene.csv)
    watching = Watch(Brightness(), folder, table, threading.Event())
    away = scene.folder.rename(scene.folder.with_name("away"))
    assert [*watching.arrived(), *watching.arrived()] == []
    assert caplog.text.count("No such file") == 1
    away.rename(scene.folder)
    assert len(list(watching.arrived())) == 1
    folder.close()
    table.close()


def test_outputs_inside_the_folder_are_not_scored(scene):
    scene.write("a.png", BAD)
    options = {"bad": scene.folder / "bad", "maps": scene.folder / "maps"}
    assert [len(each) for each in scene.process(passes=3, **options)] == [1, 0, 0]
    assert sorted(path.name for path in scene.folder.rglob("*.png")) == ["a.png", "a.png.png"]


def test_a_folder_inside_an_output_is_refused(scene):
    for output in (scene.folder, scene.folder.parent):
        with pytest.raises(UsageError, match="is inside"):
            Folder(scene.folder, 0, [output])


def test_a_second_watch_is_refused(scene):
    folder, table = Folder(scene.folder, 0), Table(scene.csv)
    for again in (lambda: Folder(scene.folder, 0), lambda: Table(scene.csv)):
        with pytest.raises(UsageError, match="is in use by another `tfgad watch`"):
            again()
    folder.close()
    table.close()
    assert scene.process() == [[]]


def test_a_stop_lets_the_present_images_be_written(scene):
    for number in range(3):
        scene.write(f"{number}.png", BAD)
    folder, table, stop = Folder(scene.folder, 0), Table(scene.csv), threading.Event()
    watching = Watch(Brightness(), folder, table, stop, bad=scene.bad)
    start = time.monotonic()
    for _ in watching.run(once=False):
        stop.set()
    assert time.monotonic() - start < 10
    assert len(scene.rows()) == len(os.listdir(scene.bad)) == 1
    folder.close()
    table.close()
