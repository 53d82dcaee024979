"""One node of a Q/DQ model on fixed-point values as an operation on integers: attributes, parameters and left shifts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt
import onnx_ir

from ...ir import LAYER_KEY, SOURCE_KEY, ModelError, UnsupportedError, attribute, constant, name_of, static_shape
from .network import SUMS, Operation

_MOST_SHIFT: Final = 62
"""Beyond this no int64 holds what is shifted."""


@dataclass(frozen=True, slots=True)
class Term:
    """A fixed-point value.

    Attributes:
        name: of the tensor, or of the operation's output.
        exponent: binary logarithm of its scale.
    """

    name: str
    exponent: int


_PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "Reshape": ("shape",),
    "Squeeze": ("axes",),
    "Unsqueeze": ("axes",),
    "Slice": ("starts", "ends", "axes", "steps"),
    "Gather": ("indices",),
    "Tile": ("repeats",),
    "Resize": ("roi", "scales", "sizes"),
    "Pad": ("pads", "value", "axes"),
    "Clip": ("low", "high"),
}
"""Operator -> names of its constant inputs from the second on."""

_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "Gemm": {"transA": 0, "transB": 0},
    "Concat": {"axis": 0},
    "Gather": {"axis": 0},
    "Flatten": {"axis": 1},
    "DepthToSpace": {"mode": "DCR"},
    "Pad": {"mode": "constant"},
}


def operation_of(node: onnx_ir.Node, terms: Sequence[Term | None], bounds: Mapping[str, int]) -> Operation:
    """The operation of a node all of whose inputs are fixed point or constant parameters.

    Args:
        node: a node that the oracle computes in integers.
        terms: its inputs; None for a constant parameter and for an absent input.
        bounds: of partial sums, by output.

    Raises:
        UnsupportedError: two scales, or a scale and a constant beside it, are more than 62 bits apart.
        ModelError: a shape is not known.
    """
    operands = [term for term in terms if term is not None]
    attributes = _attributes(node)
    exponents = [term.exponent for term in operands]
    if node.op_type in SUMS or node.op_type == "Mul":
        exponent = exponents[0] + exponents[1]
        if len(exponents) > 2 and exponents[2] != exponent:
            raise UnsupportedError(
                f"layer {node.name!r}: its bias has the scale 2^{exponents[2]}, its sum 2^{exponent}; they must agree (L11)"
            )
        shifts = [0] * len(operands)
    else:
        edges = [attributes[key] for key in ("low", "high", "value") if key in attributes]
        exponent = min([*exponents, *(_finest(edge, exponents[0]) for edge in edges)])
        shifts = [other - exponent for other in exponents]
        for key in ("low", "high", "value"):
            if key in attributes:
                attributes[key] = _reachable(key, _on_grid(attributes[key], exponent), node)
        if max(shifts) > _MOST_SHIFT:
            what = f"{node.op_type} {node.name!r}"
            raise UnsupportedError(f"{what}: scales 2^{max(exponents)} and 2^{exponent} do not meet in 64 bits")
    shape = static_shape(node.outputs[0])
    if shape is None:
        raise ModelError(f"{node.op_type} {node.name!r}: the shape of its output is not known; `quantize` writes it")
    output = name_of(node.outputs[0])
    return Operation(
        op=node.op_type,
        node=node.name or output,
        source=node.metadata_props.get(LAYER_KEY) or node.metadata_props.get(SOURCE_KEY),
        inputs=tuple(term.name for term in operands),
        shifts=tuple(shifts),
        output=output,
        exponent=exponent,
        shape=shape,
        attributes=attributes,
        bound=bounds.get(output),
    )


def _attributes(node: onnx_ir.Node) -> dict[str, Any]:
    """Attributes and constant parameters as plain Python objects, defaults filled in."""
    found = dict(_DEFAULTS.get(node.op_type, {}))
    found.update({name: _plain(attribute(node, name, None)) for name in node.attributes})
    if node.op_type in {"Conv", "ConvTranspose", "MaxPool"}:
        found.update(_sliding(node))
    for name, value in zip(_PARAMETERS.get(node.op_type, ()), node.inputs[1:], strict=False):
        array = constant(value)
        if array is not None and array.size:
            found[name] = _parameter(array, scalar=name in {"low", "high", "value"})
    if node.op_type == "Clip":
        found = {"low": None, "high": None, **{name: edge for name, edge in found.items() if _is_finite(edge)}}
    if node.op_type == "Pad" and found["mode"] == "constant":
        found.setdefault("value", 0)
    return found


def _sliding(node: onnx_ir.Node) -> dict[str, list[int]]:
    """Windows of a Conv, ConvTranspose or MaxPool, over all spatial axes."""
    shape = static_shape(node.outputs[0])
    spatial = len(shape) - 2 if shape is not None else 2
    weights = node.inputs[1] if len(node.inputs) > 1 else None
    above = None if weights is None else weights.producer()
    stored = constant(above.inputs[0] if above is not None and above.op_type == "DequantizeLinear" else weights)
    kernel = stored.shape[2:] if stored is not None else attribute(node, "kernel_shape", ())
    defaults = {"kernel_shape": tuple(kernel), "strides": (1,) * spatial, "dilations": (1,) * spatial, "pads": (0,) * 2 * spatial}
    if node.op_type == "ConvTranspose":
        defaults["output_padding"] = (0,) * spatial
    found: dict[str, Any] = {name: list(attribute(node, name, default)) for name, default in defaults.items()}
    return found if node.op_type == "MaxPool" else found | {"group": attribute(node, "group", 1)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _parameter(array: npt.NDArray[Any], *, scalar: bool) -> Any:
    """A constant input: numbers and nested lists; bounds and fillings as one number."""
    return array.reshape(-1)[0].item() if scalar else array.tolist()


def _is_finite(edge: float | None) -> bool:
    return edge is not None and math.isfinite(edge)


def _reachable(key: str, edge: int | None, node: onnx_ir.Node) -> int | None:
    """The bound, or None where no integer of 62 bits gets there.

    Raises:
        UnsupportedError: every number lies beyond a bound, or what is filled in takes more than 62 bits.
    """
    if edge is None or abs(edge) < 1 << _MOST_SHIFT:
        return edge
    if (key == "high" and edge > 0) or (key == "low" and edge < 0):
        return None
    raise UnsupportedError(f"{node.op_type} {node.name!r}: its constant takes more than 62 bits on the grid of its tensor")


def _finest(edge: float | None, exponent: int) -> int:
    """Exponent of the coarsest grid, at most the given one, that holds the number."""
    if not edge:
        return exponent
    numerator, denominator = float(edge).as_integer_ratio()
    zeros = (numerator & -numerator).bit_length() - 1
    return min(exponent, zeros - (denominator.bit_length() - 1))


def _on_grid(edge: float | None, exponent: int) -> int | None:
    """The number in units of `2^exponent`, which holds it."""
    if edge is None:
        return None
    numerator, denominator = float(edge).as_integer_ratio()
    shift = -exponent - (denominator.bit_length() - 1)
    return numerator << shift if shift >= 0 else numerator >> -shift
