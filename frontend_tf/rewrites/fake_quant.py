"""FakeQuant nodes -> nothing, their ranges kept beside the graph.

    FakeQuantWithMinMaxVars(x, min, max)      ->   x,   range of x = [min, max]
    QuantizeAndDequantizeV2(x, min, max)      ->   x,   range of x = [min, max]

They simulate 8 bits with free scales, rounded half up; what is quantized here has power-of-two scales, rounded half to even
(Q1, Q4). So the network arrives in float, and the ranges serve as its first thresholds. Of ranges per channel the widest is
kept, since a tensor has one scale (Q4); a tensor with several FakeQuant nodes has the union of their ranges.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...ir import UnsupportedError
from ..nodes import data_inputs
from .static_values import static_values
from .surgery import Surgery

_VARS: Final = frozenset({"FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"})
_ARGS: Final = "FakeQuantWithMinMaxArgs"
_ROUND_TRIPS: Final = frozenset(
    {"QuantizeAndDequantize", "QuantizeAndDequantizeV2", "QuantizeAndDequantizeV3", "QuantizeAndDequantizeV4"}
)


def take_out_fake_quant(surgery: Surgery) -> bool:
    """Makes each of them an Identity and records its range in `surgery.ranges`, for its own name and for its input's.

    Raises:
        UnsupportedError: a range that is computed at run time.
    """
    found = [
        name
        for name, node in surgery.nodes.items()
        if (node.op in _VARS or node.op == _ARGS or node.op in _ROUND_TRIPS) and name not in surgery.inputs
    ]
    surgery.close()
    bounds = {name: data_inputs(surgery.nodes[name])[1:3] for name in found}
    values = static_values(surgery.nodes, [tensor for pair in bounds.values() for tensor in pair], surgery.inputs)
    for name in found:
        _record(surgery, name, [values.get(tensor) for tensor in bounds[name]])
    return bool(found)


def _record(surgery: Surgery, name: str, bounds: list[npt.NDArray[Any] | None]) -> None:
    node = surgery.nodes[name]
    if node.op == _ARGS:
        low, high = node.attr["min"].f, node.attr["max"].f
    else:
        given = node.op in _VARS or (node.attr["range_given"].b if "range_given" in node.attr else True)
        if not given or len(bounds) != 2 or any(bound is None for bound in bounds):
            raise UnsupportedError(
                f"{surgery.where}: {node.op} {name!r} computes its range at run time; a range of constants is expected, "
                "or the network without it"
            )
        low, high = float(np.min(np.asarray(bounds[0]))), float(np.max(np.asarray(bounds[1])))
    source = data_inputs(node)[0]
    surgery.become(name, [source])
    for tensor in (name, surgery.source(source)):
        known = surgery.ranges.get(tensor, (low, high))
        surgery.ranges[tensor] = (min(known[0], low), max(known[1], high))
