"""ExtractImagePatches of square blocks that tile the image -> SpaceToDepth, for the conversion only.

    ExtractImagePatches[k x k, stride k, rate 1](x)   ->   SpaceToDepth[k](x)

YOLOv2's reorg layer is written so. Both order channels by row, column, channel. VALID drops what is left over at the end:
that is sliced off first. SAME pads there, so it is rewritten only where nothing is left over. tf2onnx makes a convolution of
the operator, for a batch of one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import tensorflow as tf

from ..inference.cut import import_graph
from ..nodes import data_inputs, make_constant, make_node
from .surgery import Surgery

_OP: Final = "ExtractImagePatches"


def patches_to_space_to_depth(surgery: Surgery) -> bool:
    """Applies the rule; patches that overlap, leave gaps or lie in an image of unknown size stay as they are."""
    found = [(node, block) for node in surgery.nodes.values() if node.op == _OP and (block := _block(node))]
    if not found:
        return False
    graph = import_graph(surgery.where, surgery.result())
    changed = False
    for node, block in found:
        shape = graph.get_operation_by_name(node.name).inputs[0].shape
        if shape.rank == 4 and None not in shape[1:3]:
            changed |= _rewrite(surgery, node, block, [int(size) for size in shape[1:3]])
    return changed


def _block(node: Any) -> int:
    """Side of the blocks, 0 where the patches are none."""
    sizes, strides, rates = (list(node.attr[name].list.i) for name in ("ksizes", "strides", "rates"))
    square = len(sizes) == 4 and sizes[1] == sizes[2] > 1 and sizes == strides and rates == [1] * 4
    return int(sizes[1]) if square else 0


def _rewrite(surgery: Surgery, node: Any, block: int, sizes: list[int]) -> bool:
    kept = [size - size % block for size in sizes]
    if 0 in kept or (kept != sizes and node.attr["padding"].s != b"VALID"):
        return False
    name, kind = node.name, tf.dtypes.as_dtype(node.attr["T"].type)
    tensor = data_inputs(node)[0]
    if kept != sizes:
        begin = make_constant(surgery.fresh(f"{name}/begin"), np.zeros(4, np.int32))
        size = make_constant(surgery.fresh(f"{name}/size"), np.asarray([-1, *kept, -1], np.int32))
        crop = make_node(surgery.fresh(f"{name}/crop"), "Slice", [tensor, begin.name, size.name], T=kind, Index=tf.int32)
        surgery.put(begin, size, crop)
        tensor = crop.name
    surgery.put(make_node(name, "SpaceToDepth", [tensor], T=kind, block_size=block, data_format="NHWC"))
    return True
