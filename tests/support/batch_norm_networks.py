"""Small ONNX networks whose layers have batch norms behind them, and their roads up to the regenerated model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from onnx import helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]

EPSILON = 1e-3


class Builder:
    """Nodes and random constants, one behind the other."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def op(self, op_type: str, *inputs: str, name: str, **attributes: Any) -> str:
        """A node that is called as what it computes."""
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def layer(self, op_type: str, x: str, name: str, shape: tuple[int, ...], bias: int = 0, **attributes: Any) -> str:
        """A compute layer with random weights, and with a bias of that many channels."""
        self.constants[f"{name}/w"] = (0.4 * self.rng.normal(size=shape)).astype(np.float32)
        inputs = [x, f"{name}/w"]
        if bias:
            self.constants[f"{name}/b"] = self.rng.normal(size=bias).astype(np.float32)
            inputs.append(f"{name}/b")
        return self.op(op_type, *inputs, name=name, **attributes)

    def norm(self, x: str, name: str, channels: int, source: str = "") -> str:
        """A batch norm; `source` is the TensorFlow node it is said to come from."""
        drawn = {
            "gamma": self.rng.uniform(0.5, 1.5, channels),
            "beta": self.rng.normal(size=channels),
            "mean": 0.3 * self.rng.normal(size=channels),
            "variance": self.rng.uniform(0.5, 2, channels),
        }
        self.constants |= {f"{name}/{role}": array.astype(np.float32) for role, array in drawn.items()}
        self.op("BatchNormalization", x, *(f"{name}/{role}" for role in drawn), name=name, epsilon=EPSILON)
        if source:
            self.nodes[-1].metadata_props.add(key="tqt_onnx.source", value=source)
        return name

    def settle(self, inputs: dict[str, tuple[int, ...]]) -> None:
        """Gives the batch norms statistics like those of `images`, as in a trained network: off by up to a tenth."""
        feeds = {name: images(64, shape) for name, shape in inputs.items()}
        for node in self.nodes:
            if node.op_type == "BatchNormalization":
                part = onnx_ir.to_proto(self.model(inputs, {node.input[0]: None}))
                (y,) = onnxruntime.InferenceSession(part.SerializeToString()).run(None, feeds)
                flat = np.moveaxis(y, 1, -1).reshape(-1, y.shape[1])
                near = self.rng.uniform(0.9, 1.1, (2, y.shape[1]))
                self.constants[node.input[3]] = (flat.mean(0) * near[0]).astype(np.float32)
                self.constants[node.input[4]] = (flat.var(0) * near[1]).astype(np.float32)

    def model(self, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...] | None]) -> onnx_ir.Model:
        """Everything so far; shapes without the batch, None where they do not matter."""
        ends = [
            [
                helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None if shape is None else ["N", *shape])
                for name, shape in side.items()
            ]
            for side in (inputs, outputs)
        ]
        constants = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "net", ends[0], ends[1], constants)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        return onnx_ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def every_layer(seed: int = 0, source: str = "net/bn3/FusedBatchNormV3") -> onnx_ir.Model:
    """Conv with a bias, depthwise Conv, ConvTranspose whole and in groups, Gemm and MatMul: each with its batch norm.

    Args:
        seed: of all numbers.
        source: the TensorFlow node that one of the batch norms comes from.
    """
    net = Builder(seed)
    x = net.op("Relu", net.norm(net.layer("Conv", "x", "conv", (4, 3, 3, 3), 4, pads=[1] * 4), "bn1", 4), name="r1")
    x = net.op("Relu", net.norm(net.layer("Conv", x, "dw", (8, 1, 3, 3), pads=[1] * 4, group=4), "bn2", 8), name="r2")
    up = net.layer("ConvTranspose", x, "up", (8, 6, 3, 3), 6, strides=[2, 2], pads=[1] * 4)
    x = net.op("Relu", net.norm(up, "bn3", 6, source), name="r3")
    x = net.norm(net.layer("ConvTranspose", x, "grouped", (6, 4, 2, 2), strides=[2, 2], group=2), "bn4", 8)
    x = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", x, name="r4"), name="pool"), name="flat")
    x = net.op("Relu", net.norm(net.layer("Gemm", x, "dense", (8, 10), 10), "bn5", 10), name="r5")
    net.norm(net.layer("MatMul", x, "matrix", (10, 5)), "logits", 5)
    net.settle({"x": (3, 6, 6)})
    return net.model({"x": (3, 6, 6)}, {"logits": (5,)})


LAYERS = ("conv", "dw", "up", "grouped", "dense", "matrix")
"""Of `every_layer`."""


def images(rows: int = 16, shape: tuple[int, ...] = (3, 6, 6), seed: int = 1) -> Array:
    """Some loud, some quiet: what a global average makes of them differs."""
    rng = np.random.default_rng(seed)
    loudness, level = (draw.reshape(-1, *(1,) * len(shape)) for draw in (rng.uniform(0.2, 2, rows), rng.normal(size=rows)))
    return (loudness * rng.normal(size=(rows, *shape)) + level).astype(np.float32)
