"""Why pass-through operators get Q/DQ pairs of their own (O2, O5): what onnxruntime makes of int8 models with and without.

    python benchmarks/carry_pairs.py

Small Q/DQ networks, input -> pass-through operators -> Conv, with pairs behind none, behind some or behind all of the
operators. Each row compares all optimizations with none: numbers that differ, or the error with which the session refuses to load.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tqt_onnx.report import make_console, table

OPERATORS = {
    "MaxPool": ((), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "Transpose": ((), {"perm": [0, 1, 3, 2]}),
    "Reshape": ((np.array([-1, 8, 6, 6]),), {}),
    "Pad": ((np.array([0, 0, 1, 1, 0, 0, 1, 1]),), {}),
}
CHAINS = (("MaxPool",), ("Reshape",), ("Transpose",), ("Pad", "MaxPool"))


def main() -> None:
    """Prints one table."""
    cases = [(chain, pairs) for chain in CHAINS for pairs in dict.fromkeys([(), tuple(op for op in chain if op != "Pad"), chain])]
    rows = [(" -> ".join(chain), ", ".join(pairs) or "none", outcome(model(chain, pairs))) for chain, pairs in cases]
    version = onnxruntime.__version__
    make_console().print(table(f"onnxruntime {version}, int8", ("operators", "pairs behind", "optimized against not"), rows))


def model(chain: tuple[str, ...], pairs: tuple[str, ...]) -> onnx.ModelProto:
    """Input [N, 8, 6, 6], int8 at 2^-5, the chain, a 3 x 3 Conv, int8 at 2^-2."""
    rng = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(np.float32(2.0**-5), "fine"),
        numpy_helper.from_array(np.float32(2.0**-2), "coarse"),
        numpy_helper.from_array(np.int8(0), "zero"),
        numpy_helper.from_array(rng.integers(-128, 128, (8, 8, 3, 3)).astype(np.int8), "w_q"),
    ]
    nodes = [helper.make_node("DequantizeLinear", ["w_q", "fine", "zero"], ["w"])]

    def pair(value: str, scale: str, result: str) -> str:
        nodes.append(helper.make_node("QuantizeLinear", [value, scale, "zero"], [f"{value}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{value}_q", scale, "zero"], [result]))
        return result

    value = pair("x", "fine", "x_dq")
    for op in chain:
        arrays, attributes = OPERATORS[op]
        names = [f"{op}_{index}" for index in range(len(arrays))]
        constants += [numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)]
        nodes.append(helper.make_node(op, [value, *names], [op], **attributes))
        value = pair(op, "fine", f"{op}_dq") if op in pairs else op
    nodes.append(helper.make_node("Conv", [value, "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    pair("c", "coarse", "y")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8, None, None])
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def outcome(proto: onnx.ModelProto) -> str:
    """Numbers that differ between all optimizations and none."""
    x = (np.random.default_rng(1).normal(size=(4, 8, 6, 6)) * 2).astype(np.float32)
    results = []
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the error is the result
            return f"does not load: {str(error).rsplit('] ', 1)[-1]}"
        results.append(session.run(None, {"x": x})[0])
    return f"{int((results[0] != results[1]).sum()):,} of {results[0].size:,} differ"


if __name__ == "__main__":
    main()
