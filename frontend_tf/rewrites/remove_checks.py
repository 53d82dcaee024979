"""Nodes that watch or guard a tensor -> the tensor.

    CheckNumerics(x), Print(x), StopGradient(x), ...   ->   x

What they do is a side effect or concerns gradients; the numbers are their input's. Assert, summaries, save and restore hang
on the network by control edges or read it; nothing reads them, so they go when the graph is cut to its outputs.
"""

from __future__ import annotations

from typing import Final

from ..nodes import data_inputs, output_types
from .surgery import Surgery

_GUARDS: Final = frozenset(
    {"CheckNumerics", "CheckNumericsV2", "Print", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape"}
) | frozenset({"DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "DebugGradientIdentity", "Copy", "CopyHost", "DeepCopy"})


def remove_checks(surgery: Surgery) -> bool:
    """Makes each guard an Identity of its first input."""
    found = [name for name, node in surgery.nodes.items() if node.op in _GUARDS and name not in surgery.inputs]
    for name in found:
        surgery.become(name, data_inputs(surgery.nodes[name])[:1])
    several = [name for name, node in surgery.nodes.items() if node.op == "IdentityN" and name not in surgery.inputs]
    for name in several:
        if output_types(surgery.nodes[name]):
            surgery.become(name, data_inputs(surgery.nodes[name]))
    return bool(found or several)
