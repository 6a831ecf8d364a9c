"""What a signature of a SavedModel takes and gives, and whether given arrays fit it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfgad.serving.server.errors import invalid


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or output.

    Attributes:
        dtype: of TensorFlow.
        shape: None for any length; the whole is None for any rank.
    """

    dtype: tf.DType
    shape: tuple[int | None, ...] | None

    @classmethod
    def from_proto(cls, info) -> TensorSpec:
        """Reads a `TensorInfo`."""
        shape = info.tensor_shape
        lengths = None
        if not shape.unknown_rank:
            lengths = tuple(None if d.size < 0 else d.size for d in shape.dim)
        return cls(tf.dtypes.as_dtype(info.dtype), lengths)

    @property
    def is_text(self) -> bool:
        """Whether its values are strings of bytes."""
        return self.dtype == tf.string

    @property
    def is_batched(self) -> bool:
        """Whether its first axis is that of a batch, of any length."""
        return bool(self.shape) and self.shape[0] is None

    def check(self, name: str, array: np.ndarray) -> None:
        """Raises ServingError if an array does not fit.

        A graph does not always say so itself: a colour image runs through the first layers of one
        for grey images.
        """
        if tf.dtypes.as_dtype(array.dtype) != self.dtype:
            problem = f"is of type {tf.dtypes.as_dtype(array.dtype).name}"
            raise invalid(f"input {name!r} {problem}, expected {self.dtype.name}")
        if self.shape is None:
            return
        fits = len(array.shape) == len(self.shape) and all(
            wanted in (None, given) for wanted, given in zip(self.shape, array.shape, strict=True)
        )
        if not fits:
            given, wanted = _shape_text(array.shape), _shape_text(self.shape)
            raise invalid(f"input {name!r} has shape {given}, expected {wanted}")


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature of a SavedModel.

    Attributes:
        name: such as `serving_default`.
        inputs: by name, in the order of the names.
        outputs: likewise.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @classmethod
    def from_proto(cls, name: str, definition) -> Signature:
        """Reads a `SignatureDef`."""
        inputs, outputs = (
            {each: TensorSpec.from_proto(tensors[each]) for each in sorted(tensors)}
            for tensors in (definition.inputs, definition.outputs)
        )
        return cls(name, inputs, outputs)

    @property
    def is_batched(self) -> bool:
        """Whether requests may share a run: each row of the outputs is that of the inputs."""
        specs = [*self.inputs.values(), *self.outputs.values()]
        return bool(self.inputs) and all(spec.is_batched for spec in specs)

    def check(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Raises ServingError if the inputs are not those that it takes."""
        if inputs.keys() != self.inputs.keys():
            raise invalid(
                f"input size does not match signature: {len(inputs)}!={len(self.inputs)} "
                f"len({_set_text(inputs)}) != len({_set_text(self.inputs)}). "
                f"Sent extra: {_set_text(inputs.keys() - self.inputs.keys())}. "
                f"Missing but required: {_set_text(self.inputs.keys() - inputs.keys())}."
            )
        for name, spec in self.inputs.items():
            spec.check(name, inputs[name])
        if self.is_batched:
            rows = {len(array) for array in inputs.values()}
            if len(rows) > 1:
                raise invalid(f"inputs differ in their number of rows: {sorted(rows)}")
            if rows == {0}:
                raise invalid("inputs have no rows")


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return f"[{','.join(str(-1 if each is None else each) for each in shape)}]"


def _set_text(names) -> str:
    return "{" + ",".join(sorted(names)) + "}"
