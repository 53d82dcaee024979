"""How an operator changes when its inputs come in another order of axes.

    F(transpose(x, q))  =  transpose(F'(x), q')

`move_of` gives F' and q' for the operators that have one: element by element, along an axis, per axis. With this one
question answered, transposes travel in both directions (`sink-transposes`).

    axis a of transpose(x, q) is axis q[a] of x
    a constant k broadcast against transpose(x, q) is transpose(k, inverse(q)) against x
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir

from ..ir import attribute, constant
from .layers import rank_of
from .mean_to_global_average_pool import reduced_axes
from .rewriting import Array, is_op

Perm = tuple[int, ...]


@dataclass(frozen=True)
class Move:
    """What turns F into F'.

    Attributes:
        perm: q', the order of axes of the outputs.
        data: positions of the inputs that carry the order of axes and must all come transposed.
        constants: new constants by input position.
        attributes: new values of attributes.
    """

    perm: Perm
    data: tuple[int, ...] = (0,)
    constants: dict[int, Array] = field(default_factory=dict)
    attributes: dict[str, int | Sequence[int]] = field(default_factory=dict)


def inverse(perm: Perm) -> Perm:
    """The order that undoes `perm`."""
    return tuple(int(axis) for axis in np.argsort(perm))


def move_of(node: onnx_ir.Node, perm: Perm) -> Move | None:
    """How `node` changes when its data inputs lose `transpose(., perm)`; None where it has no such form."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _MOVES:
        return None
    return _MOVES[node.op_type](node, perm)


def _unary(_: onnx_ir.Node, perm: Perm) -> Move | None:
    return Move(perm)


def _broadcast(node: onnx_ir.Node, perm: Perm) -> Move | None:
    """Operands that are not constant must be transposed; constants are transposed back here."""
    data, constants = [], {}
    for index, value in enumerate(node.inputs):
        array = constant(value)
        if array is None:
            if rank_of(value) != len(perm):
                return None
            data.append(index)
        elif array.ndim > len(perm):
            return None
        elif array.size != 1:
            full = array.reshape((1,) * (len(perm) - array.ndim) + array.shape).transpose(inverse(perm))
            while full.ndim > 1 and full.shape[0] == 1:
                full = full[0]
            constants[index] = np.ascontiguousarray(full)
    return Move(perm, tuple(data), constants) if data else None


def _axis(default: int | None) -> Callable[[onnx_ir.Node, Perm], Move | None]:
    def move(node: onnx_ir.Node, perm: Perm) -> Move | None:
        axis = attribute(node, "axis", default)
        data = tuple(range(len(node.inputs))) if is_op(node, "Concat") else (0,)
        return Move(perm, data, {}, {"axis": perm[axis % len(perm)]})

    return move


def _reduce(node: onnx_ir.Node, perm: Perm) -> Move | None:
    """Reductions and Squeeze: the axes that stay keep their order among themselves."""
    squeezes = is_op(node, "Squeeze")
    if squeezes and len(node.inputs) < 2:
        return None
    axes = (attribute(node, "axis", 0) % len(perm),) if is_op(node, "ArgMax", "ArgMin") else reduced_axes(node)
    if axes is None or rank_of(node.inputs[0]) != len(perm):
        return None
    moved = sorted(perm[axis] for axis in axes)
    result = perm
    if squeezes or not attribute(node, "keepdims", 1):
        staying = [axis for axis in range(len(perm)) if axis not in moved]
        result = tuple(staying.index(perm[axis]) for axis in range(len(perm)) if axis not in axes)
    if is_op(node, "ArgMax", "ArgMin"):
        return Move(result, attributes={"axis": moved[0]})
    if "axes" in node.attributes:
        return Move(result, attributes={"axes": moved})
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return Move(result)
    return Move(result, constants={1: np.asarray(moved, np.int64)})


def _pad(node: onnx_ir.Node, perm: Perm) -> Move | None:
    pads = constant(node.inputs[1])
    if pads is None:
        return None
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        return _listed_axes(node, perm, 3)
    moved = pads.reshape(2, len(perm))[:, list(inverse(perm))].reshape(-1)
    return Move(perm, constants={1: np.ascontiguousarray(moved)})


def _slice(node: onnx_ir.Node, perm: Perm) -> Move | None:
    return _listed_axes(node, perm, 3)


def _gather(node: onnx_ir.Node, perm: Perm) -> Move | None:
    """Constant positions of one axis, which stays where it is."""
    indices = constant(node.inputs[1])
    if indices is None or indices.ndim != 1 or constant(node.inputs[0]) is not None:
        return None
    return Move(perm, attributes={"axis": perm[attribute(node, "axis", 0) % len(perm)]})


def _per_axis(index: int) -> Callable[[onnx_ir.Node, Perm], Move | None]:
    """Operators with one number per axis in input `index`, and no other input: repeats of a Tile, scales of a Resize."""

    def move(node: onnx_ir.Node, perm: Perm) -> Move | None:
        numbers = constant(node.inputs[index]) if len(node.inputs) > index else None
        others = (value for position, value in enumerate(node.inputs[1:], start=1) if position != index)
        listed = attribute(node, "axes", None) is not None
        if numbers is None or numbers.size != len(perm) or listed or any(value is not None for value in others):
            return None
        return Move(perm, constants={index: np.ascontiguousarray(numbers[list(inverse(perm))])})

    return move


def _listed_axes(node: onnx_ir.Node, perm: Perm, index: int) -> Move | None:
    axes = constant(node.inputs[index]) if len(node.inputs) > index else None
    if axes is None:
        return None
    return Move(perm, constants={index: np.asarray([perm[int(axis) % len(perm)] for axis in axes], axes.dtype)})


_ELEMENTWISE = (
    *("Abs", "Cast", "Ceil", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity"),
    *("LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign"),
    *("Sqrt", "Tanh", "ThresholdedRelu"),
)
_BROADCAST = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "PRelu", "Sum", "Mean")
_REDUCE = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ArgMax", "ArgMin", "Squeeze")

_MOVES: dict[str, Callable[[onnx_ir.Node, Perm], Move | None]] = {
    **dict.fromkeys(_ELEMENTWISE, _unary),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(_REDUCE, _reduce),
    "Softmax": _axis(-1),
    "LogSoftmax": _axis(-1),
    "Concat": _axis(None),
    "Split": _axis(0),
    "Pad": _pad,
    "Slice": _slice,
    "Gather": _gather,
    "Tile": _per_axis(1),
    "Resize": _per_axis(2),
}
