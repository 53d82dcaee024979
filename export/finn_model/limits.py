"""What FINN can hold, layer by layer: refused by name before anything is written.

The limits are those of its transformations to hardware layers; `docs/handoff/finn.md` says where each was read or measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...ir import UnsupportedError
from ..integers.network import SUMS, IntegerNetwork, Operation, Step, Tensor
from ..qonnx_dialect.quant import is_exact_copy
from .moves import LAYOUTS, flattens, transposition

MOST_BITS: Final = 8
"""Of an activation; a threshold for each step of it."""

MOST_SUM: Final = 1 << 24
"""FINN carries integers in float32."""

_OTHERS: Final = {
    "Table": "a function of one integer; FINN thresholds are relus and roundings",
    "Mul": "a product of two tensors; FINN multiplies by constants",
    "Max": "a maximum of two tensors (leaky relu); use a relu",
    "Min": "a minimum of two tensors (leaky relu); use a relu",
    "ConvTranspose": "a transposed convolution; use an enlargement and a convolution",
    "Sub": "a difference of two tensors; use a sum",
    "Clip": "a bound in front of a rounding that is no relu; use a relu",
    "Pad": "a padding that is no layer's own; use a layer's padding",
}
"""Operator -> what it is to FINN, and what it takes instead."""


def check_network(network: IntegerNetwork) -> None:
    """Refuses what FINN cannot hold.

    Raises:
        UnsupportedError: naming the layer, the limit and the value.
    """
    if network.contract == "layer16":
        step = next((step for step in network.steps if any(item.op in SUMS for item in step.operations)), network.steps[0])
        _refuse(
            step.name,
            "it is rounded to 16 bits and again behind its bias; FINN rounds a sum once, by thresholds of at most 8 bits; "
            "quantize with --layer-bits 32",
            "contract layer16",
        )
    network.require_integers("finn")
    for step in network.steps:
        for operation in step.operations:
            if operation.op not in _LIMITS:
                _refuse(step.name, _OTHERS.get(operation.op, "FINN has no such layer"), f"{operation.op} {operation.node!r}")
            _LIMITS[operation.op](step, operation, network)
        _check_rounding(step, network)
    for tensor in network.tensors.values():
        if tensor.bits > MOST_BITS and tensor.role != "bias":
            _refuse(_layer_of(tensor, network), f"at most {MOST_BITS} bits are expected", f"{tensor.value!r} of {tensor.bits} bits")


def _refuse(layer: str, limit: str, received: str) -> None:
    raise UnsupportedError(f"target finn: layer {layer!r}: {limit}. Received: {received}")


def _layer_of(tensor: Tensor, network: IntegerNetwork) -> str:
    steps = (step for step in network.steps if step.output == tensor.name or tensor.name in step.reads)
    return next((step.name for step in steps), tensor.value)


def _check_rounding(step: Step, network: IntegerNetwork) -> None:
    """A threshold layer: directly behind a sum that float32 holds, or a relu."""
    for operation in step.operations:
        adds = operation.op in SUMS or operation.op == "Add"
        if adds and (operation.bound is None or operation.bound >= MOST_SUM):
            _refuse(step.name, "its sums must stay below 2^24, which is what FINN's float32 holds", f"{operation.bound}")
    moves = [operation for operation in step.operations if operation.op not in {*SUMS, "Add", "Relu"}]
    if moves and not is_exact_copy(step, network):
        _refuse(
            step.name, "a rounding directly behind a sum or a relu is expected", f"{moves[-1].op} {moves[-1].node!r} in between"
        )


def _convolution(step: Step, operation: Operation, network: IntegerNetwork) -> None:
    data, weights = _factors(step, operation, network)
    a, channels = operation.attributes, operation.shape[1]
    if len(operation.shape) != 4:
        _refuse(step.name, "images of two dimensions are expected", f"shape {list(operation.shape)}")
    if a["group"] not in {1, channels} or (a["group"] != 1 and weights.shape[1] != 1):
        _refuse(step.name, "one group, or as many as channels in and out, are expected", f"{a['group']} groups")
    if a["group"] == channels and a["group"] != 1 and data[1] != channels:
        _refuse(step.name, "a depthwise layer with as many channels out as in is expected", f"{data[1]} in, {channels} out")
    if any(length == 1 and taps > 1 for length, taps in zip(data[2:], a["kernel_shape"], strict=True)):
        _refuse(step.name, "a kernel of one tap is expected along an axis of one element (Im2Col)", f"{list(data[2:])}")
    if max(a["kernel_shape"]) == 1 and max(a["strides"]) > 1 and (data[2] != data[3] or len(set(a["strides"])) > 1):
        _refuse(step.name, "a 1x1 kernel with a stride needs a square image and one stride", f"{list(data)}, {a['strides']}")


def _product(step: Step, operation: Operation, network: IntegerNetwork) -> None:
    data, _ = _factors(step, operation, network)
    if operation.attributes.get("transA") or len(data) != 2:
        _refuse(step.name, "vectors of features, one an example, are expected", f"shape {list(data)}")


def _factors(step: Step, operation: Operation, network: IntegerNetwork) -> tuple[tuple[int | None, ...], Tensor]:
    """Shape of the data, and the constant weights."""
    weights = network.tensors.get(operation.inputs[1])
    if weights is None or weights.integers is None:
        _refuse(step.name, "constant weights are expected", f"{operation.inputs[1]!r}, which is computed")
    assert weights is not None
    return _shape_of(operation.inputs[0], step, network), weights


def _sum(step: Step, operation: Operation, network: IntegerNetwork) -> None:
    first, *others = _tensors(step, operation, network)
    if any(operation.shifts):
        _refuse(
            step.name, "summands of one scale are expected", f"{operation.op} {operation.node!r} with shifts {operation.shifts}"
        )
    for other in others:
        if other.shape != first.shape:
            received = f"{operation.op} {operation.node!r} of {list(first.shape)} and {list(other.shape)}"
            _refuse(step.name, "summands of one shape are expected", received)


def _concat(step: Step, operation: Operation, network: IntegerNetwork) -> None:
    _tensors(step, operation, network)
    axis, rank = operation.attributes["axis"] % len(operation.shape), len(operation.shape)
    if axis != 1 or rank not in {2, 4}:
        _refuse(step.name, "a concatenation of channels is expected", f"axis {axis} of shape {list(operation.shape)}")


def _tensors(step: Step, operation: Operation, network: IntegerNetwork) -> list[Tensor]:
    """The inputs, all of them computed tensors of one width and sign."""
    found = [network.tensors[name] for name in operation.inputs if name in network.tensors]
    if len(found) < len(operation.inputs) or any(tensor.integers is not None for tensor in found):
        _refuse(
            step.name, f"rounded tensors are expected as inputs of {operation.op} {operation.node!r}", ", ".join(operation.inputs)
        )
    kinds = {f"{'' if tensor.signed else 'u'}int{tensor.bits}" for tensor in found}
    if len(kinds) > 1:
        received = f"{operation.op} {operation.node!r} of {' and '.join(sorted(kinds))}"
        _refuse(step.name, "inputs of one width and sign are expected", received)
    return found


def _max_pool(step: Step, operation: Operation, network: IntegerNetwork) -> None:
    a = operation.attributes
    source = network.tensors.get(operation.inputs[0])
    if len(operation.shape) != 4 or source is None:
        _refuse(step.name, "a max pool of a rounded image is expected", f"shape {list(operation.shape)}")
    assert source is not None
    if source.signed and any(a["pads"]):
        _refuse(step.name, "a max pool with padding needs unsigned integers: FINN pads with 0", f"{source.value!r}, signed")
    if max(a["dilations"]) > 1 or any(kernel < stride for kernel, stride in zip(a["kernel_shape"], a["strides"], strict=True)):
        _refuse(step.name, "windows without gaps are expected", f"{a['kernel_shape']}, {a['strides']}, {a['dilations']}")


def _transpose(step: Step, operation: Operation, _network: IntegerNetwork) -> None:
    if operation.attributes["perm"] not in LAYOUTS:
        _refuse(step.name, "a Transpose between NHWC and NCHW is expected", f"{operation.attributes['perm']}")


def _reshape(step: Step, operation: Operation, network: IntegerNetwork) -> None:
    before, after = _shape_of(operation.inputs[0], step, network), operation.shape
    if not flattens(before, after) and transposition(before, after) is None:
        _refuse(step.name, "a Reshape to one vector an example is expected", f"{list(before)} to {list(after)}")


def _enlarge(step: Step, operation: Operation, network: IntegerNetwork) -> None:
    before, after = _shape_of(operation.inputs[0], step, network), operation.shape
    sizes = [size for size in (*before[2:], *after[2:]) if size is not None]
    if operation.attributes.get("mode") != "nearest" or len(sizes) != 4 or sizes[0] != sizes[1] or sizes[2] != sizes[3]:
        _refuse(step.name, "repetition of a square image in both directions is expected", f"{list(before)} to {list(after)}")


def _relu(step: Step, operation: Operation, network: IntegerNetwork) -> None:
    output = network.tensors[step.output]
    if output.signed:
        _refuse(step.name, "behind a relu an unsigned tensor is expected", f"{output.value!r} of {output.bits} signed bits")
    if any(operation.output in reader.inputs and reader.op != "Relu" for reader in step.operations):
        _refuse(step.name, "a rounding directly behind a relu is expected", f"Relu {operation.node!r}")


def _anything(_step: Step, _operation: Operation, _network: IntegerNetwork) -> None:
    pass


def _shape_of(name: str, step: Step, network: IntegerNetwork) -> tuple[int | None, ...]:
    tensor = network.tensors.get(name)
    return tensor.shape if tensor is not None else next(item.shape for item in step.operations if item.output == name)


_LIMITS: Final[dict[str, Callable[[Step, Operation, IntegerNetwork], None]]] = {
    "Add": _sum,
    "Concat": _concat,
    "Conv": _convolution,
    "Flatten": _reshape,
    "Gemm": _product,
    "Identity": _anything,
    "MatMul": _product,
    "MaxPool": _max_pool,
    "Relu": _relu,
    "Reshape": _reshape,
    "Resize": _enlarge,
    "Squeeze": _reshape,
    "Transpose": _transpose,
}
"""Operator -> what FINN asks of it; others are refused."""
