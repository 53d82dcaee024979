"""Erfc(x) -> 1 - Erf(x), for the conversion only: ONNX has no Erfc.

Keras' exact gelu is written with it. The two differ by float32 rounding where x > 0 is large: erfc(x) itself is small there,
and 1 - erf(x) is known to 6e-8.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ..nodes import data_inputs, make_constant, make_node
from .surgery import Surgery


def erfc_to_erf(surgery: Surgery) -> bool:
    """Applies the rule to every float32 Erfc."""
    found = [
        name for name, node in surgery.nodes.items() if node.op == "Erfc" and node.attr["T"].type == tf.float32.as_datatype_enum
    ]
    for name in found:
        erf = make_node(surgery.fresh(f"{name}/erf"), "Erf", data_inputs(surgery.nodes[name]), T=tf.float32)
        one = make_constant(surgery.fresh(f"{name}/one"), np.float32(1.0))
        surgery.put(one, erf, make_node(name, "Sub", [one.name, erf.name], T=tf.float32))
    return bool(found)
