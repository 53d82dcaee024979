"""A QONNX file: batch 1, every shape known, and the oldest opset that says the same.

Tools of that world execute node by node on arrays of a fixed shape, and install older versions of onnx and onnxruntime than
opset 21 needs. Most networks hold nothing but operators that opset 13 has in the same form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
import onnx_ir

from ...ir import ModelError, UnsupportedError, attribute, fed_inputs
from ...ir.shapes import infer

OLD_OPSET: Final = 13
OLD_IR_VERSION: Final = 8

SAME_FORM: Final = frozenset(
    {
        *("Abs", "Add", "Ceil", "Clip", "Concat", "Conv", "ConvTranspose", "Cos", "DepthToSpace", "Div", "Elu", "Erf", "Exp"),
        *("Flatten", "Floor", "Gather", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "Identity"),
        *("InstanceNormalization", "LeakyRelu", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu"),
        *("Pad", "Pow", "Reciprocal", "ReduceSum", "Relu", "Reshape", "Resize", "Selu", "Sigmoid", "Sign", "Sin", "Slice"),
        *("Softmax", "Softplus", "Softsign", "SpaceToDepth", "Sqrt", "Squeeze", "Sub", "Tanh", "ThresholdedRelu", "Tile"),
        *("Transpose", "Unsqueeze", "Quant", "MultiThreshold"),
    }
)
"""Operators whose form did not change from opset 13 to 21, but for what `_NEWER` names, and those of QONNX."""

_NEWER: Final = {"Reshape": {"allowzero"}, "Resize": {"antialias", "axes", "keep_aspect_ratio_policy"}}
"""Operator -> attributes that opset 13 does not have."""

_INPUTS: Final = {"Pad": 3}
"""Operator -> most inputs in opset 13."""

_WORDS: Final = {"wrap", "half_pixel_symmetric"}
"""Values of `mode` and `coordinate_transformation_mode` that opset 13 does not have."""

_MOST_BYTES: Final = (1 << 31) - (1 << 20)


def with_batch_one(model: onnx_ir.Model, target: str) -> onnx_ir.Model:
    """A copy of a Q/DQ model for one example, every shape a number.

    Args:
        model: it is not changed.
        target: for whom, as the refusal says it.

    Raises:
        UnsupportedError: its inputs are for another number of examples, or a shape stays open.
    """
    result = model.clone()
    for value in fed_inputs(result.graph):
        if value.shape is not None:
            batch = value.shape[0] if len(value.shape) else None
            if isinstance(batch, int) and batch != 1:
                raise UnsupportedError(
                    f"target {target}: input {value.name!r}: it is written for one example, so a batch that is open or 1 is "
                    f"expected. Received: shape {list(value.shape)}"
                )
            value.shape = onnx_ir.Shape([dim if isinstance(dim, int) else 1 for dim in value.shape])
    for node in result.graph:
        for value in node.outputs:
            value.shape = None
    fixed = onnx_ir.serde.deserialize_model(infer(onnx_ir.serde.serialize_model(result), "model"))
    for node in fixed.graph:
        for value in node.outputs:
            if value.name and (value.shape is None or not value.shape.is_static()):
                raise UnsupportedError(
                    f"target {target}: {node.op_type} {node.name!r}: shapes must be numbers for one example. "
                    f"Received: {value.shape}"
                )
    return fixed


def check_size(model: onnx_ir.Model, target: str, more: int = 0) -> None:
    """Refuses what does not fit into one file.

    Args:
        model: as it will be written.
        target: for whom, as the refusal says it.
        more: bytes that are written beside its initializers.

    Raises:
        UnsupportedError: naming the size.
    """
    size = more + sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if size > _MOST_BYTES:
        raise UnsupportedError(f"target {target}: constants of at most 2 GB as float32 fit into one file. Received: {size} bytes")


def opset_for(model: onnx_ir.Model) -> int:
    """13 where every operator has the same form there, else the model's own."""
    return OLD_OPSET if all(_is_old(node) for node in model.graph) else model.graph.opset_imports[""]


def _is_old(node: onnx_ir.Node) -> bool:
    words = {attribute(node, name, "") for name in ("mode", "coordinate_transformation_mode")}
    newer = any(name in _NEWER.get(node.op_type, ()) and attribute(node, name, 0) for name in node.attributes)
    more = len(node.inputs) > _INPUTS.get(node.op_type, len(node.inputs))
    return node.op_type in SAME_FORM and not newer and not more and not words & _WORDS


def write_file(model: onnx_ir.Model, path: Path) -> int:
    """Writes a model that `check_size` let through in the oldest opset that says the same; returns the opset.

    Raises:
        ModelError: it is ill-formed.
    """
    opset = opset_for(model)
    model.graph.opset_imports[""] = opset
    if opset == OLD_OPSET:
        model.ir_version = OLD_IR_VERSION
        for node in model.graph:
            node.attributes.pop("allowzero", None)
            node.metadata_props.clear()  # newer than the format
    proto = onnx_ir.serde.serialize_model(model)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{path.name}: refusing to write an ill-formed model: {str(error).splitlines()[0]}") from error
    path.write_bytes(proto.SerializeToString())
    return opset
