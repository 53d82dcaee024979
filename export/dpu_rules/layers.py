"""Layers in the form of a DPU: one rounding behind the sum, and its leaky relu.

    Conv -> q16 -> Add(b) -> q8      ->   Conv(b) -> q8                          layer16 becomes layer32 (L11)
    x -> q16 -> Mul(a) -> Max(x) -> q8   ->   x -> LeakyRelu(k / 256) -> q8      the roundings in between go (L3)

Both are other numbers than the model's, so both are changes that `--fix` makes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import onnx_ir

from ...ir import (
    ROLE_KEY,
    SOURCE_KEY,
    UnsupportedError,
    add_initializer,
    add_node,
    constant,
    forget_names,
    name_of,
    only_consumer,
    rename,
    replace_value,
)
from .draft import Draft
from .limits import POINTS, SLOPE_BITS

_TENSOR_BITS: Final = 8


def round_once(draft: Draft) -> None:
    """Turns the contract `layer16` into `layer32`: biases go back into their layers, accumulators are not rounded.

    Raises:
        UnsupportedError: a bias has no place in its layer.
    """
    for layer in draft.nodes if draft.contract == "layer16" else ():
        quantizer = draft.quantizers.get(layer.outputs[0].name or "")
        if quantizer is None or quantizer.role != "accumulator":
            continue
        draft.drop(layer.outputs[0])
        behind = only_consumer(layer.outputs[0])
        if behind is not None and (behind.op_type == "Identity" or behind.metadata_props.get(ROLE_KEY) == "bias"):
            _join(draft, layer, behind)
        draft.change(
            "one rounding",
            layer.name or quantizer.value,
            "its sum and bias are rounded to 16 bits (layer16), a DPU rounds once behind the sum; quantize with --layer-bits 32",
            "drops the 16-bit rounding",
        )
    draft.contract = "layer32"


def _join(draft: Draft, layer: onnx_ir.Node, behind: onnx_ir.Node) -> None:
    """Gives a layer the bias that is added behind it, and the name of that sum."""
    graph, sum_, output = draft.model.graph, layer.outputs[0], behind.outputs[0]
    name = name_of(output)
    if behind.op_type == "Add":
        _take_bias(draft, layer, behind.inputs[1])
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = sum_
    output.replace_all_uses_with(sum_)
    graph.remove(behind, safe=True)
    forget_names(graph)
    rename(sum_, name)
    if SOURCE_KEY in behind.metadata_props:
        layer.metadata_props[SOURCE_KEY] = behind.metadata_props[SOURCE_KEY]


def _take_bias(draft: Draft, layer: onnx_ir.Node, bias: onnx_ir.Value | None) -> None:
    array = constant(bias)
    data, weight = draft.of(layer.inputs[0]), draft.of(layer.inputs[1])
    if bias is None or array is None or data is None or weight is None or layer.op_type == "MatMul":
        raise UnsupportedError(
            f"target dpu: layer {layer.name!r}: its bias is no constant of a Conv or Gemm; {POINTS} writes it as one"
        )
    quantizer = draft.quantizers[name_of(bias)]
    if layer.op_type != "Gemm" and array.ndim > 1:
        graph, name = draft.model.graph, name_of(bias)
        rename(bias, f"{name}__column")
        flat = add_initializer(graph, name, np.ascontiguousarray(array.reshape(-1)))
        bias.replace_all_uses_with(flat)
        del graph.initializers[f"{name}__column"]
        bias = flat
    layer.resize_inputs(3)
    layer.replace_input_with(2, bias)
    draft.put(replace(quantizer, bits=32, group=quantizer.id, derived_from=(data.id, weight.id), exponent=None))


def raise_leaky(draft: Draft) -> None:
    """Writes lowered leaky relus as LeakyRelu, their slope on 1/256.

    Raises:
        UnsupportedError: a slope that no LeakyRelu of a DPU has.
    """
    for node in draft.nodes:
        if node.metadata_props.get(ROLE_KEY) == "leaky":
            _raise(draft, node)


def _raise(draft: Draft, node: onnx_ir.Node) -> None:
    graph, name = draft.model.graph, name_of(node.outputs[0])
    x, scaled = node.inputs
    product = None if scaled is None else scaled.producer()
    slope = _slope(node, product)
    steps = round(slope * (1 << SLOPE_BITS))
    assert x is not None
    assert product is not None
    for value in (scaled, product.inputs[1]):
        draft.drop(value)
    own = draft.quantizers.get(name_of(x))
    if own is not None and own.bits > _TENSOR_BITS:
        draft.drop(x)
    above = x.producer()
    is_spare = x.name not in draft.quantizers and above is not None and above.metadata_props.get(ROLE_KEY) == "rescale"
    rescale = above if is_spare else None
    leaky = add_node(
        graph,
        "LeakyRelu",
        [x if rescale is None else rescale.inputs[0]],
        f"{name}__leaky",
        attributes={"alpha": steps / (1 << SLOPE_BITS)},
        before=node,
        like=node.outputs[0],
        metadata={key: text for key, text in node.metadata_props.items() if key != ROLE_KEY},
    )
    replace_value(node.outputs[0], leaky)
    for gone in (node, product, rescale):
        if gone is not None:
            graph.remove(gone, safe=True)
    forget_names(graph)
    if leaky.name != name:
        rename(leaky, name)
    draft.change(
        "LeakyRelu",
        name,
        f"its slope is {slope:.7g} between roundings to 16 bits (L3), a DPU multiplies by k/256 and rounds once",
        f"makes it LeakyRelu({steps}/256)",
    )


def _slope(node: onnx_ir.Node, product: onnx_ir.Node | None) -> float:
    """The one slope of a lowered leaky relu."""
    slopes = None if product is None else constant(product.inputs[1])
    found = [] if slopes is None else [float(slope) for slope in slopes.ravel()]
    if node.op_type != "Max" or len(found) != 1 or not 0 < round(found[0] * (1 << SLOPE_BITS)) < 1 << SLOPE_BITS:
        raise UnsupportedError(
            f"target dpu: layer {node.outputs[0].name!r}: a leaky relu of a DPU has one slope from 1/256 to 255/256. "
            f"Received: {node.op_type} of slopes {found[:3]}"
        )
    return found[0]
