"""QONNX `Quant` nodes in place of QuantizeLinear and DequantizeLinear (H2).

    x -> QuantizeLinear -> v__q -> DequantizeLinear -> v             =>   x -> Quant -> v
    x -> QuantizeLinear -> v__r -> Clip -> v__q -> Dequantize.. -> v =>   x -> Quant -> v__rounded -> Clip -> v
    w__q (integers) -> DequantizeLinear -> w                         =>   w__float (their real numbers) -> Quant -> w

A `Quant` is `scale * clip(round_half_even(x / scale), lowest, highest)`, in real numbers throughout. A bound below that of the
width (relu6) is a Clip of real numbers that lie on the grid; it is exact. A pair that only carries integers on is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir

from ...ir import (
    QUANTIZERS_KEY,
    UnsupportedError,
    add_initializer,
    add_node,
    forget_names,
    integer_bounds,
    name_of,
    rename,
    unique_name,
)
from ...kernels import fixed_point
from ..integers.network import IntegerNetwork, Step, Tensor

DOMAIN: Final = "qonnx.custom_op.general"
DOMAIN_VERSION: Final = 1

_LARGEST: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class QuantForm:
    """How a reader wants its `Quant` nodes.

    Attributes:
        shape: of scales and zero points, `()` or `(1,)`; bit widths are always 0-d.
        bias_shape: the same of biases.
        biases: with a `Quant` of their own, or as plain numbers that lie on their grid.
        copies: whether pairs that only carry integers on (behind a MaxPool, Transpose, ...) get a `Quant` too.
    """

    shape: tuple[int, ...] = ()
    bias_shape: tuple[int, ...] = ()
    biases: Literal["quant", "plain"] = "quant"
    copies: bool = False


def write_quants(model: onnx_ir.Model, network: IntegerNetwork, form: QuantForm) -> None:
    """Rewrites a Q/DQ model in place.

    Names of values stay: a `Quant` computes the value that a DequantizeLinear computed.

    Args:
        model: a clone of the Q/DQ model.
        network: the same in integers, one that `check_constants` let through.
        form: how.
    """
    forget_names(model.graph)
    _Writer(model.graph, network, form).run()
    model.graph.opset_imports[DOMAIN] = DOMAIN_VERSION
    model.metadata_props.pop(QUANTIZERS_KEY, None)  # it says where QuantizeLinear nodes are
    forget_names(model.graph)


def check_constants(network: IntegerNetwork, target: str) -> None:
    """Refuses constants that float32 does not hold: biases of more than 24 bits.

    Raises:
        UnsupportedError: naming the layer.
    """
    for tensor in network.constants:
        if tensor.integers is None or abs(tensor.integers).max(initial=0) <= _LARGEST:
            continue
        wrong = tensor.integers[tensor.integers.astype(np.float32).astype(np.int64) != tensor.integers]
        if wrong.size:
            layer = next((step.name for step in network.steps if tensor.name in step.reads), tensor.value)
            raise UnsupportedError(
                f"target {target}: layer {layer!r}: its constant {tensor.value!r} is written as float32, which holds integers up "
                f"to 2^24; --layer-bits 16 keeps biases in 16 bits. Received: {int(wrong[0])}"
            )


def is_exact_copy(step: Step, network: IntegerNetwork) -> bool:
    """Whether a step moves the integers it reads, on their scale and inside its own bounds; a relu is no move."""
    output = network.tensors[step.output]
    reads = [network.tensors[name] for name in step.reads]
    edges = [operation.attributes["value"] for operation in step.operations if "value" in operation.attributes]
    edges += [edge for tensor in reads for edge in (tensor.lower, tensor.upper)]
    moves = step.is_copy and all(operation.op != "Relu" for operation in step.operations)
    return moves and output.lower <= min(edges) and max(edges) <= output.upper


def quant_bits(tensor: Tensor) -> int:
    """Width of a tensor; one on the grid of another carries only its integer type, its bounds say more."""
    if tensor.role is None:
        for bits in range(2, tensor.bits):
            if integer_bounds(bits, tensor.signed) == (tensor.lower, tensor.upper):
                return bits
    return tensor.bits


def is_bounded(tensor: Tensor) -> bool:
    """Whether a computed tensor has a bound below that of its width (relu6)."""
    return tensor.integers is None and integer_bounds(quant_bits(tensor), tensor.signed) != (tensor.lower, tensor.upper)


class _Writer:
    def __init__(self, graph: onnx_ir.Graph, network: IntegerNetwork, form: QuantForm) -> None:
        self.graph, self.network, self.form = graph, network, form
        self.steps: Mapping[str, Step] = {step.output: step for step in network.steps}
        self.shared: dict[tuple[str, float, tuple[int, ...]], onnx_ir.Value] = {}

    def run(self) -> None:
        for node in list(self.graph):
            if node.op_type == "DequantizeLinear":
                tensor = self.network.tensors[name_of(node.inputs[0])]
                if tensor.integers is not None:
                    self._constant(node, tensor)
                else:
                    self._activation(node, tensor)
        for node in reversed(list(self.graph)):
            integer = node.op_type in {"QuantizeLinear", "DequantizeLinear", "Clip"}
            if integer and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
                self.graph.remove(node, safe=True)
        for value in list(self.graph.initializers.values()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name_of(value)]

    def _constant(self, node: onnx_ir.Node, tensor: Tensor) -> None:
        assert tensor.integers is not None
        value = node.outputs[0]
        name = name_of(value)
        numbers = fixed_point.dequantize(tensor.integers, tensor.exponent)
        if tensor.role == "bias" and self.form.biases == "plain":
            self._free(value)
            _move(value, add_initializer(self.graph, name, numbers))
        else:
            self._put(node, value, tensor, add_initializer(self.graph, f"{name}__float", numbers))

    def _activation(self, node: onnx_ir.Node, tensor: Tensor) -> None:
        """One `Quant`, a Clip behind it where a bound is below that of the width; or nothing, behind a copy."""
        quantize = node.inputs[0].producer() if node.inputs[0] is not None else None
        if quantize is not None and quantize.op_type == "Clip":
            quantize = quantize.inputs[0].producer() if quantize.inputs[0] is not None else None
        source = None if quantize is None else quantize.inputs[0]
        assert source is not None, node.name
        value = node.outputs[0]
        step = self.steps.get(tensor.name)
        idle = step is not None and tensor.role is None and is_exact_copy(step, self.network) and not self.form.copies
        named = value.is_graph_output() and (source.producer() is None or source.is_graph_output())
        if idle and not named:
            self._skip(value, source)
        else:
            self._put(node, value, tensor, source)

    def _skip(self, value: onnx_ir.Value, source: onnx_ir.Value) -> None:
        """Readers of `value` read `source`; an output keeps its name (O3)."""
        name = name_of(value)
        if value.is_graph_output():
            self._free(value)
            rename(source, name)
        _move(value, source)

    def _put(self, node: onnx_ir.Node, value: onnx_ir.Value, tensor: Tensor, source: onnx_ir.Value) -> None:
        name = name_of(value)
        bits = quant_bits(tensor)
        bounded = is_bounded(tensor)
        self._free(value)
        output = self._quant(node, f"{name}__rounded" if bounded else name, source, tensor, bits)
        if bounded:
            edges = [fixed_point.dequantize(np.array(edge), tensor.exponent) for edge in (tensor.lower, tensor.upper)]
            bounds = [self._scalar("bound", float(edge), ()) for edge in edges]
            output = add_node(self.graph, "Clip", [output, *bounds], name, after=output.producer(), like=value)
        _move(value, output)

    def _quant(self, node: onnx_ir.Node, name: str, source: onnx_ir.Value, tensor: Tensor, bits: int) -> onnx_ir.Value:
        scale = fixed_point.dequantize(np.ones((), np.int64), tensor.exponent)
        shape = self.form.bias_shape if tensor.role == "bias" else self.form.shape
        parameters = [
            self._scalar("scale", float(scale), shape),
            self._scalar("zeropt", 0.0, shape),
            self._scalar("bitwidth", float(bits), ()),
        ]
        attributes: dict[str, Any] = {"signed": int(tensor.signed), "narrow": 0, "rounding_mode": "ROUND"}
        quant = onnx_ir.node("Quant", [source, *parameters], attributes, domain=DOMAIN, num_outputs=1)
        quant.name = f"Quant:{name}"
        output = quant.outputs[0]
        output.name = unique_name(self.graph, name)
        output.shape, output.type = node.outputs[0].shape, node.outputs[0].type
        self.graph.insert_after(node, quant)
        return output

    @staticmethod
    def _free(value: onnx_ir.Value) -> None:
        """Gives up the name of a value that another takes over."""
        rename(value, f"{name_of(value)}__dequantized")

    def _scalar(self, what: str, number: float, shape: tuple[int, ...]) -> onnx_ir.Value:
        key = (what, number, shape)
        if key not in self.shared:
            array: npt.NDArray[np.float32] = np.full(shape, number, np.float32)
            self.shared[key] = add_initializer(self.graph, f"quant_{what}_{number:g}", array)
        return self.shared[key]


def _move(old: onnx_ir.Value, new: onnx_ir.Value) -> None:
    """Readers and graph outputs of `old` are those of `new`."""
    old.replace_all_uses_with(new, replace_graph_outputs=True)
