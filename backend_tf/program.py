"""The ONNX graph as a list of steps, its constants and the description of its weights: what the Keras model interprets."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir

from ..ir import ROLE_KEY, FunctionRegion, ModelError, UnsupportedError, attribute, function_regions, name_of, static_shape
from .layout import Form, store_shape

STRUCTURAL = {"Clip": (1, 2), "Pad": (2,), "Resize": (2,)}
"""Float inputs that say what an operator does, by operator: constants of the program, not weights; nor are those of functions."""


_RESHAPING = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""What may stand between a Softmax and the output of the graph without changing which class is which."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node: operator, names of the values it reads (None where left out) and writes, attributes as plain Python values."""

    op: str
    name: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def get(self, attribute: str, default: Any) -> Any:
        """Value of an attribute, or the default."""
        return self.attributes.get(attribute, default)

    def given(self, index: int) -> bool:
        """Whether the optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def input(self, index: int) -> str:
        """Name of an input that must be there."""
        name = self.inputs[index] if index < len(self.inputs) else None
        if name is None:
            raise ModelError(f"{self.op} {self.name!r} needs input {index}. Received: {self.inputs}")
        return name

    def refuse(self, what: str, received: object) -> UnsupportedError:
        """The error for something this operator cannot be asked here."""
        return UnsupportedError(f"regenerate: {self.op} {self.name!r}: {what}. Received: {received}")


@dataclass(frozen=True, slots=True)
class Weight:
    """A float initializer: a Keras variable of the regenerated model.

    Attributes:
        name: its ONNX name.
        shape: its ONNX shape.
        form: how it is stored.
        groups: groups of the convolution it belongs to.
        trainable: False for reciprocals of average pools and moving statistics.
    """

    name: str
    shape: tuple[int, ...]
    form: Form
    groups: int
    trainable: bool

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the variable."""
        return store_shape(self.shape, self.form, self.groups)


@dataclass(frozen=True, slots=True)
class Program:
    """What there is to compute.

    Attributes:
        inputs: name -> (shape with None where it is free, NumPy dtype), in order.
        outputs: names, in order.
        steps: nodes in topological order.
        weights: float initializers by name.
        constants: every other initializer (shapes, axes, bounds of a Clip) by name.
        functions: outputs of the nodes that make up functions of one integer (L12).
    """

    inputs: dict[str, tuple[tuple[int | None, ...], np.dtype[Any]]]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    weights: dict[str, Weight]
    constants: dict[str, npt.NDArray[Any]]
    functions: frozenset[str] = frozenset()

    def logits(self, output: str) -> str:
        """The value in front of the Softmax that gives this output, through what only reshapes it; else the output itself."""
        makers = {name: step for step in self.steps for name in step.outputs}
        value, step = output, makers.get(output)
        while step is not None and step.op in _RESHAPING:
            value = step.input(0)
            step = makers.get(value)
        return step.input(0) if step is not None and step.op == "Softmax" else output


def parse(model: onnx_ir.Model, quantized: Container[str] = ()) -> Program:
    """The program of a lowered float model.

    Args:
        model: its weights need no data.
        quantized: names of the values that have quantizers; a constant among them is no part of a function.

    Raises:
        ModelError: a value without a name, or an input without type or rank.
        UnsupportedError: an operator of another domain.
    """
    graph = model.graph
    steps = tuple(_step(node) for node in graph)
    structural = {step.inputs[index] for step in steps for index in STRUCTURAL.get(step.op, ()) if index < len(step.inputs)}
    regions = [region for region in function_regions(graph) if not any(name in quantized for name in _constants(region))]
    inside = [node for region in regions for node in region.nodes]
    structural |= {name for region in regions for name in _constants(region)}
    weights: dict[str, Weight] = {}
    constants: dict[str, npt.NDArray[Any]] = {}
    for name, value in graph.initializers.items():
        if value.dtype == onnx_ir.DataType.FLOAT and name not in structural:
            weights[name] = _weight(name, value)
        else:
            if value.const_value is None:
                raise ModelError(f"initializer {name!r} has no data")
            constants[name] = value.const_value.numpy()
    inputs = {}
    for value in graph.inputs:
        shape = static_shape(value)
        if shape is None or value.dtype is None:
            raise ModelError(f"input {value.name!r} needs a type and a rank. Received: {value.type}, {value.shape}")
        inputs[name_of(value)] = (shape, value.dtype.numpy())
    functions = frozenset(name_of(value) for node in inside for value in node.outputs)
    return Program(inputs, tuple(name_of(value) for value in graph.outputs), steps, weights, constants, functions)


def _constants(region: FunctionRegion) -> set[str]:
    """Names of the initializers that a function reads."""
    read = (value for node in region.nodes for value in node.inputs if value is not None and value.is_initializer())
    return {name_of(value) for value in read}


def skeleton(model: onnx_ir.Model, quantized: Container[str] = ()) -> tuple[bytes, dict[str, npt.NDArray[Any]]]:
    """The serialised model without the data of its weights, and that data: `parse` reads the first, variables hold the second."""
    weights = parse(model, quantized).weights
    arrays = {}
    proto = onnx_ir.serde.serialize_model(model)
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            arrays[tensor.name] = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    return proto.SerializeToString(), arrays


def fill(model: onnx_ir.Model, arrays: Mapping[str, npt.NDArray[np.float32]]) -> onnx_ir.Model:
    """The model of a skeleton with data for all its weights (in place)."""
    for name, array in arrays.items():
        model.graph.initializers[name].const_value = onnx_ir.tensor(
            np.asarray(array, order="C"), name=name
        )  # ascontiguousarray makes scalars vectors
    return model


def _step(node: onnx_ir.Node) -> Step:
    if node.domain not in {"", "ai.onnx"}:
        raise UnsupportedError(
            f"regenerate: node {node.name!r}: operators of the ONNX domain are expected. Received: {node.domain}::{node.op_type}"
        )
    outputs = tuple(name_of(value) for value in node.outputs if value.name)
    inputs = tuple(None if value is None else name_of(value) for value in node.inputs)
    attributes = {name: attribute(node, name, None) for name in node.attributes}
    return Step(node.op_type, node.name or outputs[0], inputs, outputs, attributes)


def _weight(name: str, value: onnx_ir.Value) -> Weight:
    """Stored for its convolution where all its readers are convolutions of one kind, as in ONNX elsewhere."""
    shape = static_shape(value)
    assert shape is not None
    dims = tuple(int(dim or 0) for dim in shape)
    forms = {_form(node, index, dims) for node, index in value.uses()}
    form, groups = forms.pop() if len(forms) == 1 else ("plain", 1)
    trainable = not any(_is_fixed(node, index) for node, index in value.uses())
    return Weight(name, dims, form, groups, trainable)


def _form(node: onnx_ir.Node, index: int, shape: tuple[int, ...]) -> tuple[Form, int]:
    """What one reader would have a weight stored as, and the groups that a depthwise kernel is divided into.

    `[in, out, H, W]` of a transposed convolution becomes TensorFlow's `[H, W, out, in]` by the same move as a kernel's HWIO.
    """
    if node.op_type not in ("Conv", "ConvTranspose") or index != 1 or len(shape) != 4:
        return "plain", 1
    groups = attribute(node, "group", 1)
    return ("depthwise", groups) if node.op_type == "Conv" and groups > 1 and shape[1] == 1 else ("conv", 1)


def _is_fixed(node: onnx_ir.Node, index: int) -> bool:
    """Reciprocals of pools, slopes of leaky relus and moving statistics are no gradient's business."""
    return node.metadata_props.get(ROLE_KEY) in {"reciprocal", "slope", "sum"} or (
        node.op_type == "BatchNormalization" and index in {3, 4}
    )
