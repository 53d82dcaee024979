"""From what folding left at the layers' nodes to batch norms that can be trained, where nothing else has changed a layer (B2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import COMPUTE, FoldedBatchNorm, ModelError, attribute, batch_norm_of, constant, name_of, only_consumer
from ..kernels.batch_norm import fold
from .batch_norm_specs import ROLES, BatchNormSpec, BatchNormSpecs, step_of
from .program import Program

Array = npt.NDArray[Any]
Arrays = Mapping[str, Mapping[str, Array]]
"""Weight of the lowered graph -> role -> array, in the layout of ONNX."""


def recorded_batch_norms(model: onnx_ir.Model, program: Program) -> tuple[BatchNormSpecs, Arrays]:
    """The batch norms of a model whose records still describe it.

    Args:
        model: lowered and float.
        program: the same.

    Returns:
        The layers, and the arrays of their variables. A record whose fold is not, bit for bit, what the layer has today is not
        used: the layer is then listed with the reason.
    """
    found: list[BatchNormSpec] = []
    arrays: dict[str, Mapping[str, Array]] = {}
    reasons: dict[str, str] = {}
    for node in model.graph:
        record = batch_norm_of(node) if node.op_type in COMPUTE else None
        if record is None:
            continue
        taken = _taken_apart(node, record, program)
        if isinstance(taken, str):
            reasons[node.name or name_of(node.outputs[0])] = taken
        else:
            found.append(taken)
            arrays[taken.weight] = {role: getattr(record, role) for role in taken.names}
    derived = {name for spec in found for name in (spec.weight, spec.bias)}
    return BatchNormSpecs(tuple(_named(found, set(program.weights) - derived)), reasons), arrays


def _taken_apart(node: onnx_ir.Node, record: FoldedBatchNorm | str, program: Program) -> BatchNormSpec | str:
    """A layer's batch norm, or the reason why it stays folded."""
    if isinstance(record, str):
        return record
    bias = _bias(node)
    if bias is None:
        return "its batch norm has no term, or others read it too: there is no bias to train"
    reason = _difference(node, record, constant(node.inputs[1]), constant(bias))
    if reason is not None:
        return reason
    weight = name_of(node.inputs[1])
    spec = BatchNormSpec(weight, name_of(bias), record.epsilon, record.unbiased, {**record.names, "weight": weight})
    try:
        step_of(spec, program)
    except ModelError as error:
        return str(error)
    return spec


def _bias(node: onnx_ir.Node) -> onnx_ir.Value | None:
    """The layer's bias, its own input or split off (L1), which nobody else reads."""
    found = node.inputs[2] if len(node.inputs) > 2 else None
    reader = only_consumer(node.outputs[0])
    if found is None and reader is not None and reader.op_type == "Add":
        found = next((value for value in reader.inputs if value is not node.outputs[0]), None)
    return found if found is not None and found.is_initializer() and len(found.uses()) == 1 else None


def _difference(node: onnx_ir.Node, found: FoldedBatchNorm, weight: Array | None, bias: Array | None) -> str | None:
    """Why the record does not describe the layer; None where it does."""
    vectors = [getattr(found, role) for role in ROLES[1:] if getattr(found, role) is not None]
    if weight is None or bias is None or found.weight.shape != weight.shape or any(v.shape != (bias.size,) for v in vectors):
        return "its weight has been changed since its batch norm was folded into it"
    if any(array.dtype != np.float32 for array in (weight, bias, found.weight, *vectors[:4])):
        return "its numbers are not float32"
    if found.bias is not None and (found.bias != found.bias.astype(np.float32)).any():
        return "its bias was put together of several"
    norm = (found.gamma, found.beta, found.mean, found.variance)
    folded = fold(found.weight, found.bias, norm, found.epsilon, node.op_type, attribute(node, "group", 1))
    same = all(
        np.array_equal(ours.reshape(theirs.shape).view(np.int32), np.ascontiguousarray(theirs).view(np.int32))
        for ours, theirs in zip(folded, (weight, bias), strict=True)
    )
    return None if same else "its weight or bias has been changed since its batch norm was folded into it"


def _named(specs: Iterable[BatchNormSpec], taken: set[str]) -> Iterator[BatchNormSpec]:
    """The same with names that no other variable has: what several layers share becomes each one's own."""
    for spec in specs:
        names = {}
        for role, name in spec.names.items():
            names[role] = f"{name}__of__{spec.weight}" if name in taken else name
            taken.add(names[role])
        yield replace(spec, names=names)
