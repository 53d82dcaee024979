"""Why a network loses accuracy with one scale per tensor: channel ranges of its weights, and accuracy with only some quantized.

    python benchmarks/weight_ranges.py model.onnx --data images/ --preprocess signed_unit --label-offset 1

Takes the float model of `tqt-onnx convert`. Each row sets the step of the layer's 8-bit power-of-two grid beside the largest
weight of its widest and of its narrowest output channel. Then the float network is evaluated with the weights of its depthwise
layers, of all others, and of all layers rounded to their grids, everything else float.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import onnx_ir

import tqt_onnx
from tqt_onnx.ir import attribute, compute_nodes
from tqt_onnx.kernels import fixed_point
from tqt_onnx.kernels.thresholds import weight_mse_log2
from tqt_onnx.report import make_console, table

WHICH = ("none", "depthwise", "others", "all")


def main() -> None:
    """Prints the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preprocess", default="none")
    parser.add_argument("--label-offset", type=int, default=0)
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    models = {which: rounded(arguments.model, which)[0] for which in WHICH}
    rows = rounded(arguments.model, "all")[1]
    console = make_console()
    columns = ("layer", "depthwise", "step", "widest channel", "narrowest channel", "channels below half a step")
    console.print(table("Largest weight of a channel", columns, rows))
    result = tqt_onnx.evaluate(
        models,
        arguments.data,
        preprocess=arguments.preprocess,
        label_offset=arguments.label_offset,
        limit=arguments.limit,
    )
    accuracies = [(model.name, f"{model.top1_share:.4f}") for model in result.models]
    console.print(table(f"Top-1 on {result.count} images", ("weights rounded to 8 bits", "top-1"), accuracies))


def rounded(path: Path, which: str) -> tuple[onnx_ir.Model, list[tuple[str, bool, float, float, float, int]]]:
    """The model with some weights on their grids, and a row for each of these layers."""
    model = tqt_onnx.load(path)
    rows = []
    for node in compute_nodes(model.graph):
        weight = node.inputs[1]
        assert weight is not None and weight.const_value is not None
        array = weight.const_value.numpy()
        depthwise = node.op_type == "Conv" and attribute(node, "group", 1) > 1
        if which not in ("all", "depthwise" if depthwise else "others"):
            continue
        exponent = fixed_point.exponent_for(math.ceil(weight_mse_log2(array, 8, True)), 8, True)
        weight.const_value = onnx_ir.tensor(fixed_point.fake_quantize(array, exponent, 8, True), name=weight.name)
        channels = np.abs(array if node.op_type == "Conv" else array.T).reshape(array.shape[0 if node.op_type == "Conv" else 1], -1)
        largest, step = channels.max(1), math.ldexp(1.0, exponent)
        lost = int((largest < step / 2).sum())
        rows.append((node.name or "", depthwise, step, float(largest.max()), float(largest.min()), lost))
    return model, rows


if __name__ == "__main__":
    main()
