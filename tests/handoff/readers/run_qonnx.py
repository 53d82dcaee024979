"""Runs a QONNX model with qonnx's own executor: `run_qonnx.py model.onnx in.npz out.npz [step,step,...] ...`.

Arrays of `in.npz` are the inputs, examples first. `out.npz` holds every tensor of the model under its name, examples first, and for
each list of steps (names of `STEPS`) that it is taken through, its outputs under `step,step,...:name`.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import onnx
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.transformation.extract_conv_bias import ExtractBiasFromConv
from qonnx.transformation.fold_constants import FoldConstants
from qonnx.transformation.gemm_to_matmul import GemmToMatMul
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
from qonnx.util.cleanup import cleanup_model

onnx.IR_VERSION = 10  # qonnx executes models of one node that it makes; onnxruntime does not read the newest version

FINN = {
    "tidy": (
        GiveUniqueParameterTensors,
        InferShapes,
        FoldConstants,
        GiveUniqueNodeNames,
        GiveReadableTensorNames,
        InferDataTypes,
        RemoveStaticGraphInputs,
        RemoveUnusedTensors,
        SortGraph,
    ),
    "streamline": (ConvertSubToAdd, RemoveIdentityOps, InferDataLayouts),
    "lower": (LowerConvsToMatMul, InferShapes, InferDataTypes, InferDataLayouts),
}
"""Parts of FINN's front end that qonnx holds."""


def transformed(model: ModelWrapper, transformations: tuple[type, ...]) -> ModelWrapper:
    for transformation in transformations:
        model = model.transform(transformation())
    return model


STEPS = {
    **{name: partial(transformed, transformations=parts) for name, parts in FINN.items()},
    "cleanup": cleanup_model,
    "cleanup_bias": lambda model: cleanup_model(model, extract_conv_bias=True),
    "channels_last": lambda model: model.transform(ConvertToChannelsLastAndClean()),
    "extract_bias": lambda model: model.transform(ExtractBiasFromConv()),
    "fold_constants": lambda model: model.transform(FoldConstants()),
    "gemm_to_matmul": lambda model: model.transform(GemmToMatMul()),
    "infer_datatypes": lambda model: model.transform(InferDataTypes()),
    "infer_scaled_datatypes": lambda model: model.transform(InferDataTypes(allow_scaledint_dtypes=True)),
    "infer_layouts": lambda model: model.transform(InferDataLayouts()),
    "infer_shapes": lambda model: model.transform(InferShapes()),
    "lower_convs": lambda model: model.transform(LowerConvsToMatMul()),
    "readable_names": lambda model: model.transform(GiveReadableTensorNames()),
    "unique_names": lambda model: model.transform(GiveUniqueNodeNames()),
}


def main(path: str, given: str, written: str, *pipelines: str) -> None:
    feeds = np.load(given)
    model = ModelWrapper(path)
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    found = run(model, feeds, inputs)
    for pipeline in pipelines:
        model = ModelWrapper(path)
        for step in pipeline.split(","):
            model = STEPS[step](model)
        computed = run(model, feeds, inputs)
        ends = [value.name for value in model.graph.output]
        found |= {f"{pipeline}:{old}": computed[name] for name, old in zip(ends, outputs, strict=True)}
    np.savez(written, **{name.replace("/", "\\"): array for name, array in found.items()})


def run(model: ModelWrapper, feeds: dict[str, np.ndarray], inputs: list[str]) -> dict[str, np.ndarray]:
    """Every tensor, one example after the other; `inputs` are the names in `feeds`, in the order of the model's."""
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
