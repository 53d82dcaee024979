"""Small lowered graphs with their quantizers, as annotation would write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from tqt_onnx.ir import Quantizer, QuantizerGraph


class Net:
    """Collects nodes, initializers and quantizers of one contract."""

    def __init__(self, contract: str) -> None:
        self.contract = contract
        self.rng = np.random.default_rng(7)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.quantizers: list[Quantizer] = []

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, name: str, array: Any, dtype: Any = np.float32) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def quantize(
        self, value: str, bits: int = 8, signed: bool = True, role: Any = "activation", group: str = "", **more: Any
    ) -> str:
        self.quantizers.append(Quantizer(value, value, bits, signed, role, group or value, **more))
        return value

    def compute(
        self,
        name: str,
        x: str,
        weight: Any,
        bias: Any,
        *,
        scale_of: str,
        op: str = "Conv",
        stride: int = 1,
        groups: int = 1,
        pad: int = 0,
    ) -> str:
        """The sum of a Conv or Gemm under the net's contract, not yet quantized."""
        w = np.asarray(weight)
        self.quantize(self.constant(f"{name}_w", w), role="weight")
        kernel = list(w.shape[2:])
        attributes = (
            {}
            if op == "Gemm"
            else {"kernel_shape": kernel, "strides": [stride] * 2, "pads": [pad] * 4, "dilations": [1, 1], "group": groups}
        )
        if self.contract == "layer32":
            self.constant(f"{name}_b", bias)
            self.quantizers.append(
                Quantizer(f"{name}_b", f"{name}_b", 32, True, "bias", f"{name}_b", None, (scale_of, f"{name}_w"))
            )
            return self.node(op, [x, f"{name}_w", f"{name}_b"], name, **attributes)
        self.constant(f"{name}_b", np.reshape(bias, (-1,) if op == "Gemm" else (-1, 1, 1)))
        self.node(op, [x, f"{name}_w"], f"{name}__acc", **attributes)
        self.quantize(f"{name}__acc", 16, role="accumulator", group=f"{name}_sum")
        self.quantize(f"{name}_b", 16, role="bias", group=f"{name}_sum")
        return self.node("Add", [f"{name}__acc", f"{name}_b"], name)

    def random(self, *shape: int, scale: float = 0.5) -> np.ndarray:
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def build(self, inputs: dict[str, list[Any]], outputs: list[str]) -> tuple[onnx_ir.Model, QuantizerGraph]:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        model = onnx.shape_inference.infer_shapes(model)
        return onnx_ir.serde.deserialize_model(model), QuantizerGraph(self.contract, tuple(self.quantizers))


def residual_net(contract: str) -> tuple[onnx_ir.Model, QuantizerGraph]:
    """Conv, relu6, depthwise, residual Add behind a rescale, shared MaxPool, Concat of two branches, mean, Gemm, Softmax."""
    net = Net(contract)
    net.constant("zero", 0.0)
    net.constant("six", 6.0)
    net.node("Transpose", ["x"], "x_nchw", perm=[0, 3, 1, 2])
    net.quantize(net.node("Identity", ["x_nchw"], "x__input"), role="input")
    net.compute("c1", "x__input", net.random(4, 3, 3, 3, scale=1.5), net.random(4), scale_of="x__input", pad=1)
    net.quantize(net.node("Clip", ["c1", "zero", "six"], "r1"), signed=False, limit=6.0)
    net.compute("dw", "r1", net.random(4, 1, 3, 3), net.random(4), scale_of="r1", pad=1, groups=4)
    net.quantize("dw", group="add_in")
    net.quantize(net.node("Identity", ["r1"], "r1__rescale"), role="rescale", group="add_in")
    net.node("Add", ["dw", "r1__rescale"], "sum")
    net.quantize(net.node("Relu", ["sum"], "res"), signed=False)
    net.node("MaxPool", ["res"], "pool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0])
    for branch, kernel in (("b1", 1), ("b2", 3)):
        net.compute(branch, "pool", net.random(3, 4, kernel, kernel), net.random(3), scale_of="res", pad=kernel // 2)
        net.quantize(net.node("Relu", [branch], f"{branch}_relu"), signed=False, group="cat_in")
    net.node("Concat", ["b1_relu", "b2_relu"], "cat", axis=1)
    net.quantize(net.constant("mean_w", np.full((6, 1, 4, 4), 1 / 16)), signed=False, role="reciprocal")
    net.node("Conv", ["cat", "mean_w"], "mean", kernel_shape=[4, 4], strides=[1, 1], pads=[0] * 4, dilations=[1, 1], group=6)
    net.quantize("mean", signed=False)
    net.node("Flatten", ["mean"], "flat")
    net.quantize(net.compute("logits", "flat", net.random(6, 5), net.random(5), scale_of="mean", op="Gemm"))
    net.node("Softmax", ["logits"], "y")
    return net.build({"x": ["N", 8, 8, 3]}, ["y"])


def cyclic_net(contract: str = "layer32") -> tuple[onnx_ir.Model, QuantizerGraph]:
    """A dense block: the convolution's output is concatenated with its own input, both on one scale."""
    net = Net(contract)
    net.quantize(net.node("Identity", ["x"], "x__input"), role="input", group="dense")
    net.quantize(net.compute("c", "x__input", net.random(2, 2, 1, 1, scale=3), net.random(2), scale_of="x__input"), group="dense")
    net.node("Concat", ["x__input", "c"], "cat", axis=1)
    net.quantize(net.compute("d", "cat", net.random(2, 4, 1, 1), net.random(2), scale_of="x__input"))
    return net.build({"x": ["N", 2, 4, 4]}, ["d"])


@pytest.fixture(params=["layer16", "layer32"])
def small(request: pytest.FixtureRequest) -> tuple[onnx_ir.Model, QuantizerGraph]:
    return residual_net(request.param)


@pytest.fixture
def small32() -> tuple[onnx_ir.Model, QuantizerGraph]:
    return residual_net("layer32")


@pytest.fixture
def cyclic() -> tuple[onnx_ir.Model, QuantizerGraph]:
    return cyclic_net()


@pytest.fixture
def net() -> type[Net]:
    return Net


@pytest.fixture
def images() -> Callable[..., Callable[[], Iterator[dict[str, np.ndarray]]]]:
    """`images(count, batch, shape)`: seeded data with a few large numbers, as `batches`."""

    def make(count: int = 6, batch: int = 4, shape: tuple[int, ...] = (8, 8, 3)) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
        x = np.random.default_rng(3).laplace(size=(count, *shape)).astype(np.float32)
        return lambda: iter([{"x": x[start : start + batch]} for start in range(0, count, batch)])

    return make
