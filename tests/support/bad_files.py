"""Small files to be spoilt by the tests of bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

QUANTIZE = "quantize {d}/m.onnx -o {t}/out.onnx --calibration {d}/x.npy"


def dense_network(*, opset: int = 21, ir_version: int = 10, weights: Any = None, width: int | str = 3) -> onnx.ModelProto:
    """Dense 3 -> 2, relu, dense 2 -> 2, from `x` to `y`; `w` are the weights of the first layer."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(3, 2)) if weights is None else weights, "b": [0.5, -1], "v": rng.normal(size=(2, 2))}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("Gemm", ["r", "v"], ["y"], name="second"),
        ],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def image_network(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], shape: tuple[Any, ...] = ("N", 2, 6, 6)
) -> onnx.ModelProto:
    """A network from `x` to `y`, opset 13."""
    graph = helper.make_graph(
        nodes,
        "images",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def chain(length: int) -> onnx.ModelProto:
    """Conv, many pools of stride 1, Conv: as long as it is asked to be, and every node stays to the end."""
    weight = np.random.default_rng(0).normal(size=(2, 2, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["v0"])]
    nodes.extend(
        helper.make_node("MaxPool", [f"v{index}"], [f"v{index + 1}"], kernel_shape=[2, 2], pads=[0, 0, 1, 1])
        for index in range(length - 2)
    )
    nodes.append(helper.make_node("Conv", [f"v{length - 2}", "w"], ["y"]))
    return image_network(nodes, {"w": weight})


def ladder(rungs: int) -> onnx.ModelProto:
    """Two branches from every value that meet in the next one: 2^rungs paths from one end to the other."""
    weight = np.random.default_rng(0).normal(size=(2, 2, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["v0"])]
    for index in range(rungs):
        before = f"v{index}"
        nodes += [
            helper.make_node("MaxPool", [before], [f"l{index}"], kernel_shape=[1, 2], pads=[0, 0, 0, 1]),
            helper.make_node("MaxPool", [before], [f"r{index}"], kernel_shape=[2, 1], pads=[0, 0, 1, 0]),
            helper.make_node("Max", [f"l{index}", f"r{index}"], [f"v{index + 1}"]),
        ]
    nodes.append(helper.make_node("Conv", [f"v{rungs}", "w"], ["y"]))
    return image_network(nodes, {"w": weight})


def fan(branches: int) -> onnx.ModelProto:
    """One value that many layers read, all of them concatenated."""
    rng = np.random.default_rng(0)
    nodes = []
    for index in range(branches):
        nodes.append(helper.make_node("Conv", ["x", "w"], [f"c{index}"]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
    nodes.append(helper.make_node("Concat", [f"r{index}" for index in range(branches)], ["k"], axis=1))
    nodes.append(helper.make_node("Conv", ["k", "last"], ["y"]))
    constants = {"w": rng.normal(size=(2, 2, 1, 1)), "last": rng.normal(size=(2, 2 * branches, 1, 1))}
    return image_network(nodes, {name: array.astype(np.float32) for name, array in constants.items()})


def left_in(folder: Path) -> list[str]:
    """What lies in a folder, but for the session number that onnxruntime 1.31 puts into TMPDIR when it is imported."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".ses")


def write(path: Path, proto: onnx.ModelProto) -> Path:
    """The bytes as they are; `onnx.save` would refuse some of them."""
    path.write_bytes(proto.SerializeToString())
    return path
