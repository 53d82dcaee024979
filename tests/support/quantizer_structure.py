"""The quantizers of a Q/DQ model as text to read and to compare, found by walking its nodes; nothing depends on names.

    v1 int8 @a input <- x
    v2 int8 @a carry <- Transpose(v1)
    v3 int16 @b accumulator <- Conv(v2, int8 weight)
    v4 uint8 @c activation up to 6 <- Add(v3, int16 bias @b)
    output v4

One line for every value between QuantizeLinear and DequantizeLinear, in the order of the graph: its type, its scale (a letter
for each shared threshold), its role, and the expression that is rounded. Constants that share a scale say so.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from string import ascii_lowercase

import onnx_ir

from tqt_onnx.ir import Quantizer, attribute, constant, quantizers_of

_COMMUTATIVE = frozenset({"Add", "Concat", "Max", "Min", "Mul"})


def merged_pairs(model: onnx_ir.Model) -> list[tuple[str | None, str | None]]:
    """The pairs `Q -> DQ -> Q` of one dtype whose DQ nobody else reads (O5); what onnxruntime sees through may lie between.

    Two of one scale are none: merging them changes nothing.
    """
    outputs = set(model.graph.outputs)
    found = []
    for node in model.graph:
        if node.op_type != "DequantizeLinear" or node.inputs[0].producer() is None:
            continue
        value = node.outputs[0]
        while value not in outputs and len(value.uses()) == 1:
            reader = value.uses()[0][0]
            if reader.op_type == "QuantizeLinear":
                if reader.outputs[0].dtype == node.inputs[0].dtype and reader.inputs[1] is not node.inputs[1]:
                    found.append((node.outputs[0].name, reader.outputs[0].name))
                break
            if reader.op_type not in ("Identity", "Relu", "Clip"):
                break
            value = reader.outputs[0]
    return found


class Structure:
    """What is quantized in a Q/DQ model, and with whom it shares a scale."""

    def __init__(self, model: onnx_ir.Model) -> None:
        quantizers = quantizers_of(model)
        assert quantizers is not None
        self.model = model
        self.by_value: dict[str | None, Quantizer] = dict(quantizers.by_value())
        self.members = Counter(quantizer.group for quantizer in quantizers.quantizers)
        self.values: dict[onnx_ir.Value, str] = {}
        """Dequantized value -> v1, v2, ..."""
        self.groups: dict[onnx_ir.Value, str] = {}
        """Dequantized value -> share group: its own, or that of what it carries."""
        self.sources: dict[onnx_ir.Value, onnx_ir.Value] = {}
        """Dequantized value -> the float value that was rounded."""
        for node in model.graph:
            if node.op_type == "DequantizeLinear" and node.inputs[0].producer() is not None:
                self._see(node)

    def _see(self, node: onnx_ir.Node) -> None:
        value = node.outputs[0]
        rounding = node.inputs[0].producer()
        if rounding.op_type == "Clip":
            rounding = rounding.inputs[0].producer()
        assert rounding.op_type == "QuantizeLinear"
        quantizer = self.by_value.get(value.name)
        self.values[value] = f"v{len(self.values) + 1}"
        self.sources[value] = rounding.inputs[0]
        self.groups[value] = quantizer.group if quantizer else self.groups[self._first_rounded(rounding.inputs[0])]

    def _first_rounded(self, value: onnx_ir.Value) -> onnx_ir.Value:
        while value not in self.values:
            value = value.producer().inputs[0]
        return value

    # --- as text

    def text(self) -> str:
        """The lines of the module's docstring."""
        self.letters: dict[str, str] = {}
        lines = [self._line(value) for value in self.values]
        lines += [f"output {self._expression(value)}" for value in self.model.graph.outputs]
        return "\n".join(lines)

    def _line(self, value: onnx_ir.Value) -> str:
        quantizer = self.by_value.get(value.name)
        role = "carry" if quantizer is None else quantizer.role
        if quantizer is not None and quantizer.limit is not None:
            role += f" up to {quantizer.limit:g}"
        scale = self._letter(self.groups[value])
        return f"{self.values[value]} {self._type(value)} {scale} {role} <- {self._expression(self.sources[value])}"

    def _type(self, value: onnx_ir.Value) -> str:
        quantizer = self.by_value.get(value.name)
        if quantizer is None:
            return str(value.producer().inputs[0].dtype).lower()
        return f"{'' if quantizer.signed else 'u'}int{quantizer.bits}"

    def _letter(self, group: str) -> str:
        return "@" + self.letters.setdefault(group, ascii_lowercase[len(self.letters)])

    def _expression(self, value: onnx_ir.Value) -> str:
        node = value.producer()
        if value in self.values or node is None:
            return self.values.get(value, "input")
        if node.op_type == "DequantizeLinear":
            quantizer = self.by_value[value.name]
            shared = f" {self._letter(quantizer.group)}" if self.members[quantizer.group] > 1 else ""
            readers = " read twice" if len(value.uses()) > 1 else ""
            return f"{self._type(value)} {quantizer.role}{shared}{readers}"
        return f"{_operator(node)}({', '.join(self._operands(node, self._expression))})"

    def _operands(self, node: onnx_ir.Node, show) -> list[str]:
        """Of each operand what `show` says; constants that only shape an operator are left out, bounds of a Clip are not."""
        operands = []
        for value in node.inputs:
            array = constant(value)
            if value is not None and array is None:
                operands.append(show(value))
            elif node.op_type == "Clip":
                operands.append("-" if array is None else f"{float(array.item()):g}")
        return operands

    # --- as a multiset that does not know the order of operands and branches

    def fingerprint(self) -> Counter[tuple[str, ...]]:
        """Every value with those of its scale, up to the order of operands."""
        signatures = {value: self._signature(value) for value in self.values}
        return Counter(
            (signature, *sorted(signatures[mate] for mate in self.values if self.groups[mate] == self.groups[value]))
            for value, signature in signatures.items()
        )

    def _signature(self, value: onnx_ir.Value) -> str:
        node = value.producer()
        if node is None:
            text = "input"
        elif value in self.values:
            quantizer = self.by_value.get(value.name)
            role = "" if quantizer is None else f"{quantizer.role} {quantizer.limit}"
            text = f"{self._type(value)} {role} {self._signature(self.sources[value])}"
        elif node.op_type == "DequantizeLinear":
            text = f"{self._type(value)} {self.by_value[value.name].role}"
        else:
            operands = self._operands(node, self._signature)
            operands = sorted(operands) if node.op_type in _COMMUTATIVE else operands
            text = f"{_operator(node)}({', '.join(operands)})"
        return sha256(text.encode()).hexdigest()


def _operator(node: onnx_ir.Node) -> str:
    if node.op_type == "Concat":
        return f"Concat[{attribute(node, 'axis', 0)}]"
    if node.op_type == "Conv" and attribute(node, "group", 1) > 1:
        return "Conv[depthwise]"
    return node.op_type
