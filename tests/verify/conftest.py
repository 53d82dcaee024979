"""Builds small Q/DQ models node by node, in the encoding that quantized models have (numerics O)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

TYPES = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16, "i32": np.int32}


class Net:
    """A Q/DQ model in the making: every method appends nodes and returns the name of the float value."""

    def __init__(self, shape: Sequence[int | str], name: str = "x") -> None:
        self.inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, name: str, array: Any) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def grid(self, value: str, exponent: int, dtype: str) -> list[str]:
        zero = (
            helper.make_tensor(f"{value}__zp", TensorProto.INT4, [], [0])
            if dtype == "i4"
            else numpy_helper.from_array(np.zeros((), TYPES[dtype]), f"{value}__zp")
        )
        self.constants[f"{value}__zp"] = zero
        return [self.constant(f"{value}__s", np.float32(2.0**exponent)), f"{value}__zp"]

    def op(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def quantized(self, source: str, value: str, exponent: int, dtype: str, upper: int | None = None) -> str:
        """`source -> Q -> value__q -> DQ -> value`; with `upper` an integer Clip behind Q, as relu6 has."""
        grid = self.grid(value, exponent, dtype)
        integers = f"{value}__q"
        if upper is None:
            self.op("QuantizeLinear", [source, *grid], integers)
        else:
            self.op("QuantizeLinear", [source, *grid], f"{value}__r")
            low = self.constant(f"{value}__low", TYPES[dtype](0))
            high = self.constant(f"{value}__high", TYPES[dtype](upper))
            self.op("Clip", [f"{value}__r", low, high], integers)
        return self.op("DequantizeLinear", [integers, *grid], value)

    def weight(self, value: str, integers: Any, exponent: int, dtype: str = "i8") -> str:
        """`value__q -> DQ -> value` of constant integers."""
        array = np.asarray(integers)
        if dtype == "i4":
            self.constants[f"{value}__q"] = helper.make_tensor(f"{value}__q", TensorProto.INT4, array.shape, array.ravel().tolist())
        else:
            self.constant(f"{value}__q", array.astype(TYPES[dtype]))
        return self.op("DequantizeLinear", [f"{value}__q", *self.grid(value, exponent, dtype)], value)

    def conv(self, inputs: Sequence[str], output: str, kernel: Sequence[int], **attributes: Any) -> str:
        rank = len(kernel)
        defaults = {"strides": [1] * rank, "dilations": [1] * rank, "pads": [0] * 2 * rank, "group": 1}
        return self.op("Conv", inputs, output, kernel_shape=list(kernel), **{**defaults, **attributes})

    def model(self, *outputs: str) -> onnx_ir.Model:
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, infos, list(self.constants.values()))
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        return onnx_ir.serde.deserialize_model(proto)


@pytest.fixture(name="net", scope="session")
def net_fixture() -> type[Net]:
    return Net
