"""PyTorch's files without PyTorch: tensors, and files that are damaged or mean harm."""

import importlib.util
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.networks.torch_file import read_torch_file

path = Path(__file__).with_name("torch_files.py")
spec = importlib.util.spec_from_file_location("torch_files", path)
torch_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(torch_files)

VALUES = np.arange(24, dtype="float32")
TENSORS = {
    "whole": torch_files.tensor("a", "FloatStorage", 24, (4, 6), (6, 1)),
    "turned": torch_files.tensor("a", "FloatStorage", 24, (6, 4), (1, 6)),
    "part": torch_files.tensor("a", "FloatStorage", 24, (3, 2), (6, 3), 7),
    "scalar": torch_files.tensor("b", "LongStorage", 1, (), ()),
    "empty": torch_files.tensor("a", "FloatStorage", 24, (0, 3), (3, 1)),
}
STORAGES = {"a": VALUES, "b": np.array([5])}


def written(folder, content):
    """A file with some content."""
    path = folder / "weights.pth"
    path.write_bytes(content)
    return path


@pytest.fixture(params=["legacy", "archive"])
def file(request, tmp_path):
    """A function that writes tensors and storages in one of the two formats."""

    def write(tensors, storages):
        path = tmp_path / "weights.pth"
        if request.param == "legacy":
            path.write_bytes(torch_files.legacy(tensors, storages))
        else:
            torch_files.archive(path, tensors, storages)
        return path

    return write


def test_tensors_have_their_sizes_strides_and_offsets(file):
    tensors = read_torch_file(file(TENSORS, STORAGES))
    matrix = VALUES.reshape(4, 6)
    np.testing.assert_array_equal(tensors["whole"], matrix)
    np.testing.assert_array_equal(tensors["turned"], matrix.T)
    np.testing.assert_array_equal(tensors["part"], [[7, 10], [13, 16], [19, 22]])
    assert tensors["scalar"].shape == ()
    assert tensors["scalar"] == 5
    assert tensors["empty"].shape == (0, 3)
    with pytest.raises(ValueError, match="read-only"):
        tensors["whole"][0, 0] = 1.0


@pytest.mark.parametrize(
    ("view", "problem"),
    [
        (((5, 6), (6, 1)), "outside its storage"),
        (((4, 6), (6, 2)), "outside its storage"),
        (((4, 6), (6, 1), 1), "outside its storage"),
        (((10**12,), (0,)), "outside its storage"),
        (((2**40, 2**40), (1, 1)), "outside its storage"),
        (((4, 6), (-6, 1)), "-6 where a size should be"),
        (((4, 6), (6, 1), -1), "-1 where a size should be"),
        (((4, "6"), (6, 1)), "'6' where a size should be"),
        (((4, 6), (1,)), "other strides than sizes"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(file, view, problem):
    path = file({"x": torch_files.tensor("a", "FloatStorage", 24, *view)}, {"a": VALUES})
    with pytest.raises(UsageError, match=problem):
        read_torch_file(path)


def test_a_storage_of_another_length_is_refused(file, tmp_path):
    longer = {"x": torch_files.tensor("a", "FloatStorage", 25, (25,), (1,))}
    with pytest.raises(UsageError, match=r"24 values in storage 'a', not 25|ends within"):
        read_torch_file(file(longer, {"a": VALUES}))
    two_ways = TENSORS | {"x": torch_files.tensor("a", "DoubleStorage", 12, (12,), (1,))}
    with pytest.raises(UsageError, match="in two ways"):
        read_torch_file(file(two_ways, STORAGES))
    content = torch_files.legacy(longer, {"a": VALUES}, {"a": 25})
    with pytest.raises(UsageError, match="ends within storage 'a'"):
        read_torch_file(written(tmp_path, content))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("os", "system"),
        ("collections", "defaultdict"),
        ("torch", "load"),
        ("torch.nn.modules.linear", "Linear"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ],
)
def test_other_classes_and_functions_are_refused(file, module, name):
    thing = torch_files.called(torch_files.refer(module, name), "1 + 1")
    with pytest.raises(UsageError, match=rf"refers to '{module}.{name}', which is not allowed"):
        read_torch_file(file({"x": thing}, {}))


class Harm:
    """Raises an alarm when it is unpickled."""

    def __reduce__(self):
        return sys.audit, ("tfgad.harm",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_code_of_a_file_is_executed(tmp_path, protocol):
    harmful = []
    sys.addaudithook(lambda event, _: harmful.append(event) if event == "tfgad.harm" else None)
    with pytest.raises(UsageError, match="not allowed"):
        read_torch_file(written(tmp_path, pickle.dumps(Harm(), protocol)))
    assert not harmful
    pickle.loads(pickle.dumps(Harm(), protocol))
    assert harmful  # it would have been noticed


def test_a_damaged_file_is_refused_wherever_it_is_cut(tmp_path):
    content = torch_files.legacy(TENSORS, STORAGES)
    for length in range(0, len(content), 7):
        with pytest.raises(UsageError) as caught:
            read_torch_file(written(tmp_path, content[:length]))
        assert "\n" not in str(caught.value)


def test_random_changes_give_tensors_or_one_error(tmp_path):
    rng = np.random.default_rng(0)
    content = torch_files.legacy(TENSORS, STORAGES)
    for _ in range(300):
        changed = bytearray(content)
        for place in rng.integers(len(content), size=3):
            changed[place] = rng.integers(256)
        path = written(tmp_path, bytes(changed))
        try:
            tensors = read_torch_file(path)
        except UsageError:
            continue
        assert all(isinstance(each.sum(), np.generic) for each in tensors.values())


def test_a_place_beyond_the_file_costs_nothing(tmp_path):
    # Python's own table of objects would be made as long as the file says, 64 GB.
    content = b"\x80\x02}r\xff\xff\xff\x7f."
    with pytest.raises(UsageError, match="no file of torch"):
        read_torch_file(written(tmp_path, content))


def test_what_is_no_dictionary_of_tensors_is_refused(file):
    with pytest.raises(UsageError, match="something else than a tensor as 'epoch'"):
        read_torch_file(file(TENSORS | {"epoch": 5}, STORAGES))
    with pytest.raises(UsageError, match="no dictionary of tensors"):
        read_torch_file(file([1, 2], {}))


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch_files.archive(path, TENSORS, STORAGES, zipfile.ZIP_DEFLATED)
    with pytest.raises(UsageError, match="is compressed"):
        read_torch_file(path)


def test_an_archive_whose_members_overlap_is_refused(tmp_path):
    """Each storage is a member of its own in the directory, but all are the same bytes."""
    path = tmp_path / "weights.pth"
    torch_files.archive(path, TENSORS, {"a": np.zeros(10_000, "float32"), "b": np.array([5])})
    content = path.read_bytes()
    start, end = content.index(b"PK\1\2"), content.rindex(b"PK\5\6")
    entries = content[start:end]
    size, number = len(entries), content[end + 8 :][0]
    repeated = entries + entries.replace(b"model/data/a", b"model/data/c")
    record = content[end : end + 8] + struct.pack("<HHII", 2 * number, 2 * number, 2 * size, start)
    path.write_bytes(content[:start] + repeated + record + b"\0\0")
    with pytest.raises(UsageError, match="members that overlap"):
        read_torch_file(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        read_torch_file(tmp_path / "none.pth")
    for content in (b"", b"\x89PNG\r\n", torch_files.pickled(1) + torch_files.pickled(2)):
        with pytest.raises(UsageError, match=r"no file of torch|not allowed"):
            read_torch_file(written(tmp_path, content))


def pairs_of_pairs(depth):
    """A list of tuples, each of which has the one before it twice; the last is the 0th object."""
    pair = b"h\x00h\x00\x86q\x00"
    return b"](Nq\x00" + pair * depth + b"e"


ORDERED = torch_files.refer("collections", "OrderedDict")
COSTLY = {
    "a key that takes forever to hash": pairs_of_pairs(60) + b"}h\x00Ns",
    "keys that take forever to hash": pairs_of_pairs(60) + b"}(h\x00Nu",
    "a key nested beyond the stack of the process": b"})" + b"\x85" * 500_000 + b"Ns",
    "too many objects": b"}" * 1_500_000,
    "copies of a large dictionary": torch_files.called(ORDERED, [("x", 1)]),
    "a tensor of many axes": b"}X\x01\0\0\0x"
    + torch_files.tensor("a", "FloatStorage", 24, (1,) * 9, (1,) * 9)
    + b"s",
    "a size of hundreds of digits": b"}X\x01\0\0\0x"
    + torch_files.tensor("a", "FloatStorage", 24, b"\x8a\xfe" + b"\x7f" * 254 + b"\x85", (1,))
    + b"s",
    "a name that fills the screen": b"}" + torch_files.of("n" * 100_000) + b"Ns",
    "a class that controls the terminal": b"cos\x1b[31m\rx\ny\n",
}


@pytest.mark.parametrize("operations", COSTLY.values(), ids=COSTLY)
def test_what_costs_time_or_memory_is_refused_at_once(tmp_path, operations):
    head = map(torch_files.pickled, [torch_files.MAGIC, torch_files.VERSION, {"little_endian": 1}])
    path = written(tmp_path, b"".join(head) + b"\x80\x02" + operations + b".")
    with pytest.raises(UsageError) as caught:
        read_torch_file(path)
    assert len(caught.value.problem) < 160
    assert caught.value.problem.isprintable()


def test_a_large_file_of_something_else_is_not_read(tmp_path):
    path = tmp_path / "large.pth"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no place on the disk
    with pytest.raises(UsageError, match="no file of torch"):
        read_torch_file(path)
