"""A layer normalization of small operators becomes one operator, which computes in float (L12).

    m = ReduceMean(x, {1, 2})                  d = Sub(x, m)
    v = ReduceMean(Mul(d, d), {1, 2})          r = Reciprocal(Sqrt(Add(v, eps)))
    y = Add(Mul(Mul(d, r), gamma), beta)

=>  y = LayerNormalization<axis = 1, epsilon = eps>(x, gamma, beta)          the axes are the last ones

=>  y = Transpose(LayerNormalization(Transpose(x)), ...)                     they are not, as in the order n, C, h, w

=>  y = InstanceNormalization<epsilon = eps>(x, gamma, beta)                 all axes but that of the channels

Without the mean (RMS, l2) there is no operator of that kind; the sum of squares and the quotient are float ones:

    y = Mul(x, Reciprocal(Sqrt(Add(ReduceMean(Mul(x, x)), eps))))      =>      s = ReduceSumSquare(x)
                                                                               y = sqrt(n) * (x / Sqrt(s + n * eps))

Factors and terms are computed in float64; those that change along other axes too stay a Mul and an Add behind. How it is
written does not matter (`normalizations`): E[x^2] - m^2, Pow, Div, x * inv + (beta - m * inv). Placed in front of
`sink-transposes`, while the parts still have one order of axes, and of the pass that takes means for average pools.

Refused: statistics over the batch or over axes of unknown length, and ones that anybody else reads.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir

from ..ir import add_initializer, add_node, name_of, static_shape
from .axis_moves import inverse
from .normalizations import Normalization, normalization_at
from .rewriting import Float64, drop, inherited, refuse, rewrite_each, set_constant, stored, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RaiseLayerNorm:
    """Writes layer, instance, group and RMS normalizations with one operator for their statistics."""

    name: ClassVar[str] = "raise-layer-norm"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred."""
        return rewrite_each(model.graph, _rewrite, "ReduceMean", "ReduceSum")


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    found = normalization_at(node)
    if found is None:
        return refuse(logger, node, "what is computed with it is no normalization")
    if found.source.dtype != onnx_ir.DataType.FLOAT:
        return refuse(logger, node, "only float32 is normalized here")
    _Writer(graph, found).write()
    return True


class _Writer:
    """Puts the new nodes in front of the last old one; what is left without readers, `run_passes` removes."""

    def __init__(self, graph: onnx_ir.Graph, found: Normalization) -> None:
        last, shape = found.result.producer(), static_shape(found.source)
        assert last is not None and shape is not None
        self.graph, self.found, self.last, self.shape = graph, found, last, shape
        self.label = name_of(found.result)

    def write(self) -> None:
        found = self.found
        value, scale, shift = self._normalized() if found.root.centred else self._quotient()
        if (scale != 1).any():
            value = self._with_constant("Mul", value, scale, "scale")
        if shift is not None:
            value = self._with_constant("Add", value, shift, "shift")
        take_over(found.result, value)
        drop(self.last)

    def _add(self, op_type: str, inputs: Sequence[onnx_ir.Value], name: str, **attributes: Any) -> onnx_ir.Value:
        return add_node(
            self.graph,
            op_type,
            inputs,
            f"{self.label}__{name}",
            attributes=attributes,
            before=self.last,
            like=self.found.source,
            metadata=inherited(self.last),
        )

    def _constant(self, array: Float64, name: str) -> onnx_ir.Value:
        return add_initializer(self.graph, f"{self.label}__{name}", stored(array, np.float32))

    def _with_constant(self, op_type: str, value: onnx_ir.Value, array: Float64, name: str) -> onnx_ir.Value:
        result = self._add(op_type, [value], f"{name}d" if name.endswith("e") else f"{name}ed")
        node = result.producer()
        assert node is not None
        set_constant(self.graph, node, 1, stored(array, np.float32), None, fallback=f"{self.label}__{name}")
        return result

    def _normalized(self) -> tuple[onnx_ir.Value, Float64, Float64 | None]:
        """The operator, between Transposes where the axes are not the last ones, and what is left for Mul and Add."""
        found, shape = self.found, self.shape
        kept = tuple(axis for axis in range(len(shape)) if axis not in found.axes)
        perm = (*kept, *found.axes)
        turns = perm != tuple(range(len(shape)))
        value = self._add("Transpose", [found.source], "axes_last", perm=perm) if turns else found.source
        if turns and found.source.shape is not None:
            value.shape = onnx_ir.Shape([found.source.shape[axis] for axis in perm])
        epsilon = found.root.epsilon
        left: tuple[Float64, Float64 | None] = (np.ones(1), None)
        if len(shape) > 3 and len(kept) == 2 and self._varies_along(kept[1:]):
            shift = np.zeros((1,) * len(shape)) if found.shift is None else found.shift
            parameters = self._parameters([found.scale, shift], kept[1:])
            result = self._add("InstanceNormalization", [value, *parameters], "normalized", epsilon=epsilon)
        else:
            arrays = [found.scale, *([] if found.shift is None else [found.shift])]
            if not self._varies_along(found.axes):
                left, arrays = (found.scale, found.shift), [np.ones((1,) * len(shape))]
            parameters = self._parameters(arrays, found.axes)
            attributes = {"axis": -len(found.axes), "epsilon": epsilon}
            result = self._add("LayerNormalization", [value, *parameters], "normalized", **attributes)
        if turns:
            result.shape = value.shape
            result = self._add("Transpose", [result], "axes_back", perm=inverse(perm))
        return result, *left

    def _varies_along(self, axes: tuple[int, ...]) -> bool:
        """Whether scale and shift are the same along all axes but these, whose lengths are known."""
        arrays = [array for array in (self.found.scale, self.found.shift) if array is not None]
        same = all(size == 1 or axis in axes for array in arrays for axis, size in enumerate(array.shape))
        return same and all(self.shape[axis] is not None for axis in axes)

    def _parameters(self, arrays: list[Float64], axes: tuple[int, ...]) -> list[onnx_ir.Value]:
        """Scale and shift of the lengths of these axes, as the operators want them."""
        lengths = [size for axis in axes if (size := self.shape[axis]) is not None]
        ordered = (array.reshape([array.shape[axis] for axis in axes]) for array in arrays)
        whole = [np.ascontiguousarray(np.broadcast_to(array, lengths)) for array in ordered]
        return [self._constant(array, name) for array, name in zip(whole, ("gamma", "beta"), strict=False)]

    def _quotient(self) -> tuple[onnx_ir.Value, Float64, Float64 | None]:
        """The quotient of x and sqrt(sum + n * eps), and sqrt(n) for the factor behind."""
        found = self.found
        count = float(np.prod([size for axis in found.axes if (size := self.shape[axis]) is not None]))
        axes = add_initializer(self.graph, f"{self.label}__axes", np.asarray(found.axes, np.int64))
        root = self._add("ReduceSumSquare", [found.source, axes], "squares", keepdims=1)
        source = found.source.shape
        root.shape = onnx_ir.Shape([1 if axis in found.axes else size for axis, size in enumerate(source or ())])
        narrow = root.shape
        for op_type, number in (("Add", found.root.epsilon), ("Max", found.root.floor)):
            if number:
                root = self._add(op_type, [root, self._constant(np.asarray(count * number), "epsilon")], op_type.lower())
                root.shape = narrow
        root = self._add("Sqrt", [root], "root")
        root.shape = narrow
        return self._add("Div", [found.source, root], "normalized"), found.scale * np.sqrt(count), found.shift
