"""Float islands: nodes computed in float64 by the reference implementation of the ONNX standard (L12, X6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir
from onnx.reference import ReferenceEvaluator

from ..ir import UnsupportedError, attribute, name_of
from .fixed_tensor import FixedPoint
from .oracle_ops import Operand


def _lrn(node: onnx_ir.Node, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """X / (bias + alpha / size * (sum of x^2 over `size` channels around each))^beta, channels in axis 1, cut at the borders."""
    size = int(attribute(node, "size", 1))
    alpha, beta, bias = (float(attribute(node, name, value)) for name, value in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    before, behind = (size - 1) // 2, size // 2
    sums = np.concatenate([np.zeros_like(x[:, :1]), np.cumsum(x * x, axis=1)], axis=1)
    channels = np.arange(x.shape[1])
    window = sums[:, np.minimum(channels + behind + 1, x.shape[1])] - sums[:, np.maximum(channels - before, 0)]
    result: npt.NDArray[Any] = x / (bias + alpha / size * window) ** beta
    return result


_CORRECTED: Final[dict[str, Callable[..., npt.NDArray[Any]]]] = {"LRN": _lrn}
"""What onnx's reference (1.23) computes otherwise than the standard says: its LRN leaves out the last channel of each window."""


def evaluate(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> list[npt.NDArray[Any]]:
    """Outputs of a node in float64; integers (shapes, indices) stay integers.

    Raises:
        UnsupportedError: the reference implementation does not know the operator, or not with float64.
    """
    pairs = zip(node.inputs, inputs, strict=True)
    feeds = {name_of(value): _plain(operand) for value, operand in pairs if value is not None and operand is not None}
    if node.op_type in _CORRECTED:
        return [_CORRECTED[node.op_type](node, *feeds.values())]
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
