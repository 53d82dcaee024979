"""Float islands: nodes computed in float64 by the reference implementation of the ONNX standard (L12, X6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir
from onnx.reference import ReferenceEvaluator

from ..ir import UnsupportedError, name_of
from .fixed_tensor import FixedPoint
from .oracle_ops import Operand


def evaluate(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> list[npt.NDArray[Any]]:
    """Outputs of a node in float64; integers (shapes, indices) stay integers.

    Raises:
        UnsupportedError: the reference implementation does not know the operator, or not with float64.
    """
    pairs = zip(node.inputs, inputs, strict=True)
    feeds = {name_of(value): _plain(operand) for value, operand in pairs if value is not None and operand is not None}
    try:
        evaluator = ReferenceEvaluator(onnx_ir.serde.serialize_node(node))
        outputs = evaluator.run(None, feeds)
    except Exception as error:
        raise UnsupportedError(f"{node.op_type} {node.name!r}: the ONNX reference cannot compute it in float64: {error}") from None
    return [_plain(np.asarray(output)) for output in outputs]


def _plain(operand: Operand) -> npt.NDArray[Any]:
    if isinstance(operand, FixedPoint):
        return operand.real()
    return operand.astype(np.float64) if operand.dtype.kind == "f" else operand
