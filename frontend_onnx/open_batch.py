"""Inputs whose first dimension is open and whose others are fixed.

x [1,3,8,8] ... Reshape(a, [1, 128])    ->    x [N,3,8,8] ... Reshape(a, [0, 128])

A Reshape from [b, ...] to [b, ...] keeps the images apart, since both sides count the same elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx

from ..ir.errors import ModelError, UnsupportedError
from ..ir.reading import label
from ..ir.shapes import infer, inferred_outline

BATCH: Final = "N"
"""What an open first dimension is called where the model has no name for it."""

_STAND_IN: Final = 1009
"""Batch size that open ones get while shapes are looked at: a prime that no other dimension is likely to have."""


def open_batch(proto: onnx.ModelProto, file: object, input_shape: Sequence[int] | None) -> onnx.ModelProto:
    """The same network for any batch size, shapes inferred.

    Args:
        proto: opset 21; changed in place.
        file: for messages.
        input_shape: shape of the inputs without the batch, in their own layout, where the model leaves it open.

    Raises:
        ModelError: dimensions that are not known, an `input_shape` that fits no input, or shapes that contradict each other.
        UnsupportedError: something in the network fixes the batch, so that images cannot be kept apart.
    """
    _fix(proto, file, None if input_shape is None else tuple(input_shape))
    first = {value.name: _dims(value)[0] for value in proto.graph.input}
    sizes = {name: dim.dim_value for name, dim in first.items() if dim.dim_value > 0}
    if len(set(sizes.values())) > 1:
        raise UnsupportedError(f"{file}: inputs of one batch size, in their first dimension, are expected. Received: {sizes}")
    symbol = next((dim.dim_param for dim in first.values() if dim.dim_param), BATCH)
    for output in proto.graph.output:  # what they declare is inferred anew
        if output.HasField("type"):
            output.type.tensor_type.ClearField("shape")
    failure: ModelError | UnsupportedError | None = None
    for size in list(sizes.values())[:1] or (_STAND_IN, 1):  # some models claim an open batch, but hold [1, -1]
        try:
            return _opened(proto, file, list(first.values()), size, symbol)
        except (ModelError, UnsupportedError) as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _opened(
    proto: onnx.ModelProto, file: object, dims: Sequence[onnx.TensorShapeProto.Dimension], size: int, symbol: str
) -> onnx.ModelProto:
    """What holds for one batch size is said for all."""
    for dim in dims:
        dim.dim_value = size
    _free_reshapes(inferred_outline(proto, file), proto, size)
    for dim in dims:
        dim.dim_param = symbol
    inferred = infer(proto, file)
    _refuse_fixed(inferred, symbol, file)
    return inferred


def _dims(value: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _fix(proto: onnx.ModelProto, file: object, wanted: tuple[int, ...] | None) -> None:
    """Gives open dimensions behind the first one the size that was asked for."""
    fitting = 0
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        if wanted is not None and not tensor.HasField("shape"):
            tensor.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in range(len(wanted) + 1))
        known = [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]
        if not known:
            what = "a scalar" if tensor.HasField("shape") else "no shape; it can be given as --input-shape, without the batch"
            raise ModelError(f"{file}: input {value.name!r}: [batch, ...] is expected. Received: {what}")
        rest = known[1:]
        if wanted is not None and len(rest) == len(wanted) and all(a in (None, b) for a, b in zip(rest, wanted, strict=True)):
            fitting += 1
            for dim, size in zip(list(tensor.shape.dim)[1:], wanted, strict=True):
                dim.dim_value = size
        elif None in rest:
            shown = _shown(value)
            hint = "the shape without the batch, in this order, is expected as --input-shape"
            given = "" if wanted is None else f" and {list(wanted)}"
            raise ModelError(f"{file}: input {value.name!r} has open dimensions; {hint}. Received: {shown}{given}")
        if known[0] is None and not tensor.shape.dim[0].dim_param:
            tensor.shape.dim[0].Clear()  # -1 and 0 are written for open dimensions, too
    if wanted is not None and not fitting:
        listed = ", ".join(f"{value.name!r} {_shown(value)}" for value in proto.graph.input)
        raise ModelError(f"{file}: no input has the shape {list(wanted)} that was given; the model says {listed}")


def _shown(value: onnx.ValueInfoProto) -> str:
    return f"[{', '.join(str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or '?' for dim in _dims(value))}]"


def _free_reshapes(inferred: onnx.ModelProto, proto: onnx.ModelProto, batch: int) -> None:
    """Constant targets of Reshape in `proto` copy the batch; `inferred` has the shapes for one batch size."""
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    shapes = {value.name: [dim.dim_value for dim in _dims(value)] for value in values}
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    taken = {tensor.name for tensor in proto.graph.initializer} | shapes.keys()
    for node in proto.graph.node:
        target = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        before, after = shapes.get(next(iter(node.input), ""), []), shapes.get(node.output[0], [])
        known = bool(before) and bool(after) and all(before) and all(after) and before[0] == after[0] == batch
        if target is None or not known or onnx.numpy_helper.to_array(target).reshape(-1)[0] not in (batch, -1):
            continue
        name = f"{node.output[0]}__shape"
        while name in taken:
            name += "_"
        taken.add(name)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([0, *after[1:]], np.int64), name))
        node.input[1] = name
        kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)


def _refuse_fixed(inferred: onnx.ModelProto, batch: str, file: object) -> None:
    """Every output must begin with the batch, or with a dimension of which nothing is known."""
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    first = {value.name: _dims(value)[0] for value in values if _dims(value)}
    for output in inferred.graph.output:
        if output.name in first and not first[output.name].HasField("dim_value"):
            continue
        culprit = next(
            (
                node
                for node in inferred.graph.node
                if any(name in first and first[name].dim_param == batch for name in node.input)
                and not any(name in first and not first[name].HasField("dim_value") for name in node.output)
            ),
            None,
        )
        why = "" if culprit is None else f"; {culprit.op_type} node {label(culprit)!r} is where the batch ends"
        raise UnsupportedError(f"{file}: output {output.name!r}: [{batch}, ...] is expected{why}. Received: {_shown(output)}")
