"""Truncated models: which tensor is the first that the optimized engine gets wrong (X3)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import onnx_ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..ir import ModelError, constant, name_of
from .batches import Feeds, slices
from .compare import Difference, compare
from .oracle import Oracle
from .plan import Plan
from .runtime import Session, storage

logger = logging.getLogger(__name__)


def truncated(model: onnx_ir.Model, outputs: Sequence[str], inputs: Sequence[str] = ()) -> onnx_ir.Model:
    """A clone that ends at the given float values; what does not lead to them is gone.

    Args:
        model: a Q/DQ model.
        outputs: computed values it ends at.
        inputs: integer tensors that are fed instead of computed, besides the model's own inputs.

    Raises:
        ModelError: there is no value of such a name.
    """
    clone = model.clone()
    values = {value.name: value for node in clone.graph for value in node.outputs}
    for name in inputs:
        if name not in values:
            raise ModelError(f"there is no computed tensor of that name to start a model at. Received: {name!r}")
        computed = values[name]
        fed = onnx_ir.Value(name=name, shape=computed.shape, type=onnx_ir.TensorType(storage(computed)))
        computed.replace_all_uses_with(fed, replace_graph_outputs=True)
        computed.name = f"{name}__computed"
        clone.graph.inputs.append(fed)
    clone.graph.outputs.clear()
    for name in outputs:
        if name not in values:
            raise ModelError(f"there is no computed value of that name to end a model at. Received: {name!r}")
        value = values[name]
        value.type = value.type or onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        clone.graph.outputs.append(value)
    RemoveUnusedNodesPass()(clone)
    return clone


def dequantized_values(model: onnx_ir.Model) -> list[str]:
    """Names of all computed values that leave a DequantizeLinear, in topological order."""
    nodes = (node for node in model.graph if node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is None)
    return [name_of(node.outputs[0]) for node in nodes]


def last_fixed_values(model: onnx_ir.Model, plan: Plan, uncertified: Collection[str] = ()) -> tuple[str, ...]:
    """Dequantized values that islands or layers without certificate read: the last that are promised in front of them."""
    tables = {node for region in plan.tables.values() if region.exit.name in uncertified for node in region.nodes}
    readers = [node for node in model.graph if plan.is_island(node) or node in tables or node.outputs[0].name in uncertified]
    read = {value.name for node in readers for value in node.inputs if value is not None}
    return tuple(name for name in dequantized_values(model) if name in read)


def bisect_optimized(model: onnx_ir.Model, feeds: Feeds, optimized: onnx_ir.Model | None = None) -> Difference | None:
    """The first value, in topological order, at which a model that ends there differs when run with all optimizations.

    Every prefix is run: cutting changes what onnxruntime fuses, so that a binary search could miss the first.

    Args:
        model: a Q/DQ model.
        feeds: one batch; its first images are enough.
        optimized: the model onnxruntime runs, where it is not the same.

    Raises:
        ModelError: onnxruntime does not load one of the truncated models.
    """
    names = dequantized_values(model)
    few = next(slices(feeds))
    expected = Oracle(model).run(few, keep=names)
    for name in names:
        if name not in expected:
            continue
        received = Session(truncated(optimized or model, (name,)), optimize=True).run(few)
        found = compare({name: expected[name]}, received, "ort-optimized")
        logger.debug("truncated at %s: %s", name, found or "equal")
        if found:
            return found[0]
    return None
