"""Whether the operators of a TFLite file are the steps of a network: the same integers, the same scales, one rounding each.

What TF's converter makes of a graph is its own affair; it joins and drops operators. So every step that rounds has to be found
again in the file, and nothing may be left over there that rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...ir import UnsupportedError
from ..integers.network import MOVES, IntegerNetwork, Operation, Step, Tensor
from .geometry import has_geometry
from .weights import Held
from .wiring import FileWiring, NetworkWiring, Origins, grid, reals

Operators = Sequence[Mapping[str, Any]]
"""As `backend_tf.tflite_reading.operators_of` gives them."""

KERNELS: Final[dict[str, frozenset[str]]] = {
    "Conv": frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}),
    "ConvTranspose": frozenset({"TRANSPOSE_CONV"}),
    "Gemm": frozenset({"FULLY_CONNECTED", "CONV_2D"}),
    "MatMul": frozenset({"FULLY_CONNECTED", "BATCH_MATMUL"}),
    "Add": frozenset({"ADD"}),
    "Sub": frozenset({"SUB"}),
    "Mul": frozenset({"MUL"}),
    "Table": frozenset({"GATHER"}),
}
"""Operation that computes -> the operators of TFLite that may stand for it."""

RESCALE: Final = frozenset({"MUL"})
"""A step that only brings a tensor to another scale is a product with one."""

_ORDERED: Final = frozenset({"Sub", "MatMul"})
"""Operations of two tensors whose operands may not be exchanged."""

_SELECTING: Final = frozenset(
    {
        *("BATCH_TO_SPACE_ND", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE", "EXPAND_DIMS", "GATHER", "GATHER_ND"),
        *("MAXIMUM", "MAX_POOL_2D", "MINIMUM", "MIRROR_PAD", "PACK", "PAD", "PADV2", "RELU", "RELU6", "RESHAPE"),
        *("RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "SLICE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V"),
        *("SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK"),
    }
)
"""Operators of TFLite that move and select: they may be anywhere, as long as the scale stays."""


def worker(step: Step) -> Operation | None:
    """The operation of a step that computes; None where it only moves, selects and rescales."""
    return next((operation for operation in step.operations if operation.op in KERNELS), None)


def audit(network: IntegerNetwork, held: Mapping[str, Held], operators: Operators) -> dict[str, int]:
    """Finds every step that rounds in the file, between the steps that it is between in the network.

    Args:
        network: in integers.
        held: its weights as they were written.
        operators: of the file.

    Returns:
        Output tensor of the step -> index of its operator.

    Raises:
        UnsupportedError: a step that is not there as it is, or an operator in the file that rounds and is no step's.
    """
    free = {index for index, operator in enumerate(operators) if _is_integer(operator)}
    search = _Search(network, held, operators)
    rescales: dict[Any, int] = {}
    for step in network.steps:
        operation = worker(step)
        if operation is None and not _changes_grid(step, network):
            continue
        index = next((index for index in sorted(free) if search.is_step(operators[index], step, operation)), None)
        twin = (step.reads, _grid_of(network.tensors[step.output]))
        if index is None and operation is None:  # two tensors that are brought to one scale from one are one operator
            index = rescales.get(twin)
        if index is None:
            raise UnsupportedError(
                f"target tflite: layer {step.name!r}: TF's converter does not keep it as one operator with the geometry, the "
                "operands, the scale and the integers of the model. "
                f"Received: {'a change of scale' if operation is None else operation.op}"
            )
        free.discard(index)
        search.found[step.output] = index
        rescales |= {twin: index} if operation is None else {}
    for index in sorted(free):
        operator = operators[index]
        if operator["op"] not in _SELECTING or not _keeps_scale(operator):
            raise UnsupportedError(
                f"target tflite: tensor {operator['outputs'][0]['name']!r}: TF's converter puts a {operator['op']} there that the "
                f"model does not have, with a rounding of its own. Received: {operator['op']}"
            )
    search.check_ends()
    return search.found


def _changes_grid(step: Step, network: IntegerNetwork) -> bool:
    """Whether a step that only moves and selects changes the scale or the sign; bounds are put on the grid there is."""
    output = network.tensors[step.output]
    read = [network.tensors[name] for name in step.reads if network.tensors[name].integers is None]
    return any(_grid_of(tensor) != _grid_of(output) for tensor in read)


def _is_integer(operator: Mapping[str, Any]) -> bool:
    """Whether it computes int8 of int8: not the float ends, not what a float tail does."""
    return any(tensor["type"] == "int8" for tensor in operator["outputs"]) and operator["inputs"][0]["type"] != "float32"


def _keeps_scale(operator: Mapping[str, Any]) -> bool:
    tensors = [tensor for tensor in (*operator["inputs"], *operator["outputs"]) if tensor is not None and tensor["type"] == "int8"]
    return all(grid(tensor) == grid(tensors[0]) for tensor in tensors)


def _grid_of(tensor: Tensor) -> tuple[tuple[float, ...], int]:
    return (2.0**tensor.exponent,), 0 if tensor.signed else -128


class _Search:
    """The operators of a file, and the steps of a network that were found there so far."""

    def __init__(self, network: IntegerNetwork, held: Mapping[str, Held], operators: Operators) -> None:
        self.found: dict[str, int] = {}
        self._network, self._held, self._operators = network, held, operators
        self._makers = {tensor["index"]: operator for operator in operators for tensor in operator["outputs"]}
        self._there, self._here = FileWiring(operators, _SELECTING), NetworkWiring(network, self.found)

    def is_step(self, operator: Mapping[str, Any], step: Step, operation: Operation | None) -> bool:
        """Whether an operator reads and writes the step's tensors on their scales, with its geometry and its constants."""
        tensors = self._network.tensors
        if operator["op"] not in (RESCALE if operation is None else KERNELS[operation.op]):
            return False
        if grid(operator["outputs"][0]) != _grid_of(tensors[step.output]):
            return False
        inputs = operator["inputs"]
        if operation is None:
            of_step = {source for source, _, _ in self._here.inside(step, step.result)}
            read = grid(inputs[0]) == _grid_of(tensors[step.reads[0]]) and _is_one(inputs[1])
            return read and {source for source, _, _ in self._origins(inputs[0])} == of_step
        if operation.op == "Table":
            return self._is_table(inputs, step, operation)
        operands = [tensors[name] for name in _tensors_behind(step, operation, self._network)]
        if operation.op == "ConvTranspose":  # its first input is the shape of the result
            inputs = [inputs[2], inputs[1], *inputs[3:]]
        if not has_geometry(operator, operation, self._shape(step, operation), self._pad(inputs[0])):
            return False
        if operands[1].name in self._held:
            bias = operands[2].integers if len(operands) > 2 else None
            weights = self._held[operands[1].name]
            return self._is_operand(inputs[0], operands[0], step, operation.inputs[0]) and _are_weights(
                inputs[1:], weights, bias, operands[0]
            )
        given = list(zip(operands, operation.inputs, strict=True))
        return any(
            all(self._is_operand(tensor, operand, step, name) for tensor, (operand, name) in zip(inputs, order, strict=False))
            for order in ([given] if operation.op in _ORDERED else [given, given[::-1]])
        )

    def check_ends(self) -> None:
        """Whether what leaves the integers in the file is what leaves them in the network.

        Raises:
            UnsupportedError: something else does.
        """
        tables = [operation.inputs[0] for step in self._network.steps for operation in step.operations if operation.op == "Table"]
        leaving = {self._origins(one["inputs"][0]) for one in self._operators if one["op"] == "DEQUANTIZE"}
        ends = {name: self._here.of(name) for name in self._network.ends}
        allowed = {*ends.values(), *(self._here.of(name) for name in tables if name in self._network.tensors)}
        for name, origins in ends.items():
            if origins not in leaving:
                raise UnsupportedError(
                    f"target tflite: tensor {name!r}: TF's converter does not hand it on with the operands and the bounds of the "
                    f"model. Received: {len(leaving)} others"
                )
        if not leaving <= allowed:
            raise UnsupportedError(
                f"target tflite: tensor {', '.join(ends)!r}: TF's converter hands on others, too. "
                f"Received: {len(leaving - allowed)} others"
            )

    def _origins(self, tensor: Mapping[str, Any]) -> Origins:
        return self._there.of(tensor, self.found.values())

    def _is_operand(self, tensor: Mapping[str, Any], operand: Tensor, step: Step, name: str) -> bool:
        if grid(tensor) != _grid_of(operand):
            return False
        if operand.integers is not None:
            held = np.unique(operand.integers * 2.0**operand.exponent)
            return tensor["constant"] is not None and np.array_equal(reals(tensor), held)
        return self._origins(tensor) == self._here.inside(step, name)

    def _is_table(self, inputs: Sequence[Any], step: Step, operation: Operation) -> bool:
        output, (name,) = self._network.tensors[step.output], operation.inputs[:1]
        entries = np.asarray(operation.attributes["entries"]) - (0 if output.signed else 128)
        position = self._there.position(inputs[1])
        if position is None or not np.array_equal(inputs[0]["constant"], entries):
            return False
        tensor, factor, first = position
        is_read = factor * tensor["scales"][0] == 1 and first == operation.attributes["first"]
        return bool(is_read) and self._origins(tensor) == self._here.inside(step, name)

    def _shape(self, step: Step, operation: Operation) -> tuple[int | None, ...]:
        name = operation.inputs[0]
        return next((made.shape for made in step.operations if made.output == name), None) or self._network.tensors[name].shape

    def _pad(self, tensor: Mapping[str, Any]) -> Mapping[str, Any] | None:
        maker = self._makers.get(tensor["index"])
        return maker if maker is not None and maker["op"] == "PAD" else None


def _tensors_behind(step: Step, operation: Operation, network: IntegerNetwork) -> Iterator[str]:
    """The tensor that each operand is, through what only moves it."""
    makers = {made.output: made for made in step.operations}
    for operand in operation.inputs:
        name = operand
        while name not in network.tensors:
            name = makers[name].inputs[0]
        yield name


def _is_one(tensor: Mapping[str, Any]) -> bool:
    constant = tensor["constant"]
    return constant is not None and tensor["zero_point"] == 0 and bool((constant * tensor["scales"][0] == 1).all())


def _are_weights(tensors: Sequence[Any], held: Held, bias: npt.NDArray[np.int64] | None, x: Tensor) -> bool:
    weights, added = tensors[0], tensors[1] if len(tensors) > 1 else None
    if weights["constant"] is None or weights["zero_point"] or set(weights["scales"].tolist()) != {held.scale}:
        return False
    if not any(np.array_equal(weights["constant"].ravel(), layout.ravel()) for layout in _layouts(held.integers)):
        return False
    wanted = np.zeros(1, np.int64) if bias is None else held.scaled(bias)
    if added is None:
        return not wanted.any()
    on_scale = set(added["scales"].tolist()) == {held.scale * 2.0**x.exponent}
    return on_scale and added["constant"] is not None and bool((added["constant"] == wanted).all())


def _layouts(weights: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """How TFLite may store a weight: `[out, H, W, in]`, `[1, H, W, channels]`, `[out, in]`."""
    if weights.ndim == 4:
        yield weights.transpose(0, 2, 3, 1)
        yield weights.transpose(1, 2, 3, 0)
    else:
        yield np.swapaxes(weights, -1, -2)


MOVED: Final = MOVES | {"MaxPool", "Relu", "Clip", "Max", "Min"}
"""Operations beside those of `KERNELS` that a step may hold."""
