"""Files as `torch.save` writes them, put together without PyTorch."""

import struct
import zipfile

import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
TYPES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def refer(module, name):
    """A reference to a class or a function."""
    return f"c{module}\n{name}\n".encode()


def of(thing):
    """The operations of a pickle that make a thing; bytes are such operations already."""
    if isinstance(thing, bytes):
        return thing
    if thing is None:
        return b"N"
    if isinstance(thing, bool):
        return b"\x88" if thing else b"\x89"
    if isinstance(thing, int):
        if -(2**31) <= thing < 2**31:
            return b"J" + struct.pack("<i", thing)
        return b"\x8a" + bytes([12]) + thing.to_bytes(12, "little", signed=True)
    if isinstance(thing, str):
        return b"X" + struct.pack("<I", len(thing.encode())) + thing.encode()
    if isinstance(thing, tuple):
        return b"(" + b"".join(map(of, thing)) + b"t"
    if isinstance(thing, list):
        return b"](" + b"".join(map(of, thing)) + b"e"
    return b"}(" + b"".join(of(key) + of(value) for key, value in thing.items()) + b"u"


def called(function, *arguments):
    """The result of a function."""
    return function + of(arguments) + b"R"


def tensor(key, storage, length, size, stride, offset=0):
    """A tensor as a view of a storage of `length` values."""
    kept = of(("storage", refer("torch", storage), key, "cpu", length, None)) + b"Q"
    hooks = called(refer("collections", "OrderedDict"))
    rebuild = refer("torch._utils", "_rebuild_tensor_v2")
    return called(rebuild, kept, offset, size, stride, False, hooks)


def pickled(thing):
    """A whole pickle of protocol 2."""
    return b"\x80\x02" + of(thing) + b"."


def legacy(tensors, storages, lengths=None):
    """A file of the legacy format: descriptions by name, and arrays by key."""
    head = [MAGIC, VERSION, {"protocol_version": VERSION, "little_endian": True}, tensors]
    lengths = lengths or {key: array.size for key, array in storages.items()}
    return b"".join(map(pickled, [*head, list(storages)])) + b"".join(
        struct.pack("<q", lengths[key]) + array.tobytes() for key, array in storages.items()
    )


def archive(path, tensors, storages, compression=zipfile.ZIP_STORED):
    """Writes a file of the zip format."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("model/data.pkl", pickled(tensors))
        file.writestr("model/byteorder", "little")
        for key, array in storages.items():
            file.writestr(f"model/data/{key}", array.tobytes())


def contiguous(arrays):
    """Descriptions and storages of arrays, each with a storage of its own."""
    described, storages = {}, {}
    for number, (name, array) in enumerate(arrays.items()):
        array = np.ascontiguousarray(array)
        stride = tuple(step // array.itemsize for step in array.strides)
        storage = TYPES[array.dtype.name]
        described[name] = tensor(str(number), storage, array.size, array.shape, stride)
        storages[str(number)] = array
    return described, storages
