"""Whether a network computes each example alone: then a batch computed at once is the examples one by one.

Every value must be one row for each example, `[N, ...]` with all other axes known, and no operation may mix rows. By induction over
the operations, row `i` then depends on example `i` only. What is not known to be so is run example by example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Final

from ..integers.network import IntegerNetwork, Operation

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class _Value:
    """What an operation reads or computes; `stored` where it is a constant."""

    shape: Shape
    stored: bool

    @property
    def is_rows(self) -> bool:
        """One row for each example."""
        return not self.stored and self.shape[:1] == (None,) and None not in self.shape[1:]


def rows_are_examples(network: IntegerNetwork) -> bool:
    """Whether every tensor that is no constant has one row for each example, whatever the other examples are.

    False where a float part is quantized again: it may do anything, and its floats may depend on how many there are.
    """
    values = {name: _Value(tensor.shape, tensor.kind == "constant") for name, tensor in network.tensors.items()}
    if any(tensor.kind == "from_float" for tensor in network.tensors.values()):
        return False
    for step in network.steps:
        for operation in step.operations:
            reads, result = [values[name] for name in operation.inputs], _Value(operation.shape, stored=False)
            keeps = _KEEPS.get(operation.op)
            if keeps is None or not result.is_rows or not keeps(operation, reads):
                return False
            values[operation.output] = result
    return all(value.is_rows or value.stored for value in values.values())


def _first(_operation: Operation, reads: list[_Value]) -> bool:
    """Data come first, everything else is a constant."""
    return not reads[0].stored and all(value.stored for value in reads[1:])


def _broadcast(operation: Operation, reads: list[_Value]) -> bool:
    """No axis but the first is aligned to the examples, and constants are the same for each of them."""
    rank = len(operation.shape)
    return all((value.stored and len(value.shape) < rank) or _is_same_for_all(value, rank) for value in reads)


def _is_same_for_all(value: _Value, rank: int) -> bool:
    return len(value.shape) == rank and (not value.stored or value.shape[0] == 1)


def _product(operation: Operation, reads: list[_Value]) -> bool:
    """Rows times a matrix, or a stack of matrices times another; a bias is the same for each row."""
    if operation.attributes.get("transA") or reads[0].stored:
        return False
    rank = len(operation.shape)
    left, right, *bias = reads
    stacks = rank > 2 and len(left.shape) == len(right.shape) == rank and not right.stored
    matrix = len(left.shape) == rank > 1 and len(right.shape) == 2 and right.stored
    return (stacks or matrix) and all(value.stored and (len(value.shape) < 2 or value.shape[0] == 1) for value in bias)


def _joined(operation: Operation, reads: list[_Value]) -> bool:
    return operation.attributes["axis"] % len(operation.shape) != 0 and not any(value.stored for value in reads)


def _reshaped(operation: Operation, reads: list[_Value]) -> bool:
    """As many numbers in each row as before."""
    return prod(size or 0 for size in reads[0].shape[1:]) == prod(size or 0 for size in operation.shape[1:]) > 0


def _along(operation: Operation, reads: list[_Value]) -> bool:
    """Axes that are named, the first is none of them."""
    axes = operation.attributes.get("axes")
    return axes is not None and all(axis % len(reads[0].shape) for axis in axes)


def _padded(operation: Operation, _reads: list[_Value]) -> bool:
    rank = len(operation.shape)
    axes, pads = operation.attributes.get("axes", range(rank)), operation.attributes["pads"]
    widths = [(pads[place], pads[place + len(axes)]) for place, axis in enumerate(axes) if axis % rank == 0]
    return not any(any(width) for width in widths)


def _always(_operation: Operation, _reads: list[_Value]) -> bool:
    return True


_KEEPS: Final[dict[str, Callable[[Operation, list[_Value]], bool]]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _first),
    **dict.fromkeys(("Gemm", "MatMul"), _product),
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min"), _broadcast),
    **dict.fromkeys(("Relu", "Clip", "Table", "Identity", "MaxPool", "DepthToSpace", "SpaceToDepth"), _always),
    **dict.fromkeys(("Reshape", "Flatten"), _reshaped),
    **dict.fromkeys(("Slice", "Squeeze"), _along),
    "Concat": _joined,
    "Gather": lambda operation, reads: operation.attributes["axis"] % len(reads[0].shape) != 0,
    "Pad": _padded,
    "Resize": lambda operation, _reads: operation.attributes.get("scales", [0])[0] == 1,
    "Tile": lambda operation, _reads: operation.attributes["repeats"][0] == 1,
    "Transpose": lambda operation, _reads: operation.attributes["perm"][0] == 0,
    "Unsqueeze": lambda operation, _reads: all(axis % len(operation.shape) for axis in operation.attributes["axes"]),
}
"""Operation -> whether its rows are those of what it reads, given that those are rows of examples."""
