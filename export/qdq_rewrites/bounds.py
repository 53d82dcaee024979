"""A Clip between a layer and its rounding goes behind the rounding, where onnxruntime fuses the layer.

    Conv -> Clip(a, b) -> QuantizeLinear -> DQ   ->   Conv -> QuantizeLinear -> Clip(q(a), q(b)) -> DQ

Rounding and saturation never decrease, so `q(min(max(x, a), b)) = min(max(q(x), q(a)), q(b))`: the same integers. A Clip that is
behind the rounding already, as that of a relu6 or of fewer than 8 bits, takes the narrower bounds.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ...ir import COMPUTE, add_initializer, add_node, constant, grid_of, kept_bounds, name_of, only_consumer
from ...kernels import fixed_point

_RECTIFIERS: Final = frozenset({"Relu", "Clip"})

_STORED: Final[dict[bool, type[np.generic]]] = {True: np.int8, False: np.uint8}


def round_before_clips(graph: onnx_ir.Graph) -> int:
    """Moves the Clips of every layer of 8 bits behind its rounding, and a Relu among them; returns how many nodes were moved."""
    moved = 0
    for rounding in list(graph):
        if rounding.op_type != "QuantizeLinear" or grid_of(rounding).bits != 8:
            continue
        for rectifier in _rectifiers(rounding):
            bounds = _rounded_bounds(rectifier, rounding)
            if bounds is None:
                break
            rounding.replace_input_with(0, rectifier.inputs[0])
            graph.remove(rectifier, safe=True)
            _bound(graph, rounding, bounds)
            moved += 1
    return moved


def _rectifiers(rounding: onnx_ir.Node) -> list[onnx_ir.Node]:
    """What is between a compute layer and its rounding, the last one first; none where that is a Relu alone, or something else."""
    found: list[onnx_ir.Node] = []
    node = _above(rounding)
    while node is not None and node.op_type in _RECTIFIERS:
        found.append(node)
        node = _above(node)
    is_layer = node is not None and node.op_type in COMPUTE
    return found if is_layer and any(rectifier.op_type == "Clip" for rectifier in found) else []


def _above(node: onnx_ir.Node) -> onnx_ir.Node | None:
    """What computes the first input for this node alone."""
    value = node.inputs[0]
    return None if value is None or only_consumer(value) is not node else value.producer()


def _rounded_bounds(rectifier: onnx_ir.Node, rounding: onnx_ir.Node) -> tuple[int, int] | None:
    """The integers that the bounds are rounded to; None where they are not constant numbers in order."""
    grid = grid_of(rounding)
    reals = [0.0 if rectifier.op_type == "Relu" else -np.inf, np.inf]
    for index, value in enumerate(rectifier.inputs[1:3]):
        if value is not None and value.name:
            found = constant(value)
            if found is None:
                return None
            reals[index] = float(found.reshape(()))
    if not reals[0] <= reals[1]:
        return None
    low, high = fixed_point.quantize(np.array(reals), grid.exponent, grid.bits, grid.signed).tolist()
    return low, high


def _bound(graph: onnx_ir.Graph, rounding: onnx_ir.Node, bounds: tuple[int, int]) -> None:
    """Puts an integer Clip behind the rounding, or narrows the one that is there."""
    grid, integers = grid_of(rounding), rounding.outputs[0]
    low, high = bounds
    behind = only_consumer(integers)
    if behind is not None and behind.op_type == "Clip":
        floor, ceiling = kept_bounds(rounding)
        low, high = (min(max(edge, floor), ceiling) for edge in bounds)
        behind.resize_inputs(3)
        behind.replace_input_with(1, _edge(graph, integers, low, grid.signed))
        behind.replace_input_with(2, _edge(graph, integers, high, grid.signed))
        return
    if bounds == grid.bounds:
        return
    readers = tuple(integers.uses())
    clipped = add_node(
        graph,
        "Clip",
        [integers, _edge(graph, integers, low, grid.signed), _edge(graph, integers, high, grid.signed)],
        f"{name_of(integers)}__bounded",
        after=rounding,
        like=integers,
    )
    for reader, index in readers:
        reader.replace_input_with(index, clipped)


def _edge(graph: onnx_ir.Graph, integers: onnx_ir.Value, edge: int, signed: bool) -> onnx_ir.Value:
    stored: npt.NDArray[np.generic] = np.asarray(edge, _STORED[signed])
    return add_initializer(graph, f"{name_of(integers)}__edge", stored)
