"""Mean over height and width of a transposed tensor -> mean of the tensor itself.

    Transpose(0,2,3,1) -> ReduceMean(axes=[1,2], keepdims=0)   ->   ReduceMean(axes=[2,3], keepdims=0)

Keras' GlobalAveragePooling2D arrives in this form; tf2onnx moves a Transpose through a reduction only where keepdims=1.
With keepdims=0 it is idle where the dimensions that remain keep their order: `[N,C]` out of `[N,C,H,W]` as out of `[N,H,W,C]`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir

from ...ir import add_initializer, attribute, constant, name_of

_REDUCTIONS: Final = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"})


def reduce_in_place(graph: onnx_ir.Graph) -> None:
    """Applies the rule everywhere; a Transpose left without readers is for the caller to remove."""
    for node in graph:
        value = node.inputs[0] if node.op_type in _REDUCTIONS and len(node.inputs) == 2 else None
        transpose = None if value is None else value.producer()
        if transpose is None or transpose.op_type != "Transpose" or attribute(node, "keepdims", 1) != 0:
            continue
        axes, perm = constant(node.inputs[1]), attribute(transpose, "perm", ())
        if axes is None or axes.size == 0 or not perm:
            continue
        reduced = {int(axis) % len(perm) for axis in axes.reshape(-1)}
        remaining = [perm[axis] for axis in range(len(perm)) if axis not in reduced]
        if remaining == sorted(remaining):
            target = np.asarray(sorted(perm[axis] for axis in reduced), np.int64)
            node.replace_input_with(0, transpose.inputs[0])
            node.replace_input_with(1, add_initializer(graph, f"{name_of(node.outputs[0])}__axes", target))
