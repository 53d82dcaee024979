"""Inputs with an open batch and nothing else open.

    x[1,?,?,3] -> Reshape(x, [1, -1])      shape=(8, 8, 3)  =>      x[batch,8,8,3] -> Reshape(x, [0, -1])

A Reshape whose constant target repeats the batch size of its input copies it instead (0: "as the input has it"), since
both sides count the same elements per image; shapes behind the inputs are inferred anew.

Refused with an error: dimensions that stay open, and a shape that contradicts what the input says. A batch size that a
Reshape needs in another place than the first stays fixed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir

from ..ir import ModelError, UsageError, constant, fed_inputs, name_of, static_shape
from .infer_shapes import InferShapes
from .rewriting import is_op, refuse, set_constant

logger = logging.getLogger(__name__)

BATCH: Final = "batch"


@dataclass(frozen=True)
class FixInputShape:
    """Makes the batch dimension of every input dynamic and every other dimension a number.

    Attributes:
        shape: dimensions without the batch for inputs that leave some open; may be empty where none does.
    """

    shape: tuple[int, ...] = ()
    name: ClassVar[str] = "fix-input-shape"

    def __post_init__(self) -> None:
        if any(dim < 1 for dim in self.shape):
            raise UsageError(f"{self.name}: shape must be positive numbers. Received: {','.join(map(str, self.shape))}")

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the shapes of the inputs, the targets of reshapes and the shapes behind them in place.

        Raises:
            ModelError: a dimension other than the batch stays open, or `shape` contradicts the input.
        """
        inputs = [value for value in fed_inputs(model.graph) if value.shape is None or len(value.shape)]
        settled = {value: self._settle(value) for value in inputs}
        sizes = {value.shape[0] for value in inputs if value.shape is not None}
        batch = sizes.pop() if len(sizes) == 1 else None
        opens = not isinstance(batch, int) or _free_reshapes(model.graph, batch)
        modified = False
        for value, rest in settled.items():
            first = value.shape[0] if value.shape is not None else None
            keep = isinstance(first, onnx_ir.SymbolicDim) and first.value is not None
            shape = onnx_ir.Shape([first if keep or (isinstance(first, int) and not opens) else BATCH, *rest])
            if value.shape is None or [str(dim) for dim in value.shape] != [str(dim) for dim in shape]:
                value.shape = shape
                modified = True
        if modified:
            _forget_shapes(model.graph)
            InferShapes().apply(model)
        return modified

    def _settle(self, value: onnx_ir.Value) -> list[int]:
        known = static_shape(value)
        where = f"input {name_of(value)!r}"
        if known is None:
            if not self.shape:
                raise ModelError(f"{where} has an unknown shape; shape=H,W,C is expected")
            return list(self.shape)
        rest = known[1:]
        if None not in rest:
            return [dim for dim in rest if dim is not None]
        if len(self.shape) != len(rest) or any(dim not in (None, want) for dim, want in zip(rest, self.shape, strict=False)):
            raise ModelError(
                f"{where} has the shape {list(known)}: a shape for the {len(rest)} dimensions behind the batch is expected. "
                f"Received: shape={','.join(map(str, self.shape)) or 'nothing'}"
            )
        return list(self.shape)


def _free_reshapes(graph: onnx_ir.Graph, batch: int) -> bool:
    """Takes the batch size out of the targets of reshapes; False, and nothing done, where one of them cannot do without."""
    found = []
    for node in graph:
        target = constant(node.inputs[1]) if is_op(node, "Reshape") else None
        before, after = static_shape(node.inputs[0]) if node.inputs[0] is not None else None, static_shape(node.outputs[0])
        if target is None or not target.size or target[0] in (0, -1):
            continue
        if not before or not after or before[0] != batch or after[0] != batch:
            return refuse(logger, node, f"the batch size {batch} cannot be taken out of its target")
        found.append((node, np.asarray([0, *target[1:]], np.int64)))
    for node, target in found:
        set_constant(graph, node, 1, target, node.inputs[1])
    return True


def _forget_shapes(graph: onnx_ir.Graph) -> None:
    """Shapes behind the inputs were inferred from the old ones; the outputs keep their rank, with an open batch."""
    for node in graph:
        for value in node.outputs:
            if value.is_graph_output() and value.shape is not None and len(value.shape) and isinstance(value.shape[0], int):
                value.shape = onnx_ir.Shape([BATCH, *list(value.shape)[1:]])
            elif not value.is_graph_output():
                value.shape = None
