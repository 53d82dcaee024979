"""A second look at a model exported for DPUs: its Q/DQ nodes alone, read from the file, against the limits as AMD states them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tqt_onnx import BitWidths

FITS = BitWidths(layer=32, relu=7, average_pool=7, reciprocal=7)
"""Widths whose tensors int8 holds."""

BETWEEN = {"Relu", "Clip", "LeakyRelu"}
MOVES = {"MaxPool", "Concat", "Pad", "Slice", "Reshape", "Flatten", "Transpose"}


class Reading:
    """Positions and shifts of a file."""

    def __init__(self, path: Path) -> None:
        self.graph = onnx.load(path).graph
        self.arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}
        self.producer = {name: node for node in self.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def pairs(self) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]

    def position(self, node: onnx.NodeProto) -> int:
        """`-log2 scale`."""
        scale = float(self.arrays[node.input[1]])
        mantissa, exponent = math.frexp(scale)
        assert mantissa == 0.5
        return 1 - exponent

    def read(self, name: str) -> int | None:
        """Position of a dequantized tensor."""
        node = self.producer.get(name)
        return self.position(node) if node is not None and node.op_type == "DequantizeLinear" else None

    def written(self, name: str) -> tuple[int | None, bool]:
        """Position of what rounds a sum, and whether a leaky relu stands before it."""
        leaky = False
        while len(self.readers.get(name, ())) == 1:
            (node,) = self.readers[name]
            if node.op_type == "QuantizeLinear":
                return self.position(node), leaky
            if node.op_type not in BETWEEN:
                break
            leaky |= node.op_type == "LeakyRelu"
            name = node.output[0]
        return None, leaky

    def fills(self, node: onnx.NodeProto) -> bool:
        """Whether a Pad puts another number than zero around its input."""
        return node.op_type == "Pad" and len(node.input) > 2 and bool(self.arrays[node.input[2]].any())

    def shifts(self) -> dict[str, dict[str, int]]:
        """Node -> its shifts."""
        found = {}
        for node in self.graph.node:
            read = [self.read(name) for name in node.input]
            opos, leaky = self.written(node.output[0])
            if opos is None or not read or any(pos is None for pos in read):
                continue
            positions = [pos for pos in read if pos is not None]
            if node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
                own = {"shift_cut": positions[0] + positions[1] - opos, "leaky": int(leaky)}
                if len(positions) > 2:
                    own["shift_bias"] = positions[0] + positions[1] - positions[2]
            elif node.op_type in {"Add", "Sub"}:
                own = {"shift_read": max(positions) - min(positions), "shift_write": min(positions) - opos}
            elif node.op_type == "Mul":
                own = {"product": sum(positions) - opos}
            else:
                continue
            found[node.name] = own
        return found

    def check(self) -> None:
        """Everything that a DPU asks for."""
        for node in self.pairs():
            zero = self.arrays[node.input[2]]
            assert zero == 0
            assert zero.dtype in (np.int8, np.int32)
            if zero.dtype == np.int32:
                assert node.op_type == "DequantizeLinear"
                assert node.input[0] in self.arrays
        for shifts in self.shifts().values():
            if "shift_cut" in shifts:
                cut = shifts["shift_cut"]
                assert 0 <= cut <= 16
                assert (0 if shifts["leaky"] else min(0, -(24 - (8 + cut)))) <= shifts.get("shift_bias", 0) <= 15
            elif "product" in shifts:
                assert 0 <= shifts["product"] <= 32
            else:
                assert 0 <= shifts["shift_read"] <= 7
                assert -7 <= shifts["shift_write"] <= 25
        for node in self.graph.node:
            if node.op_type in MOVES and not self.fills(node):
                data = [pos for name in node.input for pos in [self.read(name)] if pos is not None]
                readers = self.readers.get(node.output[0], [])
                stored = len(readers) == 1 and readers[0].op_type == "QuantizeLinear"
                behind = self.position(readers[0]) if stored else None
                assert len({*data, *([] if behind is None or not data else [behind])}) <= 1
            if node.op_type == "LeakyRelu" and node.name.startswith("LeakyRelu:"):  # others are part of a function of one tensor
                steps = node.attribute[0].f * 256
                assert steps == int(steps)
                assert 1 <= steps <= 255
