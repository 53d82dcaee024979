"""Runs a MultiThreshold model, as FINN does before there is hardware: `run_finn.py model.onnx in.npz out.npz`.

First untouched, then behind each part of FINN's front end that qonnx holds; `out.npz` has every tensor of the untouched model under
its name, and the outputs of each part under `part:name`.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.fold_constants import FoldConstants
from qonnx.transformation.general import (
    ConvertSubToAdd,
    GiveReadableTensorNames,
    GiveUniqueNodeNames,
    GiveUniqueParameterTensors,
    RemoveStaticGraphInputs,
    RemoveUnusedTensors,
    SortGraph,
)
from qonnx.transformation.infer_data_layouts import InferDataLayouts
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul
from qonnx.transformation.remove import RemoveIdentityOps

onnx.IR_VERSION = 10  # qonnx executes models of one node that it makes; onnxruntime does not read the newest version

PARTS = {
    "tidy": (
        GiveUniqueParameterTensors(),
        InferShapes(),
        FoldConstants(),
        GiveUniqueNodeNames(),
        GiveReadableTensorNames(),
        InferDataTypes(),
        RemoveStaticGraphInputs(),
        RemoveUnusedTensors(),
        SortGraph(),
    ),
    "streamline": (ConvertSubToAdd(), RemoveIdentityOps(), InferDataLayouts()),
    "lower": (LowerConvsToMatMul(), InferShapes(), InferDataTypes(), InferDataLayouts()),
}


def main(path: str, given: str, written: str) -> None:
    model = ModelWrapper(path)
    outputs = [value.name for value in model.graph.output]
    feeds = np.load(given)
    inputs = list(feeds)
    found = {name.replace("/", "\\"): array for name, array in run(model, feeds, inputs).items()}
    for part, steps in PARTS.items():
        for step in steps:
            model = model.transform(step)
        ends = [value.name for value in model.graph.output]
        computed = run(model, feeds, inputs)
        found |= {f"{part}:{old}".replace("/", "\\"): computed[name] for name, old in zip(ends, outputs, strict=True)}
    np.savez(written, **found)


def run(model: ModelWrapper, feeds: dict[str, np.ndarray], inputs: list[str]) -> dict[str, np.ndarray]:
    names = [value.name for value in model.graph.input]
    found: dict[str, list[np.ndarray]] = {}
    for index in range(len(feeds[inputs[0]])):
        example = {name: feeds[old][index : index + 1] for name, old in zip(names, inputs, strict=True)}
        for name, array in execute_onnx(model, example, return_full_exec_context=True).items():
            if isinstance(array, np.ndarray) and model.get_initializer(name) is None:
                found.setdefault(name, []).append(array)
    return {name: np.stack(arrays) for name, arrays in found.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
