"""Constants stored in another form -> float32 constants.

    Dequantize(Const uint8, min, max), Cast(Const float16)   ->   Const float32

TensorFlow's own graph tools store weights like this to make files small; TensorFlow decodes them once, here.
"""

from __future__ import annotations

from typing import Final

import tensorflow as tf

from ..nodes import make_constant, output_types
from .static_values import static_values
from .surgery import Surgery

_DECODERS: Final = frozenset({"Dequantize", "Cast", "Bitcast"})


def decode_constants(surgery: Surgery) -> bool:
    """Replaces each decoder of constants by its value."""
    surgery.close()
    found = [
        name
        for name, node in surgery.nodes.items()
        if node.op in _DECODERS and name not in surgery.inputs and output_types(node) == [tf.float32]
    ]
    values = static_values(surgery.nodes, found, surgery.inputs)
    for name, value in values.items():
        surgery.put(make_constant(name, value))
    return bool(values)
