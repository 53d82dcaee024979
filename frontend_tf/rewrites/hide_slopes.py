"""Maximum(a * x, x) with several slopes: tf2onnx takes it for a leaky relu with one, and fails. An Identity hides that both read x.

Mul(Const a[C], x)      =>      Mul(Const a[C], Identity(x))
"""

from __future__ import annotations

import tensorflow as tf

from ..nodes import constant_of, data_inputs, make_node, node_of
from .surgery import Surgery


def hide_slopes(surgery: Surgery) -> bool:
    """Applies the rule to every product with a constant of rank 1 or more that a Maximum reads beside its other factor."""
    found = []
    for node in surgery.nodes.values():
        operands = data_inputs(node) if node.op == "Maximum" else []
        for read, other in (operands, operands[::-1]) if len(operands) == 2 else ():
            product = surgery.nodes.get(node_of(read))
            if product is not None and product.op == "Mul" and other in data_inputs(product):
                found.append((product, data_inputs(product).index(other)))
    changed = False
    for product, index in found:
        slopes = constant_of(surgery.nodes, data_inputs(product)[1 - index])
        if slopes is None or not slopes.ndim:
            continue
        hidden = make_node(
            surgery.fresh(f"{product.name}/x"),
            "Identity",
            [product.input[index]],
            T=tf.dtypes.as_dtype(product.attr["T"].type),
        )
        surgery.put(hidden)
        product.input[index] = hidden.name
        changed = True
    return changed
