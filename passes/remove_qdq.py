"""The inverse of `insert_qdq`: a Q/DQ model back to its lowered float graph and its quantizer graph.

Weights come back on their grid, so inserting again gives the same integers: `insert_qdq(*remove_qdq(m))` equals `m`.
"""

from __future__ import annotations

import numpy as np
import onnx_ir

from ..ir import (
    CONTRACT_KEY,
    QUANTIZERS_KEY,
    ROLE_KEY,
    ModelError,
    Quantizer,
    QuantizerGraph,
    add_initializer,
    add_node,
    constant,
    forget_names,
    integer_name,
    name_of,
    quantizers_of,
    rename,
    scalar,
)
from ..kernels import fixed_point
from .base import remove_unused
from .insert_qdq import FLOAT_SUFFIX, integer_type_bounds, storage
from .node_roles import RESCALE_ROLE


def remove_qdq(model: onnx_ir.Model) -> tuple[onnx_ir.Model, QuantizerGraph]:
    """The lowered float model with on-grid constants, and the decided quantizers; the given model is unchanged.

    Raises:
        ModelError: the model carries no quantizer graph, or one that does not fit its nodes.
    """
    quantizers = quantizers_of(model)
    if quantizers is None:
        raise ModelError("not a quantized model: it carries no tqt_onnx.quantizers; `quantize` writes them")
    result = model.clone()
    graph = result.graph
    forget_names(graph)
    by_value = quantizers.by_value()
    seen = set()
    for node in list(graph):
        if node.op_type == "DequantizeLinear" and node.graph is not None:
            name = name_of(node.outputs[0])
            _remove(graph, node, by_value.get(name))
            seen.add(name)
    missing = set(by_value) - seen
    if missing:
        raise ModelError(f"quantizer on {sorted(missing)[0]!r}, but the model has no DequantizeLinear of that name")
    for key in (CONTRACT_KEY, QUANTIZERS_KEY):
        result.metadata_props.pop(key, None)
    remove_unused(result)
    return result, quantizers


def _remove(graph: onnx_ir.Graph, dequantize: onnx_ir.Node, quantizer: Quantizer | None) -> None:
    output = dequantize.outputs[0]
    name = name_of(output)
    integers = dequantize.inputs[0]
    stored = constant(integers)
    if quantizer is not None:
        _check_parameters(dequantize, quantizer, stored is not None)
    if integers is None or integers.name != integer_name(name):
        raise ModelError(f"{name!r}: its integers should be called {integer_name(name)!r}; written by another tool?")
    rename(output, f"{name}__dq")
    if stored is not None:
        if quantizer is None:
            raise ModelError(f"constant {name!r} is dequantized but has no quantizer")
        value = add_initializer(graph, name, fixed_point.dequantize(stored, quantizer.decided_exponent))
        _rewire(graph, output, value)
        return
    value = _float_source(graph, integers, name, quantizer, dequantize)
    _rewire(graph, output, value)


def _float_source(
    graph: onnx_ir.Graph, integers: onnx_ir.Value, name: str, quantizer: Quantizer | None, dequantize: onnx_ir.Node
) -> onnx_ir.Value:
    """The float value in front of Q, under the quantizer's own name; a Clip that moved to the integers comes back."""
    node = integers.producer()
    if node is not None and node.op_type == "Clip":
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None or node.op_type != "QuantizeLinear" or node.inputs[0] is None:
        raise ModelError(f"{name!r}: a QuantizeLinear is expected in front of its DequantizeLinear")
    source = node.inputs[0]
    if source.name == f"{name}{FLOAT_SUFFIX}":
        rename(source, name)
        return source
    if quantizer is not None and quantizer.limit is not None:
        bounds = [
            add_initializer(graph, f"{name}__{side}", scalar(bound)) for side, bound in (("min", 0.0), ("max", quantizer.limit))
        ]
        return add_node(graph, "Clip", [source, *bounds], name, before=dequantize, like=dequantize.outputs[0])
    role = {ROLE_KEY: quantizer.role if quantizer is not None and quantizer.role == "input" else RESCALE_ROLE}
    return add_node(graph, "Identity", [source], name, before=dequantize, like=dequantize.outputs[0], metadata=role)


def _check_parameters(node: onnx_ir.Node, quantizer: Quantizer, is_constant: bool) -> None:
    """The scale, type and Clip bounds in the nodes must be those that the quantizer graph records.

    Raises:
        ModelError: they contradict each other: one of them was changed by hand or by another tool.
    """
    dtype, _ = storage(quantizer.bits, quantizer.signed, packed=is_constant)
    nodes = [node]
    above = None if node.inputs[0] is None else node.inputs[0].producer()
    if above is not None and above.op_type == "Clip":
        bounds = [constant(value) for value in above.inputs[1:3]]
        found = [None if bound is None else int(bound.item()) for bound in bounds]
        if found != [quantizer.lower, quantizer.upper]:
            raise ModelError(f"{quantizer.value!r}: bounds {quantizer.lower}, {quantizer.upper} are recorded. Received: {found}")
        above = None if above.inputs[0] is None else above.inputs[0].producer()
    elif not is_constant and (quantizer.lower, quantizer.upper) != (whole := integer_type_bounds(quantizer.bits, quantizer.signed)):
        raise ModelError(
            f"{quantizer.value!r}: bounds {quantizer.lower}, {quantizer.upper} are recorded. Received: those of the type, {whole}"
        )
    if is_constant:
        stored = constant(node.inputs[0])
        assert stored is not None
        low, high = (int(stored.min()), int(stored.max())) if stored.size else (0, 0)
        if stored.size and not quantizer.lower <= low <= high <= quantizer.upper:
            raise ModelError(
                f"{quantizer.value!r}: integers from {quantizer.lower} to {quantizer.upper} are recorded. Received: {low} to {high}"
            )
    if above is not None and above.op_type == "QuantizeLinear":
        nodes.append(above)
    for one in nodes:
        scale = constant(one.inputs[1])
        expected = float(fixed_point.dequantize(np.ones((), np.int64), quantizer.decided_exponent))
        if scale is None or scale.size != 1 or float(scale.item()) != expected:
            received = None if scale is None else scale.tolist()
            raise ModelError(
                f"{quantizer.value!r}: scale {expected!r} (2^{quantizer.decided_exponent}) is recorded. Received: {received}"
            )
        zero = one.inputs[2] if len(one.inputs) > 2 else None
        if zero is None or zero.dtype != dtype or np.any(constant(zero)):
            received = None if zero is None else zero.dtype
            raise ModelError(f"{quantizer.value!r}: a zero point 0 of type {dtype.name} is recorded. Received: {received}")


def _rewire(graph: onnx_ir.Graph, old: onnx_ir.Value, new: onnx_ir.Value) -> None:
    for index, value in enumerate(graph.outputs):
        if value is old:
            graph.outputs[index] = new
    old.replace_all_uses_with(new)
