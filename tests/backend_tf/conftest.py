"""Hand-made lowered graphs in both contracts, and their independent evaluation in NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tqt_onnx.ir import PASS_THROUGH, Quantizer, QuantizerGraph, integer_name
from tqt_onnx.kernels import fixed_point


class Net:
    """Builds a lowered float graph layer by layer, with a quantizer wherever annotation would put one."""

    def __init__(self, contract: str = "layer16", shape: tuple[int, ...] = (8, 8, 3), seed: int = 0) -> None:
        self.contract, self.shape = contract, shape
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.quantizers: list[Quantizer] = []
        self.scale_of: dict[str, str] = {}
        self.node("Identity", ["x"], "x__input", role="input")
        self.quantize("x__input", 8, True, "input", -5)
        self.top = self.node("Transpose", ["x__input"], "nchw", perm=[0, 3, 1, 2])

    def node(self, op: str, inputs: list[str], output: str, role: str | None = None, **attributes: object) -> str:
        node = helper.make_node(op, inputs, [output], name=output, **attributes)
        if role is not None:
            node.metadata_props.add(key="tqt_onnx.role", value=role)
        self.nodes.append(node)
        if op in PASS_THROUGH | {"Concat"} and inputs[0] in self.scale_of:
            self.scale_of[output] = self.scale_of[inputs[0]]
        return output

    def constant(self, name: str, array: object) -> str:
        self.constants[name] = np.asarray(array)
        return name

    def normal(self, name: str, *shape: int, spread: float = 0.25) -> str:
        return self.constant(name, self.random.normal(size=shape).astype(np.float32) * np.float32(spread))

    def quantize(self, value, bits, signed, role, exponent, group=None, limit=None, derived_from=None) -> None:
        self.quantizers.append(Quantizer(value, value, bits, signed, role, group or value, limit, derived_from, exponent))
        self.scale_of[value] = value

    def layer(
        self, op: str, name: str, x: str, weight: str, channels: int, bias: bool = True, weight_bits: int = 8, **attributes: object
    ) -> str:
        """A compute layer of the contract, up to and without its activation."""
        self.quantize(weight, weight_bits, True, "weight", -8 if weight_bits == 8 else -4)
        bias_shape = (channels, 1, 1) if op == "Conv" else (channels,)
        if self.contract == "layer32":
            inputs = [x, weight]
            if bias:
                inputs.append(self.normal(name + "/b", channels))
                exponent = next(q.exponent for q in self.quantizers if q.id == self.scale_of[x]) + self.quantizers[-1].exponent
                self.quantize(name + "/b", 32, True, "bias", exponent, derived_from=(self.scale_of[x], weight))
            return self.node(op, inputs, name, **attributes)
        accumulator = self.node(op, [x, weight], name + "__acc", **attributes)
        self.quantize(accumulator, 16, True, "accumulator", -9, group=accumulator)
        if not bias:
            return self.node("Identity", [accumulator], name)
        self.normal(name + "/b", *bias_shape)
        self.quantize(name + "/b", 16, True, "bias", -9, group=accumulator)
        return self.node("Add", [accumulator, name + "/b"], name)

    def activation(self, x: str, kind: str | float | None, exponent: int = -5, group: str | None = None) -> str:
        """Nothing, relu or reluN, with the quantizer behind."""
        if kind is None:
            self.quantize(x, 8, True, "activation", exponent, group)
            return x
        if kind == "relu":
            y = self.node("Relu", [x], x + "/relu")
            self.quantize(y, 8, False, "activation", exponent, group)
            return y
        self.constant(x + "/min", np.float32(0)), self.constant(x + "/max", np.float32(kind))
        y = self.node("Clip", [x, x + "/min", x + "/max"], x + "/clip")
        self.quantize(y, 8, False, "activation", exponent, group, limit=float(kind))
        return y

    def conv(
        self,
        name,
        x,
        channels,
        kernel=(3, 3),
        strides=(1, 1),
        pads=(1, 1, 1, 1),
        group=1,
        act="relu",
        exponent=-5,
        share=None,
        **options,
    ):
        """A convolution; `channels` is (in, out)."""
        weight = self.normal(name + "/w:0", channels[1], channels[0] // group, *kernel)
        dilations = options.pop("dilations", (1, 1))
        y = self.layer(
            "Conv",
            name,
            x,
            weight,
            channels[1],
            kernel_shape=kernel,
            strides=strides,
            pads=pads,
            group=group,
            dilations=dilations,
            **options,
        )
        return self.activation(y, act, exponent, share)

    def dense(self, name, x, units, op="Gemm", act=None, **options):
        weight = self.normal(name + "/w", *units)
        return self.activation(self.layer(op, name, x, weight, units[1], **options), act, -3)

    def graph(self) -> QuantizerGraph:
        return QuantizerGraph(self.contract, tuple(self.quantizers))

    def proto(self, *outputs: str) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *self.shape])]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        constants = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "net", ends, results, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)

    def model(self, *outputs: str) -> onnx_ir.Model:
        return onnx_ir.serde.deserialize_model(self.proto(*outputs))

    def images(self, rows: int = 5) -> np.ndarray:
        return (self.random.normal(size=(rows, *self.shape)) * 2).astype(np.float32)

    def run_float(self, x: np.ndarray, *outputs: str) -> list[np.ndarray]:
        session = onnxruntime.InferenceSession(self.proto(*outputs).SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(list(outputs), {"x": x})

    def run_integers(self, x: np.ndarray, graph: QuantizerGraph | None = None) -> dict[str, np.ndarray]:
        """Every quantizer's integers: the ONNX reference implementation in float64, `fixed_point.quantize` behind each value."""
        quantizers = (graph or self.graph()).by_value()
        integers, values = {}, {}

        def keep(name: str, array: np.ndarray) -> None:
            quantizer = quantizers.get(name)
            if quantizer is not None:
                array = fixed_point.quantize(array, quantizer.exponent, quantizer.bits, quantizer.signed, quantizer.upper)
                integers[integer_name(name)] = array
                array = np.ldexp(array.astype(np.float64), quantizer.exponent)
            values[name] = array

        for name, array in {"x": x, **self.constants}.items():
            keep(name, array.astype(np.float64) if array.dtype == np.float32 else array)
        for node in self.nodes:
            keep(node.output[0], ReferenceEvaluator(node).run(None, {name: values[name] for name in node.input})[0])
        return integers


@pytest.fixture(scope="session")
def net():
    """The builder class."""
    return Net


@pytest.fixture(scope="session")
def assorted():
    """A residual net with most operators of the road: `(net, name of its output)` for a contract and a seed."""

    def build(contract: str, seed: int = 0) -> tuple[Net, str]:
        net = Net(contract, (9, 8, 3), seed)
        a = net.conv("stem/conv", net.top, (3, 8), strides=(2, 2), pads=(1, 0, 1, 1), act=6.0)  # SAME for 9 and 8
        b = net.conv("dw", a, (8, 16), group=8, act=6.0, weight_bits=4)
        b = net.conv("pw", b, (16, 8), kernel=(1, 1), pads=(0, 0, 0, 0), act=None, exponent=-4, share="add", bias=False)
        short = net.node("Identity", [a], "short", role="rescale")
        net.quantize(short, 8, True, "rescale", -4, group="add")
        total = net.activation(net.node("Add", [b, short], "sum"), "relu", -4)
        one = net.conv("left", total, (8, 4), pads=(0, 1, 2, 1), exponent=-5, share="cat")  # no SAME
        two = net.conv("right", total, (8, 4), kernel=(3, 2), pads=(1, 0, 1, 1), exponent=-5, share="cat", dilations=(1, 1))
        joined = net.node("Concat", [one, two], "joined", axis=1)
        pooled = net.node("MaxPool", [joined], "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        net.constant("pads", np.array([0, 0, 1, 0, 0, 0, 0, 1]))
        padded = net.node("Pad", [pooled, "pads"], "padded")
        flat = net.node("Flatten", [padded], "flat", axis=1)
        hidden = net.dense("hidden", flat, (8 * 4 * 3, 10), act="relu")
        logits = net.dense("logits", hidden, (10, 7), weight_bits=4)
        return net, net.node("Softmax", [logits], "probabilities", axis=-1)

    return build
