"""Behind a Resize that stays float stands a Reshape to the shape it has.

    y = Resize<mode = "cubic">(x, , {1, 1, 0.5, 0.5})     =>      y__resized = Resize<mode = "cubic">(x, , {1, 1, 0.5, 0.5})
                                                                  y = Reshape(y__resized, {0, C, H, W})

Between quantized layers onnxruntime 1.31 moves the Transposes of its own layout across a Resize, where its kernels cannot make
an image smaller, and where it reorders what there is one of for each of the `axes`: the session does not load. It moves none
across a Reshape; nothing else is a fence (Max, Sum, Tile, Concat, Where of one tensor are crossed or taken out).

Refused: shapes that are not known.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import SOURCE_KEY, add_initializer, add_node, name_of, only_consumer, rename, static_shape
from .resizes import repeats_whole
from .rewriting import is_op, refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FenceResizes:
    """Keeps onnxruntime's layouts out of Resizes that stay float."""

    name: ClassVar[str] = "fence-resizes"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred, enlargements lowered (`bilinear-to-depthwise`)."""
        return rewrite_each(model.graph, _fence, "Resize")


def _fence(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    output = node.outputs[0]
    shape, reader = static_shape(output), only_consumer(output)
    if repeats_whole(node) or (is_op(reader, "Reshape") and reader is not None and static_shape(reader.outputs[0]) == shape):
        return False
    if shape is None or not shape or any(size is None for size in shape[1:]):
        return refuse(logger, node, "its shape is not known")
    label = name_of(output)
    target = add_initializer(graph, f"{label}__shape", np.asarray([0, *(size or 0 for size in shape[1:])], np.int64))
    source = {key: text for key, text in node.metadata_props.items() if key == SOURCE_KEY}
    readers = output.uses()
    rename(output, f"{label}__resized")
    fence = add_node(graph, "Reshape", [output, target], label, after=node, like=output, metadata=source)
    for user, index in readers:
        user.replace_input_with(index, fence)
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = fence
    return True
