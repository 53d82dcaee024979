"""Is a graph lowered, and for which contract? Asked where a user's own list of passes takes the place of the recipe."""

from __future__ import annotations

import onnx_ir

from ..ir import Contract, UsageError
from .lower import lowering
from .node_roles import BIAS_ROLE, REQUANTIZE_ROLE, role_of


def refuse_unlowered(model: onnx_ir.Model, contract: Contract, *, unsigned_input: bool = False) -> None:
    """Refuses a graph that the recipe of the contract would still change, or that was lowered for the other one (L11).

    Args:
        model: is not changed.
        contract: what its quantizers will be annotated for.
        unsigned_input: as for `lower`.

    Raises:
        UsageError: names the first pass that is missing, or the contract that the graph was lowered for.
    """
    recipe = "quantize" if contract == "layer16" else "quantize-layer32"
    split = next((node for node in model.graph if role_of(node) in (BIAS_ROLE, REQUANTIZE_ROLE)), None)
    if contract == "layer32" and split is not None:
        raise UsageError(
            f"the passes lower for layer16 (node {split.name!r} is a bias split off), the layer bits say layer32; a list that "
            f"ends in the recipe {recipe!r} is expected. Received: split-bias"
        )
    trial = model.clone()
    for step in lowering(contract, unsigned_input=unsigned_input):
        if step.apply(trial):
            raise UsageError(
                f"the passes do not lower the graph for {contract}: {step.name} is missing; a list that ends in the recipe "
                f"{recipe!r} is expected"
            )
