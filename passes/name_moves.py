"""A chain of reshapes, transposes and repetitions of images becomes the one operator that it is.

    t = Transpose<perm = [0,2,3,1]>(x)           x[n,C,H,W], the channel shuffle of TensorFlow
    r = Reshape(t, {-1,H,W,2,C/2})
    s = Transpose<perm = [0,1,2,4,3]>(r)
    u = Reshape(s, {-1,H,W,C})
    y = Transpose<perm = [0,3,1,2]>(u)           =>      y = Gather<axis = 1>(x, {0, C/2, 1, ...})

    u = Unsqueeze(x, {3}), t = Tile(u, ...), y = Reshape(t, ...)      =>      y = Resize<nearest>(x, {1,1,2,2})

    the same way for SpaceToDepth, and for DepthToSpace in either order

What a chain does is read off an image of numbered elements sent through it; candidates send the same image through the one
operator. Nothing is guessed from how the chain is written. Of several ends that have a name the farthest is taken.

Refused: chains between values that are not images of fixed size, values that others read too, moves between images.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import MOST_ELEMENTS, add_initializer, add_node, attribute, constant, name_of, only_consumer, static_shape
from .resizes import REPETITION
from .rewriting import drop, inherited, is_op, refuse, take_over

logger = logging.getLogger(__name__)

Image = npt.NDArray[np.int32]

_CHAIN = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Tile")
_LONGEST = 12


@dataclass(frozen=True)
class Named:
    """One operator: its attributes, and its constant inputs by what they are."""

    op_type: str
    attributes: dict[str, Any]
    constants: tuple[tuple[str, npt.NDArray[Any]], ...] = ()
    empty_input: bool = False


@dataclass(frozen=True)
class NameMoves:
    """Recognises channel shuffles, SpaceToDepth, DepthToSpace and enlargements."""

    name: ClassVar[str] = "name-moves"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred."""
        modified = False
        for node in list(model.graph):
            if node.graph is model.graph and is_op(node, *_CHAIN):
                modified |= _rewrite(model.graph, node)
        return modified


def _rewrite(graph: onnx_ir.Graph, first: onnx_ir.Node) -> bool:
    source = first.inputs[0]
    shape = None if source is None else static_shape(source)
    if source is None or shape is None or len(shape) != 4 or None in shape[1:]:
        return False
    channels, height, width = (int(length or 0) for length in shape[1:])
    if not 0 < 2 * channels * height * width <= MOST_ELEMENTS:
        return refuse(logger, first, "its input is no image of a size worth looking at")
    if not _may_have_a_name(first):
        return refuse(logger, first, "nothing behind it makes an image of other rows, columns or channels")
    before = np.arange(2 * channels * height * width, dtype=np.int32).reshape(2, channels, height, width)
    best: tuple[list[onnx_ir.Node], Named] | None = None
    passed: list[onnx_ir.Node] = []
    for node, after in _travel(first, before):
        passed.append(node)
        named = _name(before, after) if len(passed) > 1 and after.ndim == 4 else None
        if named is not None:
            best = (list(passed), named)
    if best is None:
        return refuse(logger, first, "what begins here has no name")
    _replace(graph, source, *best)
    return True


def _may_have_a_name(first: onnx_ir.Node) -> bool:
    """Whether an image comes out behind something that regroups or repeats; transposes alone only change the layout."""
    node: onnx_ir.Node | None = first
    regroups = False
    for _ in range(_LONGEST):
        if node is None or not is_op(node, *_CHAIN):
            return False
        value = node.outputs[0]
        regroups |= not is_op(node, "Transpose")
        if regroups and node is not first and (value.shape is None or len(value.shape) == 4):
            return True
        node = only_consumer(value)
    return False


def _travel(first: onnx_ir.Node, image: Image) -> Iterator[tuple[onnx_ir.Node, Image]]:
    """The nodes of the chain, each with the image behind it, as long as it can be followed."""
    node: onnx_ir.Node | None = first
    for _ in range(_LONGEST):
        moved = _moved(node, image) if node is not None else None
        if node is None or moved is None or moved.size > MOST_ELEMENTS:
            return
        image = moved
        yield node, image
        value = node.outputs[0]
        node = only_consumer(value)
        if node is not None and (not is_op(node, *_CHAIN) or node.inputs[0] is not value):
            return


def _moved(node: onnx_ir.Node, image: Image) -> Image | None:
    """The image behind one node; None where its parameters are computed or do not fit a batch of two."""
    parameters = [constant(value) for value in node.inputs[1:]]
    if any(array is None for array in parameters):
        return None
    try:
        match node.op_type:
            case "Transpose":
                return image.transpose(attribute(node, "perm", tuple(reversed(range(image.ndim)))))
            case "Reshape":
                target = [int(length) for length in parameters[0]] if parameters[0] is not None else []
                if 0 in target and not attribute(node, "allowzero", 0):
                    target = [image.shape[axis] if length == 0 else length for axis, length in enumerate(target)]
                return image.reshape(target)
            case "Flatten":
                axis = attribute(node, "axis", 1) % (image.ndim + 1)
                return image.reshape(int(np.prod(image.shape[:axis])), -1)
            case "Squeeze" if parameters and parameters[0] is not None:
                return image.squeeze(tuple(int(axis) for axis in parameters[0]))
            case "Unsqueeze" if parameters[0] is not None:
                return np.expand_dims(image, tuple(int(axis) for axis in parameters[0]))
            case "Tile" if parameters[0] is not None and int(np.prod(parameters[0])) * image.size <= MOST_ELEMENTS:
                return np.tile(image, [int(times) for times in parameters[0]])
    except (ValueError, IndexError):  # a batch of two does not fit
        return None
    return None


def _name(before: Image, after: Image) -> Named | None:
    """The operator that makes the one image of the other, None where there is none for it."""
    if after.shape[0] != 2 or not np.array_equal(after[1], after[0] + before[0].size) or np.array_equal(before, after):
        return None  # between images, or nothing at all
    _, channels, height, width = before.shape
    made = after.shape[1:]
    if made[1:] == (height, width):
        order = after[0, :, 0, 0].astype(np.int64) // (height * width)
        return Named("Gather", {"axis": 1}, (("order", order),)) if np.array_equal(before[:, order], after) else None
    if made[0] == channels and made[1] % height == 0 and made[2] % width == 0:
        tall, wide = made[1] // height, made[2] // width
        if np.array_equal(before.repeat(tall, 2).repeat(wide, 3), after):
            scales = np.asarray([1, 1, tall, wide], np.float32)
            return Named("Resize", REPETITION, (("scales", scales),), empty_input=True)
    for block in (height // max(made[1], 1), made[1] // height):
        if block < 2:
            continue
        if made == (channels * block**2, height // block, width // block) and np.array_equal(_to_depth(before, block), after):
            return Named("SpaceToDepth", {"blocksize": block})
        if made == (channels // block**2, height * block, width * block):
            for mode in ("DCR", "CRD"):
                if np.array_equal(_to_space(before, block, mode), after):
                    return Named("DepthToSpace", {"blocksize": block, "mode": mode})
    return None


def _to_depth(image: Image, block: int) -> Image:
    images, channels, height, width = image.shape
    blocks = image.reshape(images, channels, height // block, block, width // block, block)
    return blocks.transpose(0, 3, 5, 1, 2, 4).reshape(images, -1, height // block, width // block)


def _to_space(image: Image, block: int, mode: str) -> Image:
    images, depth, height, width = image.shape
    if mode == "DCR":
        blocks = image.reshape(images, block, block, depth // block**2, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        blocks = image.reshape(images, depth // block**2, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    return blocks.reshape(images, depth // block**2, height * block, width * block)


def _replace(graph: onnx_ir.Graph, source: onnx_ir.Value, chain: list[onnx_ir.Node], named: Named) -> None:
    last = chain[-1]
    name = name_of(last.outputs[0])
    constants = [add_initializer(graph, f"{name}__{what}", array) for what, array in named.constants]
    inputs = [source, *([None] if named.empty_input else []), *constants]
    metadata = inherited(*chain)
    value = add_node(graph, named.op_type, inputs, f"{name}__named", attributes=named.attributes, before=last, metadata=metadata)
    take_over(last.outputs[0], value)
    for node in reversed(chain):
        drop(node)
