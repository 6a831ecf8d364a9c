"""Tensors of a PyTorch checkpoint, read without PyTorch and without running code from the file.

A checkpoint is a pickle, and a pickle may call any function. Here only the classes of a plain
dictionary of tensors are accepted, and only the operations that PyTorch writes for one.

Both formats that `torch.save` has had are read:

- the legacy one: five pickles (magic number, version, byte order, the dictionary, the names of the
  storages), then each storage as its length and its values;
- the zip archive: `NAME/data.pkl` with the dictionary, and `NAME/data/KEY` for each storage.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfgad.errors import UsageError, reason_of

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the legacy format
VERSION = 1001  # second pickle
# NumPy's types by the class of a storage in torch, little-endian. NumPy has no bfloat16.
TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# Operations of pickle's protocol 2, which `torch.save` writes. Other ways to name or make an object
# of a class are not among them; `GLOBAL` asks `_Unpickler.find_class`.
OPERATIONS = frozenset({
    "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
})  # fmt: skip
HINT = "give a file of `torch.save` with a dictionary of tensors"


class _Tensor(NamedTuple):
    """A tensor as the pickle describes it: a view of a storage."""

    key: str
    dtype: np.dtype
    length: int  # of the storage, in values
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_torch_file(path: str | Path, argument: str = "weights") -> dict[str, np.ndarray]:
    """Reads the tensors of a file that `torch.save` wrote.

    Args:
        path: the file: a dictionary from names to tensors, as of `module.state_dict()`.
        argument: the name of the file in the interface, for messages.

    Returns:
        Read-only arrays by name, of the tensors' sizes.

    Raises:
        UsageError: the file is not there, is damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(argument, path, "is not there", HINT)
    try:
        content = path.read_bytes()
        if zipfile.is_zipfile(path):
            tensors, storages = _of_archive(content)
        else:
            tensors, storages = _of_legacy_file(content)
        return {name: _view(tensor, storages) for name, tensor in tensors.items()}
    except _RefusedError as error:
        raise UsageError(argument, path, str(error), HINT) from error
    except OSError as error:
        raise UsageError(argument, path, reason_of(error), HINT) from error
    except Exception as error:  # pickle raises almost any exception for a damaged file
        raise UsageError(argument, path, "is damaged, or no file of torch", HINT) from error


class _RefusedError(Exception):
    """The file holds something else than tensors; the message says what."""


def _of_legacy_file(content: bytes) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    """Returns the tensors by name, and the storages by key."""
    file = io.BytesIO(content)
    if (_unpickled(file), _unpickled(file)) != (MAGIC, VERSION):
        raise _RefusedError("is no file of torch")
    if not _unpickled(file)["little_endian"]:
        raise _RefusedError("is big-endian, which is not read")
    tensors = _checked(_unpickled(file))
    known = {tensor.key: tensor for tensor in tensors.values()}
    storages: dict[str, bytes] = {}
    for key in _unpickled(file):
        length = int.from_bytes(file.read(8), "little")
        tensor = known[key]
        if length != tensor.length:
            raise _RefusedError(f"has {length} values in storage {key!r}, not {tensor.length}")
        storages[key] = file.read(length * tensor.dtype.itemsize)
    return tensors, storages


def _of_archive(content: bytes) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    """Returns the tensors by name, and the storages by key."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {member.filename: member for member in archive.infolist()}
        # torch does not compress: all members together are smaller than the file. So a small file
        # cannot ask for much memory.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise _RefusedError("is compressed, which no file of torch is")
        if sum(member.file_size for member in members.values()) > len(content):
            raise _RefusedError("has members that overlap")
        (pickled,) = (name for name in members if name.split("/")[1:] == ["data.pkl"])
        root = pickled.removesuffix("data.pkl")
        order = root + "byteorder"  # files of before torch 2.1 have none
        if order in members and archive.read(order) != b"little":
            raise _RefusedError("is big-endian, which is not read")
        tensors = _checked(_unpickled(io.BytesIO(archive.read(pickled))))
        keys = {tensor.key for tensor in tensors.values()}
        return tensors, {key: archive.read(f"{root}data/{key}") for key in keys}


def _unpickled(file: io.BytesIO) -> Any:
    """Reads one pickle, whose operations are checked before any of them is executed."""
    start = file.tell()
    for operation, argument, _ in pickletools.genops(file):
        if operation.name not in OPERATIONS:
            raise _RefusedError(f"has the operation {operation.name}, which is not allowed")
        # Its argument is an index into the unpickler's memo, which is allocated up to that index.
        if operation.name == "LONG_BINPUT" and int(argument or 0) > len(file.getbuffer()):
            raise _RefusedError("is damaged")
    file.seek(start)
    return _Unpickler(file).load()


class _Unpickler(pickle.Unpickler):
    """Unpickler of dictionaries and descriptions of tensors, which refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the replacement of a class or a function that the file refers to."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch" and name in TYPES:
            return name
        raise _RefusedError(f"refers to {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype, int]:
        """Returns key, type and length of a storage."""
        kind, type_name, key, _device, length, *view = pid
        if kind != "storage" or any(each is not None for each in view):
            raise _RefusedError("has a storage of a form that is not read")
        if not isinstance(key, str):
            raise _RefusedError("has a storage without a name")
        return key, np.dtype(TYPES[type_name]), _count(length)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
        """Returns the description of a tensor, in place of `_rebuild_tensor_v2`."""
        key, dtype, length = storage
        return _Tensor(
            key, dtype, length, _count(offset), tuple(map(_count, size)), tuple(map(_count, stride))
        )


def _count(number: Any) -> int:
    """Returns a size, stride, offset or length of the file; refuses what is none."""
    if type(number) is not int or number < 0:
        raise _RefusedError(f"has {number!r} where a size should be")
    return number


def _checked(loaded: Any) -> dict[str, _Tensor]:
    """Returns the dictionary of tensors; refuses other values, and contradictory storages."""
    if not isinstance(loaded, dict):
        raise _RefusedError("holds no dictionary of tensors")
    tensors = dict(
        dict.items(loaded)
    )  # the file can set attributes of an OrderedDict, also `items`
    described: dict[str, tuple[np.dtype, int]] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise _RefusedError(f"holds something else than a tensor as {name!r}")
        if described.setdefault(tensor.key, tensor[1:3]) != tensor[1:3]:
            raise _RefusedError(f"describes storage {tensor.key!r} in two ways")
    return tensors


def _view(tensor: _Tensor, storages: dict[str, bytes]) -> np.ndarray:
    """Returns a tensor as a view of its storage; refuses one that exceeds it."""
    content, itemsize = storages[tensor.key], tensor.dtype.itemsize
    if len(content) != tensor.length * itemsize:
        raise _RefusedError(f"ends within storage {tensor.key!r}")
    if len(tensor.size) != len(tensor.stride):
        raise _RefusedError("has a tensor with other strides than sizes")
    count = math.prod(tensor.size)
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.size, tensor.stride, strict=True)
    )
    # With a stride of 0 a tensor could have any number of values.
    if count and (last >= tensor.length or count > tensor.length):
        raise _RefusedError(f"has a tensor of {tensor.size} outside its storage")
    if not count:
        return np.empty(tensor.size, tensor.dtype)
    values = np.frombuffer(content, tensor.dtype)[tensor.offset :]
    return np.lib.stride_tricks.as_strided(
        values, tensor.size, [itemsize * stride for stride in tensor.stride], writeable=False
    )
