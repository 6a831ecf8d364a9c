"""Tensors of a PyTorch checkpoint, read without PyTorch and without running code from the file.

A checkpoint is a pickle, and a pickle may call any function, and cost any time and memory. Here
only the classes of a plain dictionary of tensors are accepted, and only the operations that PyTorch
writes for one, of a limited number.

Both formats that `torch.save` has had are read:

- the legacy one: five pickles (magic number, version, byte order, the dictionary, the names of the
  storages), then each storage as its length and its values;
- the zip archive: `NAME/data.pkl` with the dictionary, and `NAME/data/KEY` for each storage.
"""

from __future__ import annotations

import io
import math
import pickletools
import reprlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

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
# Of one pickle. That of Lite0's file has 10,696.
MOST_OPERATIONS = 1_000_000
MOST_AXES = 8  # of a tensor; three-dimensional convolutions have five
HINT = "give a file of `torch.save` with a dictionary of tensors"


class _Storage(NamedTuple):
    """The values that tensors are views of."""

    key: str
    dtype: np.dtype
    length: int  # in values


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
        with path.open("rb") as file:
            read = _of_archive if zipfile.is_zipfile(file) else _of_legacy_file
            file.seek(0)
            tensors, storages = read(file, path.stat().st_size)
        return {name: _view(tensor, storages) for name, tensor in tensors.items()}
    except _RefusedError as error:
        raise UsageError(argument, path, str(error), HINT) from error
    except OSError as error:
        raise UsageError(argument, path, reason_of(error), HINT) from error
    except Exception as error:  # a damaged file raises almost any exception
        raise UsageError(argument, path, "is damaged, or no file of torch", HINT) from error


class _RefusedError(Exception):
    """The file holds something else than tensors; the message says what."""


def _of_legacy_file(file: IO[bytes], file_size: int) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    """Returns the tensors by name, and the storages by key."""
    if (_unpickled(file), _unpickled(file)) != (MAGIC, VERSION):
        raise _RefusedError("is no file of torch")
    if not _unpickled(file)["little_endian"]:
        raise _RefusedError("is big-endian, which is not read")
    tensors = _checked(_unpickled(file))
    known = {tensor.key: tensor for tensor in tensors.values()}
    storages: dict[str, bytes] = {}
    for key in _unpickled(file):
        length = int.from_bytes(file.read(8), "little")
        tensor = known[_name(key)]
        if length != tensor.length:
            raise _RefusedError(
                f"has {length} values in storage {_short(key)}, not {tensor.length}"
            )
        storages[key] = file.read(min(length * tensor.dtype.itemsize, file_size))
    return tensors, storages


def _of_archive(file: IO[bytes], file_size: int) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    """Returns the tensors by name, and the storages by key."""
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        # torch does not compress: all members together are smaller than the file. So a small file
        # cannot ask for much memory.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise _RefusedError("is compressed, which no file of torch is")
        if sum(member.file_size for member in members.values()) > file_size:
            raise _RefusedError("has members that overlap")
        (pickled,) = (name for name in members if name.split("/")[1:] == ["data.pkl"])
        root = pickled.removesuffix("data.pkl")
        order = root + "byteorder"  # files of before torch 2.1 have none
        if order in members and archive.read(order) != b"little":
            raise _RefusedError("is big-endian, which is not read")
        tensors = _checked(_unpickled(io.BytesIO(archive.read(pickled))))
        keys = {tensor.key for tensor in tensors.values()}
        return tensors, {key: archive.read(f"{root}data/{key}") for key in keys}


def _unpickled(file: IO[bytes]) -> Any:
    """Reads one pickle, by the operations of protocol 2 that `torch.save` writes.

    Python's own reader does not do: it hashes whatever is the key of a dictionary, which for tuples
    that are nested often enough takes forever or ends the process.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        things = stack[start:]
        del stack[start:]
        return things

    argument: Any
    for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if number == MOST_OPERATIONS:
            raise _RefusedError(f"has more than {MOST_OPERATIONS} operations in a pickle")
        match operation.name:
            case "STOP":
                return stack.pop()
            case "PROTO":
                pass
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(operation.name == "NEWTRUE")
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = int(operation.name[-1])
                stack[-length:] = [tuple(stack[-length:])]
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                values = since_mark()
                stack[-1].extend(values)
            case "SETITEM":
                key, value = stack.pop(-2), stack.pop()
                stack[-1][_name(key)] = value
            case "SETITEMS":
                pairs = since_mark()
                for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                    stack[-1][_name(key)] = value
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_meant(argument))
            case "REDUCE":
                arguments = stack.pop()
                stack[-1] = stack[-1](*arguments)
            case "BUILD":  # of an ordered dictionary: versions of modules
                stack.pop()
            case "BINPERSID":
                stack[-1] = _storage(*stack[-1])
            case name:
                raise _RefusedError(f"has the operation {name}, which is not allowed")
    raise _RefusedError("is damaged")


def _meant(by: str) -> Callable[..., Any] | np.dtype:
    """Returns what stands for a class or a function, `module name`, of a file."""
    module, _, name = by.partition(" ")
    if (module, name) == ("collections", "OrderedDict"):
        return lambda: {}
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
        return _tensor
    if module == "torch" and name in TYPES:
        return np.dtype(TYPES[name])
    raise _RefusedError(f"refers to {_short(module + '.' + name)}, which is not allowed")


def _storage(
    kind: Any, storage_type: Any, key: Any, _device: Any, length: Any, *view: Any
) -> _Storage:
    """Returns what a tensor is a view of."""
    if kind != "storage" or any(each is not None for each in view):
        raise _RefusedError("has a storage of a form that is not read")
    if not isinstance(storage_type, np.dtype):
        raise _RefusedError("has a storage without a type")
    return _Storage(_name(key), storage_type, _count(length))


def _tensor(storage: _Storage, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    """Returns a view of a storage."""
    if not isinstance(storage, _Storage):
        raise _RefusedError("has a tensor without a storage")
    if max(len(size), len(stride)) > MOST_AXES:
        raise _RefusedError(f"has a tensor of more than {MOST_AXES} axes")
    return _Tensor(*storage, _count(offset), tuple(map(_count, size)), tuple(map(_count, stride)))


def _count(number: Any) -> int:
    """Returns a size, stride, offset or length of the file; refuses what is none."""
    if type(number) is not int or not 0 <= number < 2**63:
        raise _RefusedError(f"has {_short(number)} where a size should be")
    return number


def _name(thing: Any) -> str:
    """Returns a key of a dictionary or of a storage; refuses what is no string."""
    if not isinstance(thing, str):
        raise _RefusedError(f"has {_short(thing)} where a name should be")
    return thing


def _short(thing: Any) -> str:
    """Returns the representation of a thing of a file, cut where it is long or nested."""
    shortened = reprlib.Repr()
    shortened.maxlevel, shortened.maxstring, shortened.maxother = 2, 80, 80
    return shortened.repr(thing)


def _checked(loaded: Any) -> dict[str, _Tensor]:
    """Returns the dictionary of tensors; refuses other values, and contradictory storages."""
    if not isinstance(loaded, dict):
        raise _RefusedError("holds no dictionary of tensors")
    described: dict[str, tuple[np.dtype, int]] = {}
    for name, tensor in loaded.items():
        if not isinstance(tensor, _Tensor):
            raise _RefusedError(f"holds something else than a tensor as {_short(name)}")
        if described.setdefault(tensor.key, tensor[1:3]) != tensor[1:3]:
            raise _RefusedError(f"describes storage {_short(tensor.key)} in two ways")
    return loaded


def _view(tensor: _Tensor, storages: dict[str, bytes]) -> np.ndarray:
    """Returns a tensor as a view of its storage; refuses one that exceeds it."""
    content, itemsize = storages[tensor.key], tensor.dtype.itemsize
    if len(content) != tensor.length * itemsize:
        raise _RefusedError(f"ends within storage {_short(tensor.key)}")
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
