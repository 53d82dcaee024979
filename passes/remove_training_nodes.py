"""Nodes that matter in training only go.

    y = Dropout(x, ratio, training_mode)                    =>      y = x
    y = x * (1/keep) * Floor(keep + RandomUniform)          =>      y = x       TensorFlow 1
    y = Where(RandomUniform >= rate, x * (1/keep), 0)       =>      y = x       TensorFlow 2
    BatchNormalization(training_mode=1)                     =>      the same with its recorded statistics (B0)

Dropout scales what it keeps by 1/keep, so that its mean is x: at inference it is the identity. The random forms are
recognised by their structure, from the generator of random numbers on; what else reads random numbers stays and is
named when the model is quantized.

Refused: a Dropout whose mask is read, a batch norm whose batch statistics are read, and a dropout between two names
that must both stay (O3).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, Final

import onnx_ir

from ..ir import attribute, constant
from .rewriting import bypass, is_op, operand_pair, refuse, rewrite_each

logger = logging.getLogger(__name__)

_SAME: Final = 1e-5
"""Relative difference within which a factor counts as 1/keep: both are rounded to float32."""


@dataclass(frozen=True)
class RemoveTrainingNodes:
    """Removes dropout in every form and takes batch norms out of training mode."""

    name: ClassVar[str] = "remove-training-nodes"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        modified = rewrite_each(model.graph, _remove_dropout, "Dropout")
        modified |= rewrite_each(model.graph, _end_training, "BatchNormalization")
        masks = kept_shares(model.graph)
        return modified | rewrite_each(model.graph, lambda _, node: _remove_random_dropout(node, masks), "Mul", "Where")


def _remove_dropout(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    if any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
        return refuse(logger, node, "its mask is read")
    return bypass(logger, node, node.inputs[0])


def _end_training(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    if not attribute(node, "training_mode", 0):
        return False
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return refuse(logger, node, "its batch statistics are read")
    del node.attributes["training_mode"]
    node.resize_outputs(1)
    return True


def kept_shares(graph: onnx_ir.Graph) -> dict[onnx_ir.Value, float]:
    """Random masks of zeros and ones (or False and True) -> the share of ones.

    Followed from the generators on: numbers are `a * u + b` with u uniform on [0, 1), until a Floor or a comparison with a
    constant makes a mask of them.
    """
    uniform: dict[onnx_ir.Value, tuple[float, float]] = {}
    masks: dict[onnx_ir.Value, float] = {}
    for node in graph:
        output = node.outputs[0]
        if is_op(node, "RandomUniform", "RandomUniformLike"):
            low, high = attribute(node, "low", 0.0), attribute(node, "high", 1.0)
            uniform[output] = high - low, low
        elif is_op(node, "Cast", "Identity") and node.inputs[0] in masks:
            masks[output] = masks[node.inputs[0]]
        elif is_op(node, "Cast", "Identity") and node.inputs[0] in uniform:
            uniform[output] = uniform[node.inputs[0]]
        elif is_op(node, "Not") and node.inputs[0] in masks:
            masks[output] = 1 - masks[node.inputs[0]]
        elif is_op(node, "Floor") and node.inputs[0] in uniform:
            slope, start = uniform[node.inputs[0]]
            if abs(slope - 1) < _SAME and 0 < start < 1:
                masks[output] = start
        elif is_op(node, "Add", "Sub", "Mul", "Div", "GreaterOrEqual", "Greater", "Less", "LessOrEqual"):
            _follow(node, uniform, masks)
    return masks


def _follow(node: onnx_ir.Node, uniform: dict[onnx_ir.Value, tuple[float, float]], masks: dict[onnx_ir.Value, float]) -> None:
    """One binary operator between a random number and a constant one."""
    pair = operand_pair(node)
    moving = None if pair is None else node.inputs[pair[0]]
    if pair is None or moving is None or moving not in uniform or pair[1].size != 1:
        return
    position, array = pair
    number, (slope, start) = float(array.reshape(-1)[0]), uniform[moving]
    output = node.outputs[0]
    match node.op_type:
        case "Add":
            uniform[output] = slope, start + number
        case "Sub":
            uniform[output] = (slope, start - number) if position == 0 else (-slope, number - start)
        case "Mul":
            uniform[output] = slope * number, start * number
        case "Div":
            if position == 0 and number:
                uniform[output] = slope / number, start / number
        case _:
            if slope:
                below = min(max((number - start) / slope, 0.0), 1.0)  # share of u for which a u + b < number, if a > 0
                less = node.op_type.startswith("Less") == (position == 0)
                masks[output] = below if less == (slope > 0) else 1 - below


def _remove_random_dropout(node: onnx_ir.Node, masks: dict[onnx_ir.Value, float]) -> bool:
    if node.op_type == "Where":
        mask, chosen, other = node.inputs[0], node.inputs[1], constant(node.inputs[2])
        if mask not in masks or chosen is None or other is None or other.any():
            return False
    else:
        sides = [value for value in node.inputs if value not in masks]
        if len(sides) != 1 or constant(sides[0]) is not None:
            return False
        mask, chosen = next(value for value in node.inputs if value in masks), sides[0]
    assert mask is not None
    before = _unscaled(chosen, masks[mask])
    if before is None:
        return refuse(logger, node, f"a random mask that keeps {masks[mask]:g}, but no factor that makes up for it")
    return bypass(logger, node, before)


def _unscaled(value: onnx_ir.Value | None, keep: float) -> onnx_ir.Value | None:
    """`x` where `value` is `x * (1/keep)` or `x / keep`, else None: without this factor it is no dropout."""
    node = None if value is None else value.producer()
    pair = None if node is None or not is_op(node, "Mul", "Div") else operand_pair(node)
    if node is None or pair is None or pair[1].size != 1 or (node.op_type == "Div" and pair[0] == 1):
        return None
    number = float(pair[1].reshape(-1)[0])
    share = number if node.op_type == "Div" else (1 / number if number else 0.0)
    return node.inputs[pair[0]] if abs(share - keep) <= _SAME * keep else None
