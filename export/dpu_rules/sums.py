"""Which sums of what is written can leave 2^24: float32 holds every integer up to there (X1)."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx_ir

from ...ir import attribute, channel_totals, constant, contributions, integer_bounds, name_of
from ...kernels import fixed_point
from ..base import Source
from .draft import Draft
from .positions import Site

_EXACT: Final = 1 << 24


def large_sums(source: Source, draft: Draft, sites: tuple[Site, ...]) -> tuple[str, ...]:
    """Layers whose partial sums can leave 2^24, or have no bound, in order.

    Args:
        source: the model as it was; it says which tensors are never negative.
        draft: what is written.
        sites: of the draft.
    """
    nodes = {node.name or name_of(node.outputs[0]): node for node in draft.nodes}
    bounds = {site.node: sum_bound(source, draft, site, nodes[site.node]) for site in sites if site.kind == "layer"}
    return tuple(node for node, bound in bounds.items() if bound is None or bound > _EXACT)


def sum_bound(source: Source, draft: Draft, site: Site, node: onnx_ir.Node) -> int | None:
    """Largest magnitude of a partial sum, in units of the sum; None where the weights are computed."""
    data, weight = (draft.quantizers[value] for value in site.inputs)
    array = constant(node.inputs[1])
    if array is None:
        return None
    was = source.graph.by_value().get(data.value)
    low, high = integer_bounds(data.bits, data.signed)
    if was is not None and was.limit is not None:  # its Clip is kept (relu6)
        high = min(high, round(math.ldexp(was.limit, -data.decided_exponent)))
    if was is not None and not was.signed:
        low = 0
    weights = fixed_point.quantize(array, weight.decided_exponent, weight.bits, weight.signed)
    attributes = {name: attribute(node, name, None) for name in node.attributes}
    totals = [channel_totals(node.op_type, attributes, contributions(weights, *reach)) for reach in ((high, -low), (-low, high))]
    bias = None if site.bias is None else constant(node.inputs[2])
    unit = data.decided_exponent + weight.decided_exponent
    added = 0.0 if bias is None else np.abs(np.rint(np.ldexp(bias.astype(np.float64), -unit))).reshape(-1)
    return int((np.maximum(*totals) + added).max(initial=0))
