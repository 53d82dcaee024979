"""Reads of a variable in a branch or function that was inlined -> its constant.

    Const w, VarHandleOp w/variable -> If(...) -> [ReadVariableOp]   ->   Const w -> Identity

Variables become constants before calls and branches are inlined; what is handed into those is the handle. It says itself
which constant holds its value (`FROZEN_AS`), so that reads that come to light later find it.
"""

from __future__ import annotations

from typing import Final

import tensorflow as tf

from ..nodes import data_inputs, make_node, node_of
from .surgery import Surgery

FROZEN_AS: Final = "_tqt_onnx_frozen_as"
"""Attribute of a handle: the node that holds its value."""


def read_frozen(surgery: Surgery) -> bool:
    """Makes every ReadVariableOp whose handle knows its constant an Identity of that."""
    changed = False
    for name, node in list(surgery.nodes.items()):
        if node.op != "ReadVariableOp" or name in surgery.inputs or not data_inputs(node):
            continue
        handle = surgery.nodes.get(node_of(surgery.source(data_inputs(node)[0])))
        while handle is not None and handle.op == "Identity":
            handle = surgery.nodes.get(node_of(data_inputs(handle)[0]))
        constant = surgery.nodes.get(handle.attr[FROZEN_AS].s.decode(errors="replace")) if handle is not None else None
        if constant is None or constant.op != "Const":
            continue
        surgery.put(make_node(name, "Identity", [constant.name], T=tf.dtypes.as_dtype(constant.attr["dtype"].type)))
        changed = True
    return changed
