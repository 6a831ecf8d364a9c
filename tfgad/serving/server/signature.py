"""Signatures of a SavedModel, and the check of arrays against them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tfgad.serving.errors import invalid


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or output.

    Attributes:
        dtype: its TensorFlow dtype.
        shape: lengths of its axes, None for any length; None as a whole for any rank.
    """

    dtype: tf.DType
    shape: tuple[int | None, ...] | None

    @classmethod
    def from_proto(cls, info: meta_graph_pb2.TensorInfo) -> TensorSpec:
        """Returns the spec of a `TensorInfo`."""
        shape = info.tensor_shape
        lengths = None
        if not shape.unknown_rank:
            lengths = tuple(None if d.size < 0 else d.size for d in shape.dim)
        return cls(tf.dtypes.as_dtype(info.dtype), lengths)

    @property
    def is_text(self) -> bool:
        """Whether its values are byte strings."""
        return self.dtype == tf.string

    @property
    def is_batched(self) -> bool:
        """Whether its first axis is a batch axis, of any length."""
        return self.shape is not None and len(self.shape) > 0 and self.shape[0] is None

    def check(self, name: str, array: np.ndarray) -> None:
        """Checks an array.

        A graph does not always detect a mismatch itself: a colour image runs through the first
        layers of a model for grey images.

        Args:
            name: name of the input, for messages.
            array: its value.

        Raises:
            ServingError: dtype or shape do not fit.
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
        name: its name, such as `serving_default`.
        inputs: specs by name, sorted by name.
        outputs: likewise.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @classmethod
    def from_proto(cls, name: str, definition: meta_graph_pb2.SignatureDef) -> Signature:
        """Returns the signature of a `SignatureDef`."""
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
        """Checks the inputs of a request.

        Raises:
            ServingError: they do not fit the signature.
        """
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


def _set_text(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
