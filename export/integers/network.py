"""A quantized network as hardware sees it: integer tensors, and steps of integer arithmetic between them (H6).

Every step reads integer tensors, computes in wider integers, and ends in one rounding: a shift, ties to even, and a saturation.
Nothing here knows ONNX nodes; `reading` makes it from a Q/DQ model, and exporters write it in their target's form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ...ir import Contract, Role, UnsupportedError

Kind = Literal["input", "constant", "computed", "from_float"]

MOVES: Final = frozenset(
    {
        *("Concat", "DepthToSpace", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Resize", "Slice"),
        *("SpaceToDepth", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""Operations that only move, select or repeat integers (and fill in a constant: Pad)."""

SUMS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operations that multiply and accumulate."""


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One integer tensor.

    Attributes:
        name: of the integers, as in the Q/DQ model (`v__q`).
        value: of the float value they stand for, `v = integers * 2^exponent`.
        kind: an input of the network (rounded from floats, Q1), a constant, computed by a step, or quantized from what a
            float part computed.
        source: node of the TensorFlow graph it came from, where that is known.
        role: what it is to the network; None for a copy on the scale of what it is copied from.
        bits: width of the quantizer.
        signed: two's complement or unsigned.
        exponent: binary logarithm of the scale.
        lower: smallest integer that can occur.
        upper: largest one; below that of the type behind a relu6 (L2).
        shape: None where an axis is open; the batch comes first, except in constants.
        integers: of a constant, int64 of that shape; else None.
    """

    name: str
    value: str
    kind: Kind
    source: str | None
    role: Role | None
    bits: int
    signed: bool
    exponent: int
    lower: int
    upper: int
    shape: tuple[int | None, ...]
    integers: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator on integers; it never rounds.

    Attributes:
        op: of `SUMS`, `MOVES`, or Add, Sub, Mul, Max, Min, Relu, Clip, MaxPool, Table: the ONNX operator of that name, on integers.
        node: its name in the model.
        source: node of the TensorFlow graph, where that is known.
        inputs: names of tensors, or outputs of operations of the same step in front of it.
        shifts: left shift of each input that puts all of them on the grid of the result; of a Conv, Gemm or Mul all are 0, and
            the exponents of the factors add up. A bias (third input) is on the grid of the sum.
        output: name of what it computes, the float value's name in the model.
        exponent: binary logarithm of the scale of the result.
        shape: of the result, None where an axis is open; batch first.
        attributes: everything else, as plain Python numbers, strings and lists, defaults filled in: `strides`, `dilations`,
            `pads`, `group`, `kernel_shape` (Conv, ConvTranspose, MaxPool; ConvTranspose also `output_padding`),
            `transA`, `transB` (Gemm), `axis` (Concat, Gather, Flatten), `perm`, `shape`, `axes`, `starts`, `ends`, `steps`,
            `indices`, `repeats`, `blocksize`, `mode`, `scales`; `value` (Pad: the integer filled in), `low` and `high` (Clip,
            None where there is no bound), `first` and `entries` (Table: entry `i` belongs to the integer `first + i`; entries are
            integers on the output grid, rounded already).
        bound: largest magnitude that any partial sum (of a Mul, any product) can have, in units of the result; None if unknown.
    """

    op: str
    node: str
    source: str | None
    inputs: tuple[str, ...]
    shifts: tuple[int, ...]
    output: str
    exponent: int
    shape: tuple[int | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    bound: int | None = None

    @property
    def accumulator_bits(self) -> int | None:
        """Width of a two's complement accumulator that holds every partial sum."""
        return None if self.bound is None else self.bound.bit_length() + 1


@dataclass(frozen=True, slots=True)
class Step:
    """What computes one integer tensor from others.

    `integers = clip(round(result / 2^shift), lower, upper)`, ties to even (Q1, Q2); a negative shift is a left shift.

    Attributes:
        name: of the step: the node that does the work in it, the last one where none multiplies.
        source: node of the TensorFlow graph, where that is known.
        operations: in order; none where a tensor is only brought to another scale.
        result: what is rounded: the last operation's output, or the tensor that is rescaled.
        output: name of the tensor it computes.
        shift: exponent of the tensor minus that of the result.
    """

    name: str
    source: str | None
    operations: tuple[Operation, ...]
    result: str
    output: str
    shift: int

    @property
    def reads(self) -> tuple[str, ...]:
        """Tensors that it reads, constants included, in order."""
        return _reads(self.operations) or (self.result,)

    @property
    def is_copy(self) -> bool:
        """Whether it only moves or selects integers: nothing is rounded."""
        selecting = MOVES | {"MaxPool", "Relu"}
        return self.shift == 0 and all(operation.op in selecting for operation in self.operations)


@dataclass(frozen=True, slots=True)
class Unrounded:
    """What leaves the integer part without a rounding: a step that ends at its result.

    Attributes:
        operations: in order; the last one computes what an output or a float part reads, under the float value's name.
    """

    operations: tuple[Operation, ...]

    @property
    def last(self) -> Operation:
        """What computes the result."""
        return self.operations[-1]

    @property
    def reads(self) -> tuple[str, ...]:
        """Tensors that it reads, constants included, in order."""
        return _reads(self.operations)


@dataclass(frozen=True, slots=True)
class FloatPart:
    """A node that is computed in floating point.

    Attributes:
        node: its name.
        op: its operator.
        reason: why.
        is_tail: whether nothing behind it is quantized again, as behind a Softmax (L8).
    """

    node: str
    op: str
    reason: str
    is_tail: bool


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the network.

    Attributes:
        name: in the model.
        tensor: its integers; None for an output that a float part computes.
        shape: None where an axis is open.
    """

    name: str
    tensor: str | None
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class IntegerNetwork:
    """A quantized network in integers.

    Attributes:
        contract: `layer16` or `layer32`.
        tensors: by name, in topological order.
        steps: in topological order.
        inputs: of the network, in the model's order; `tensor` is what the float input is rounded to.
        outputs: of the network, in the model's order.
        ends: integer tensors that leave the integer part: behind outputs, and those that float parts read.
        float_parts: what is computed in floating point.
        unrounded: results that an output or a float part reads, with no rounding in between.
    """

    contract: Contract
    tensors: Mapping[str, Tensor]
    steps: tuple[Step, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    ends: tuple[str, ...]
    float_parts: tuple[FloatPart, ...]
    unrounded: tuple[Unrounded, ...] = ()

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """Weights, biases, reciprocals, slopes."""
        return tuple(tensor for tensor in self.tensors.values() if tensor.kind == "constant")

    def require_integers(self, target: str) -> None:
        """Refuses what is not integers from the inputs to the last layer: only a float tail (Softmax) can be left to the host.

        Raises:
            UnsupportedError: naming the first node that is in the way.
        """
        for part in self.float_parts:
            if not part.is_tail:
                raise UnsupportedError(
                    f"target {target}: node {part.node!r} is computed in floating point ({part.reason}), and what follows is "
                    f"quantized again; integers from the input to the last layer are expected. Received: {part.op}"
                )
        for handed_on in self.unrounded:
            raise UnsupportedError(
                f"target {target}: layer {handed_on.last.node!r} is handed on without being rounded; a quantized output, or a tail "
                f"that reads quantized tensors, is expected. Received: {handed_on.last.op}"
            )
        if not self.ends:
            raise UnsupportedError(
                f"target {target}: nothing is computed in integers; a network with a quantized output is expected. "
                f"Received: {len(self.float_parts)} nodes in floating point"
            )


def _reads(operations: tuple[Operation, ...]) -> tuple[str, ...]:
    """What operations read that none of them computes, in order."""
    own = {operation.output for operation in operations}
    return tuple(dict.fromkeys(name for operation in operations for name in operation.inputs if name not in own))
