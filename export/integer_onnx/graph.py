"""Integers in an ONNX graph: which element type holds them, what range they have, and the small nodes that convert them.

8-bit tensors are uint8 or int8. Everything wider is int32 where its range is proven to fit, else float64, which holds every
integer up to 2^53: onnxruntime has no kernels for int16 (Max, Pad, MaxPool, Resize), and none in int64 for MaxPool, Relu, Resize.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ...ir import OPSET, SOURCE_KEY, UnsupportedError

U8, S8, I32 = onnx_ir.DataType.UINT8, onnx_ir.DataType.INT8, onnx_ir.DataType.INT32
F32, F64 = onnx_ir.DataType.FLOAT, onnx_ir.DataType.DOUBLE

INT32_MOST: Final = (1 << 31) - 1
FLOAT32_EXACT: Final = 1 << 24
FLOAT64_EXACT: Final = 1 << 53
"""Up to here every integer is a number of that type."""


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """Integers as the ONNX graph holds them.

    Attributes:
        name: what further nodes are called after.
        shape: None where an axis is open.
        low: smallest integer that can occur.
        high: largest one.
        value: in the graph; None of a constant, which is stored in the types it is read in.
        integers: of a constant, int64; else None.
    """

    name: str
    shape: tuple[int | None, ...]
    low: int
    high: int
    value: onnx_ir.Value | None = None
    integers: npt.NDArray[np.int64] | None = None

    @property
    def magnitude(self) -> int:
        """Largest absolute value."""
        return max(-self.low, self.high)


def narrowest(low: int, high: int, what: str) -> onnx_ir.DataType:
    """The smallest element type that holds a range: uint8, int8, int32, float64.

    Raises:
        UnsupportedError: none does; `what` names the layer.
    """
    if low >= 0 and high <= 255:
        return U8
    if low >= -128 and high <= 127:
        return S8
    return widest(low, high, what)


def widest(low: int, high: int, what: str) -> onnx_ir.DataType:
    """The element type that sums of a range are computed in: int32, or float64 beyond.

    Raises:
        UnsupportedError: integers beyond 2^53; `what` names the layer.
    """
    most = max(-low, high)
    if most > FLOAT64_EXACT:
        raise UnsupportedError(
            f"target integer: {what}: its integers can reach {most}, beyond 2^53; no ONNX operator rounds such integers exactly; "
            f"scales that lie closer together are expected. Received: {most}"
        )
    return I32 if most <= INT32_MOST else F64


@dataclass
class Builder:
    """An ONNX graph that grows node by node.

    Attributes:
        taken: names that only `named` gives: of inputs, outputs and integer tensors; and all others given so far.
        graph: what was built.
        source: node of the TensorFlow graph that new nodes are marked with.
    """

    taken: set[str]
    graph: onnx_ir.Graph = field(default_factory=lambda: onnx_ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="integer"))
    source: str | None = None
    _constants: dict[tuple[Any, ...], onnx_ir.Value] = field(default_factory=dict)
    _converted: dict[tuple[onnx_ir.Value, onnx_ir.DataType], onnx_ir.Value] = field(default_factory=dict)
    _named: set[onnx_ir.Value] = field(default_factory=set)
    _nodes: set[str] = field(default_factory=set)

    def unique(self, name: str) -> str:
        """The name, or the next free one after it."""
        return _free(self.taken, name)

    def node(
        self, op: str, inputs: Sequence[onnx_ir.Value | None], name: str, attributes: Mapping[str, Any] | None = None
    ) -> onnx_ir.Value:
        """Adds a node of one output, called after it, and returns the output."""
        node = onnx_ir.node(op, inputs, attributes or {}, num_outputs=1)
        node.outputs[0].name = self.unique(name)
        self.append(node, f"{op}:{node.outputs[0].name}")
        return node.outputs[0]

    def append(self, node: onnx_ir.Node, name: str) -> None:
        """Adds a ready node under a name of its own."""
        node.name = _free(self._nodes, name)
        if self.source is not None:
            node.metadata_props[SOURCE_KEY] = self.source
        self.graph.append(node)

    def constant(self, name: str, array: npt.NDArray[Any]) -> onnx_ir.Value:
        """An initializer; equal ones are stored once."""
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._constants:
            value = onnx_ir.val(self.unique(name), const_value=onnx_ir.tensor(array))
            assert value.const_value is not None
            value.const_value.name = value.name
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def number(self, number: float, dtype: onnx_ir.DataType) -> onnx_ir.Value:
        """A scalar constant."""
        return self.constant(f"{dtype.name.lower()}_{number:g}".replace("+", ""), np.array(number, dtype.numpy()))

    def list(self, name: str, numbers: Any) -> onnx_ir.Value:
        """A constant of int64: a shape, axes, pads, positions."""
        return self.constant(name, np.array(numbers, np.int64))

    def read(self, x: Carried, dtype: onnx_ir.DataType) -> onnx_ir.Value:
        """The integers in an element type that holds them."""
        if x.integers is not None:
            return self.constant(f"{x.name}__{dtype.name.lower()}", x.integers.astype(dtype.numpy()))
        assert x.value is not None
        return self.convert(x.value, dtype)

    def convert(self, value: onnx_ir.Value, dtype: onnx_ir.DataType) -> onnx_ir.Value:
        """The same numbers in another element type; asked twice for it, the same Cast."""
        if value.dtype == dtype:
            return value
        key = (value, dtype)
        if key not in self._converted:
            found = self.node("Cast", [value], f"{value.name}__{dtype.name.lower()}", {"to": int(dtype)})
            found.dtype = dtype
            self._converted[key] = found
        return self._converted[key]

    def pad(self, x: Carried, pads: Sequence[int], fill: int | None, like: Carried, dtype: onnx_ir.DataType, **how: Any) -> Carried:
        """A Pad that says which axes: onnxruntime lets one without axes be the padding of a MaxPool behind it, which is never 0.

        Args:
            x: what is padded.
            pads: widths, of all axes or of `how["axes"]`; negative ones cut off.
            fill: number that is filled in; None where elements of `x` are, by `how["mode"]`.
            like: name, shape and range of the result.
            dtype: holds both.
            **how: `axes`, `mode`.
        """
        inputs = [
            self.read(x, dtype),
            self.list(f"{like.name}__pads", pads),
            None if fill is None else self.number(fill, dtype),
            self.list(f"{like.name}__axes", how.get("axes", list(range(len(x.shape))))),
        ]
        return self.made("Pad", inputs, like, dtype, mode=how.get("mode", "constant"))

    def made(
        self, op: str, inputs: Sequence[onnx_ir.Value | None], like: Carried, dtype: onnx_ir.DataType, **attributes: Any
    ) -> Carried:
        """Adds a node whose output, of type `dtype`, has the name, shape and range of `like`."""
        value = self.node(op, inputs, like.name, attributes)
        value.dtype = dtype
        return Carried(like.name, like.shape, like.low, like.high, value)

    def named(self, value: onnx_ir.Value, name: str) -> onnx_ir.Value:
        """The value under a name that was taken for it: renamed, or copied where it has a name to keep."""
        renamed = value
        if value in self._named or value.producer() is None:
            renamed = self.node("Identity", [value], name)
            renamed.type = value.type
        renamed.name = name
        self._named.add(renamed)
        return renamed


def _free(taken: set[str], name: str) -> str:
    found, count = name, 0
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    taken.add(found)
    return found
