"""A model of another opset at the one opset this project speaks (O1).

Older ones are lifted by `onnx.version_converter`. Newer ones are taken over where every node means the same in opset 21:
the operator has the same inputs, outputs, attributes and defaults there, and the node uses no attribute that came later.
"""

from __future__ import annotations

from typing import Any, Final

import onnx

from ..ir.errors import ModelError, UnsupportedError
from ..ir.opset import IR_VERSION, OPSET
from ..ir.outline import completed, outline
from ..ir.reading import label, opset_of, reason
from .foreign import constants_of

OLDEST: Final = 7
"""The oldest opset that onnxruntime runs, and so the oldest that a result could be compared with."""

_ASYMMETRIC_UNTIL: Final = 10
"""Up to here Resize and Upsample look up `floor(i / scale)`, or `ceil` where they make smaller; later ones have other defaults,
and the converter says nothing about it."""


def check_opset(proto: onnx.ModelProto, file: object) -> None:
    """Whether the opset is one that can be read here.

    Raises:
        ModelError: it is older than 7, or newer than the installed onnx knows.
    """
    version, newest = opset_of(proto), onnx.defs.onnx_opset_version()
    if not OLDEST <= version <= newest:
        raise ModelError(f"{file}: an opset of {OLDEST} to {newest} is expected. Received: {version}")


def lift(proto: onnx.ModelProto, file: object) -> onnx.ModelProto:
    """The same network in opset 21, without imports of other domains.

    Args:
        proto: of an opset that `check_opset` accepts; changed in place.
        file: for messages.

    Raises:
        UnsupportedError: an operator that cannot be said in opset 21.
    """
    version = opset_of(proto)
    if version > OPSET:
        _refuse_newer(proto, version, file)
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", version))
    return _raised(proto, version, file) if version < OPSET else _stamped(proto)


def _stamped(proto: onnx.ModelProto) -> onnx.ModelProto:
    proto.opset_import[0].version = OPSET
    proto.ir_version = IR_VERSION
    return proto


def _raised(proto: onnx.ModelProto, version: int, file: object) -> onnx.ModelProto:
    try:
        lifted = onnx.version_converter.convert_version(outline(proto), OPSET)
    except Exception as error:  # onnx raises whatever its C++ lets out
        raise UnsupportedError(f"{file}: cannot be lifted from opset {version} to {OPSET}: {reason(error)}") from None
    completed(lifted, proto.graph.initializer, [value.name for value in proto.graph.input])
    if version <= _ASYMMETRIC_UNTIL:
        _keep_resizing(lifted.graph)
    known = {label(node): node for node in proto.graph.node}
    for node in lifted.graph.node:  # the converter forgets their metadata, and older ones the model's
        if label(node) in known:
            node.metadata_props.extend(known[label(node)].metadata_props)
    del lifted.metadata_props[:]
    lifted.metadata_props.extend(proto.metadata_props)
    return _stamped(lifted)


def _keep_resizing(graph: onnx.GraphProto) -> None:
    """Says what older Resize and Upsample left unsaid, as onnxruntime computes it."""
    constants = constants_of(graph)
    for node in graph.node:
        if node.op_type == "Resize":
            scales = constants.get(node.input[2]) if len(node.input) > 2 else None
            smaller = scales is not None and (onnx.numpy_helper.to_array(scales) < 1).any()
            node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(onnx.helper.make_attribute("nearest_mode", "ceil" if smaller else "floor"))


def _refuse_newer(proto: onnx.ModelProto, version: int, file: object) -> None:
    for node in proto.graph.node:
        where = f"{file}: {node.op_type} node {label(node)!r}"
        new = onnx.defs.get_schema(node.op_type, version, "")
        try:
            old = onnx.defs.get_schema(node.op_type, OPSET, "")
        except onnx.defs.SchemaError:
            raise UnsupportedError(f"{where}: an operator of opset {OPSET} is expected. Received: one of opset {version}") from None
        later = {attribute.name for attribute in node.attribute} - set(old.attributes)
        if later:
            raise UnsupportedError(f"{where}: attribute {min(later)!r} is newer than opset {OPSET}, which is what is written")
        if _signature(new, old) != _signature(old, old):
            raise UnsupportedError(f"{where}: it means something else in opset {OPSET}. Received: opset {version}")


def _signature(schema: Any, old: Any) -> Any:
    """Inputs, outputs, and the attributes that the older one knows."""
    attributes = {
        name: (str(attribute.type), attribute.required, attribute.default_value.SerializeToString())
        for name, attribute in schema.attributes.items()
        if name in old.attributes
    }
    return [(part.name, part.option) for part in (*schema.inputs, *schema.outputs)], attributes
