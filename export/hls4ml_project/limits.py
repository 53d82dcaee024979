"""What hls4ml 1.3 cannot hold, by name (H3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...ir import UnsupportedError
from ..integers.network import IntegerNetwork, Operation, Step
from ..qonnx_dialect.quant import check_constants
from .steps import FENCED, spatial_pads, split_rectifiers

TARGET: Final = "hls4ml"

LARGEST_EXPONENT: Final = 31
"""Of a scale: the types that hls4ml ships read beyond the bits of an `int` where that is converted to a coarser grid."""

Limit = Callable[[Operation, IntegerNetwork], str | None]

_UNREAD: Final = "the ONNX reader of hls4ml knows no {0}"

_NEVER: Final[dict[str, str]] = {
    "Table": "a function of 8-bit integers; hls4ml computes functions from tables on grids of its own, which are other integers",
    "ConvTranspose": _UNREAD.format("ConvTranspose"),
    "DepthToSpace": _UNREAD.format("DepthToSpace"),
    "Gather": _UNREAD.format("Gather"),
    "Resize": "hls4ml exchanges height and width of what it enlarges",
    "Slice": _UNREAD.format("Slice"),
    "SpaceToDepth": _UNREAD.format("SpaceToDepth"),
    "Tile": _UNREAD.format("Tile"),
    "Clip": "bounds in the middle of a step; only in front of its rounding can they be held",
    "Relu": "a rectifier in the middle of a step; hls4ml would give it a type of its own",
}


def _conv(operation: Operation, network: IntegerNetwork) -> str | None:
    if not _is_constant(operation.inputs[1], network):
        return "weights must be constants"
    return None if len(operation.shape) == 4 else f"two spatial axes. Received: {len(operation.shape) - 2}"


def _matmul(operation: Operation, network: IntegerNetwork) -> str | None:
    if not _is_constant(operation.inputs[1], network) or operation.attributes.get("transA"):
        return "the second factor must be a constant, the first one not transposed"
    ranks = len(operation.shape), len(network.tensors[operation.inputs[1]].shape)
    return None if ranks == (2, 2) else f"the product of two matrices. Received: results of {ranks[0]} axes, weights of {ranks[1]}"


def _binary(operation: Operation, network: IntegerNetwork) -> str | None:
    constants = [name for name in operation.inputs if _is_constant(name, network)]
    if len(operation.inputs) != 2:
        return f"two operands. Received: {len(operation.inputs)}"
    if constants and operation.op in {"Max", "Min"}:
        return "no constant operand: hls4ml compares tensors only"
    shapes = [_shape(name, network) for name in operation.inputs if name not in constants]
    if any(shape != operation.shape for shape in shapes):
        return f"operands of the shape of the result: hls4ml repeats none. Received: {shapes}"
    return None


def _max_pool(operation: Operation, _network: IntegerNetwork) -> str | None:
    if len(operation.shape) != 4:
        return f"two spatial axes; hls4ml reads the axes of others wrongly. Received: {len(operation.shape) - 2}"
    dilations = operation.attributes["dilations"]
    return None if set(dilations) == {1} else f"no dilation, which hls4ml ignores. Received: {dilations}"


def _pad(operation: Operation, network: IntegerNetwork) -> str | None:
    attributes, rank = operation.attributes, len(operation.shape)
    if attributes["mode"] != "constant" or attributes["value"]:
        return f"zeros. Received: {attributes['mode']} {attributes.get('value', '')}".rstrip()
    if rank not in {3, 4} or spatial_pads(operation, rank) is None:
        return f"padding of the axes behind the channels, at least 0. Received: {attributes['pads']}"
    read = {item.op for step in network.steps for item in step.operations}
    return None if read & {"Conv", "MaxPool"} else "a convolution or pool beside it, which tells hls4ml where the channels are"


def _concat(operation: Operation, network: IntegerNetwork) -> str | None:
    if any(_is_constant(name, network) for name in operation.inputs):
        return "no constant operand"
    rank, axis = len(operation.shape), operation.attributes["axis"] % len(operation.shape)
    return None if axis and rank <= 4 else f"up to 4 axes, not along the batch. Received: {rank} axes, axis {axis}"


def _transpose(operation: Operation, _network: IntegerNetwork) -> str | None:
    perm = operation.attributes["perm"]
    return None if perm[0] == 0 and len(perm) <= 4 else f"up to 4 axes, the batch in front. Received: {perm}"


def _nothing(_operation: Operation, _network: IntegerNetwork) -> str | None:
    return None


_LIMITS: Final[dict[str, Limit]] = {
    "Add": _binary,
    "Concat": _concat,
    "Conv": _conv,
    "Flatten": _nothing,
    "Gemm": _matmul,
    "Identity": _nothing,
    "MatMul": _matmul,
    "Max": _binary,
    "MaxPool": _max_pool,
    "Min": _binary,
    "Mul": _binary,
    "Pad": _pad,
    "Reshape": _nothing,
    "Squeeze": _nothing,
    "Sub": _binary,
    "Transpose": _transpose,
    "Unsqueeze": _nothing,
}


_ON_COMPUTED: Final = frozenset(_LIMITS) - {"Add", "Concat", "Max", "Min", "Mul", "Sub"}
"""Operators whose first operand must be computed."""


def check_network(network: IntegerNetwork) -> None:
    """Refuses what hls4ml cannot hold.

    Raises:
        UnsupportedError: naming the layer, the limit and the value.
    """
    network.require_integers(TARGET)
    for port in network.inputs:
        if port.tensor is None or not 2 <= len(port.shape) <= 4:
            raise UnsupportedError(
                f"target {TARGET}: input {port.name!r}: must be quantized, of 2 to 4 axes, batch included. Received: {port.shape}"
            )
    for tensor in network.tensors.values():
        if tensor.exponent > LARGEST_EXPONENT:
            raise UnsupportedError(
                f"target {TARGET}: {tensor.value!r}: a scale of at most 2^{LARGEST_EXPONENT}: the types of hls4ml fail to convert "
                f"zeros beyond. Received: 2^{tensor.exponent}"
            )
    for step in network.steps:
        _check_step(step, network)
    check_constants(network, TARGET)


def _check_step(step: Step, network: IntegerNetwork) -> None:
    batch = network.inputs[0].shape[0]
    operations = split_rectifiers(step)[0]
    for operation in operations:
        limit = _LIMITS.get(operation.op)
        why = limit(operation, network) if limit else _NEVER.get(operation.op, _UNREAD.format(operation.op))
        if why is None and operation.shape[0] != batch:
            why = f"the batch must stay in front. Received: {operation.shape}"
        if why is None and operation.op in _ON_COMPUTED and _is_constant(operation.inputs[0], network):
            why = "no constant operand"
        if why is None and operation.op in FENCED and operation is not operations[-1] and operation.bound is None:
            why = "a bound of what is not rounded; none is known"
        if why is not None:
            raise UnsupportedError(f"target {TARGET}: layer {step.name!r}: {operation.op} {operation.node!r}: {why}")


def _is_constant(name: str, network: IntegerNetwork) -> bool:
    return name in network.tensors and network.tensors[name].kind == "constant"


def _shape(name: str, network: IntegerNetwork) -> tuple[int | None, ...]:
    if name in network.tensors:
        return network.tensors[name].shape
    return next(item.shape for step in network.steps for item in step.operations if item.output == name)
