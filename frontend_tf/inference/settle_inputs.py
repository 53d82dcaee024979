"""Every placeholder gets the shape it must have: what is declared, else what the graph knows, else what the user says.

In this order: the placeholder's own attribute; `_output_shapes`, which exporters leave; the ranks that TensorFlow accepts;
the weights of the operators behind it (`channel_evidence`); operators that pin its size (`pinned_size`). The batch is
dynamic. A height and width that nothing pins stay open: a network of convolutions takes any. What is still to be fixed then
is fixed by `--input-shape`, here or later.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import tensorflow as tf

from ...ir import ModelError
from ..frozen import GraphDef
from ..nodes import tensor_shape
from ..shapes import settle_shape
from .channel_evidence import dimensions_behind
from .cut import import_graph
from .pinned_size import Fit, contradiction, pinned_sizes

logger = logging.getLogger(__name__)

_SHAPELESS_SCALAR_PRODUCER: Final = 24
"""Before this version of the GraphDef format a placeholder of unknown shape was written as a scalar."""

_RANKS: Final = range(1, 7)
_IMAGES: Final = 4

Shape = list[int | None]


def settle_inputs(
    where: str, graph_def: GraphDef, inner: Mapping[str, tuple[int, Shape | None]], wanted: Sequence[int] | None
) -> dict[str, int | None]:
    """Writes type and shape into each placeholder of a cut graph.

    Args:
        where: for messages.
        graph_def: edited in place; `_output_shapes` go, since they may contradict the settled shapes.
        inner: placeholder -> element type and shape, where the graph was cut behind its own placeholders.
        wanted: shape without the batch, as the user says.

    Returns:
        Placeholder -> its first dimension, None where that is open; scalars have none.

    Raises:
        ModelError: a shape that cannot be known, or that contradicts what the user says.
    """
    known: dict[str, Shape | None] = {}
    for node in graph_def.node:
        if node.op == "Placeholder":
            dtype, known[node.name] = inner.get(node.name) or _declared(node, graph_def.versions.producer)
            node.attr["dtype"].type = dtype
        node.attr.pop("_output_shapes", None)
    _write(graph_def, known)
    for name, shape in known.items():
        if wanted is None and (shape is None or None in shape[1:]):
            known[name] = _deduce(f"{where}: input {name!r}", graph_def, name, known)
            _write(graph_def, known)
    settled = {name: settle_shape(f"{where}: input {name!r}", shape, wanted, open_sizes=True) for name, shape in known.items()}
    for name, shape in known.items():
        settled[name][:1] = (shape or settled[name])[:1]  # whether it is a batch is asked later, by `settle_batch`
    _write(graph_def, settled)
    if wanted is not None:
        _check_pins(where, graph_def, settled, wanted)
    return {name: shape[0] for name, shape in settled.items() if shape}


def _check_pins(where: str, graph_def: GraphDef, settled: Mapping[str, Shape], wanted: Sequence[int]) -> None:
    """What the user says against what operators behind the input take."""
    graph = import_graph(where, graph_def)
    for name, shape in settled.items():
        reason = contradiction(graph, name) if shape[1:] == list(wanted) else None
        if reason is not None:
            raise ModelError(f"{where}: input {name!r}: {reason}. Received: input shape {tuple(wanted)}")


def _write(graph_def: GraphDef, shapes: Mapping[str, Sequence[int | None] | None]) -> None:
    for node in graph_def.node:
        if node.name in shapes and node.op == "Placeholder":
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(shapes[node.name]).as_proto())


def _declared(node: Any, producer: int) -> tuple[int, Shape | None]:
    """Element type and shape of a placeholder, by its attributes."""
    known = tensor_shape(node.attr["shape"].shape) if "shape" in node.attr else None
    if known == [] and producer < _SHAPELESS_SCALAR_PRODUCER:
        known = None
    if (known is None or None in known[1:]) and node.attr["_output_shapes"].list.shape:
        recorded = tensor_shape(node.attr["_output_shapes"].list.shape[0])
        if recorded is not None and (known is None or len(recorded) == len(known)):
            known = recorded if known is None else [a if a is not None else b for a, b in zip(known, recorded, strict=True)]
    return node.attr["dtype"].type, known


def _deduce(where: str, graph_def: GraphDef, name: str, known: Mapping[str, Shape | None]) -> Shape | None:
    """The shape of one placeholder, as far as the graph behind it tells."""
    declared = known[name]
    shape = declared
    if shape is None:
        rank = _rank(where, graph_def, name)
        if rank is None:
            return None
        shape = [None] * rank
    shape = _with_channels(where, graph_def, name, shape)
    fits = pinned_sizes(_with_shape(graph_def, name, shape), name, shape) if None in shape[1:] else []
    shape = _with_fits(where, shape, [fit for fit in fits if fit.low == fit.high])
    if None in shape[1:]:
        ranges = [f"{fit.because} takes sizes {fit.low} to {fit.high}" for fit in fits if fit.low != fit.high]
        hints = "; ".join(dict.fromkeys(ranges))
        logger.warning(
            "%s: shape %s: what is open there stays open; --input-shape H,W,C fixes it%s",
            where,
            _text(shape),
            f" ({hints})" if hints else "",
        )
    elif shape != declared:
        logger.info("%s: shape %s, as the graph behind it tells", where, _text(shape))
    return shape


def _text(shape: Sequence[int | None]) -> str:
    return "[" + ",".join("N" if axis == 0 else "?" if dim is None else str(dim) for axis, dim in enumerate(shape)) + "]"


def _rank(where: str, graph_def: GraphDef, name: str) -> int | None:
    """The one rank that TensorFlow accepts; that of a batch of images where it accepts that among others."""
    accepted = []
    for rank in _RANKS:
        try:
            import_graph(where, _with_shape(graph_def, name, [None] * rank))
        except ModelError:
            continue
        accepted.append(rank)
    if len(accepted) == 1:
        return accepted[0]
    if not accepted:
        import_graph(where, _with_shape(graph_def, name, None))  # raises, unless ranks beyond those tried would do
    if _IMAGES in accepted:
        logger.warning("%s: nothing tells its rank; taken for a batch of images (rank 4)", where)
        return _IMAGES
    return None


def _with_channels(where: str, graph_def: GraphDef, name: str, shape: Shape) -> Shape:
    """The shape with the dimensions that operators behind the input know; the batch is none of them."""
    graph = import_graph(where, _with_shape(graph_def, name, shape))
    behind = dimensions_behind(graph.get_tensor_by_name(f"{name}:0"))
    return [behind.get(axis) if dim is None and axis > 0 else dim for axis, dim in enumerate(shape)]


def _with_fits(where: str, shape: Shape, fits: Sequence[Fit]) -> Shape:
    result = list(shape)
    for fit in fits:
        if all(result[axis] is None for axis in fit.axes):
            square = " (height and width taken to be equal)" if len(fit.axes) > 1 else ""
            logger.info("%s: size %d, as %s needs it%s", where, fit.low, fit.because, square)
            for axis in fit.axes:
                result[axis] = fit.low
    return result


def _with_shape(graph_def: GraphDef, name: str, shape: Sequence[int | None] | None) -> GraphDef:
    """The graph itself, with another shape to be tried; the settled ones are written at the end."""
    _write(graph_def, {name: shape})
    return graph_def
