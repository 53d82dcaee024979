"""What no output needs goes: nodes, initializers, functions.

    y = Relu(x)
    a = Neg(x)        =>      y = Relu(x)
    b = Abs(a)

Graph inputs stay, read or not (O3). `run_passes` does the same for nodes and initializers behind every pass that changed
something; this one is for lists of the user's own, and for graphs that come with passengers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from .base import remove_unused


@dataclass(frozen=True)
class StripUnused:
    """Removes nodes, initializers and functions that no output depends on."""

    name: ClassVar[str] = "strip-unused"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        modified = remove_unused(model)
        called = {node.op_identifier() for graph in (model.graph, *model.functions.values()) for node in graph}
        for identifier in [key for key in model.functions if key not in called]:
            del model.functions[identifier]
            modified = True
        return modified
