"""Operators that only move, select or repeat integers: the same operators of ONNX, in the type the integers are in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir

from ...ir import UnsupportedError
from ..integers.network import Operation
from .graph import F64, Builder, Carried, narrowest

Write = Callable[[Builder, Operation, Sequence[Carried]], Carried]


def _move(parameters: Sequence[str] = (), attributes: Sequence[str] = ()) -> Write:
    """The operator of one tensor with its parameters as constants of int64; those that are not given stay out."""

    def write(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
        (x,) = operands
        dtype = narrowest(x.low, x.high, f"{operation.op} {operation.node!r}")
        given: list[onnx_ir.Value | None] = [
            builder.list(f"{operation.output}__{name}", operation.attributes[name]) if name in operation.attributes else None
            for name in parameters
        ]
        while given and given[-1] is None:
            given.pop()
        own = {name: operation.attributes[name] for name in attributes if name in operation.attributes}
        like = Carried(operation.output, operation.shape, x.low, x.high)
        return builder.made(operation.op, [builder.read(x, dtype), *given], like, dtype, **own)

    return write


def _concat(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    low, high = min(x.low for x in operands), max(x.high for x in operands)
    dtype = narrowest(low, high, f"Concat {operation.node!r}")
    like = Carried(operation.output, operation.shape, low, high)
    return builder.made("Concat", [builder.read(x, dtype) for x in operands], like, dtype, axis=operation.attributes["axis"])


def _pad(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    (x,) = operands
    mode, fill = operation.attributes["mode"], operation.attributes.get("value", 0)
    low, high = (min(x.low, fill), max(x.high, fill)) if mode == "constant" else (x.low, x.high)
    dtype = narrowest(low, high, f"Pad {operation.node!r}")
    how = {name: operation.attributes[name] for name in ("axes", "mode") if name in operation.attributes}
    like = Carried(operation.output, operation.shape, low, high)
    return builder.pad(x, operation.attributes["pads"], fill if mode == "constant" else None, like, dtype, **how)


def _resize(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    """Every element a whole number of times: `i // factor` (L7)."""
    (x,) = operands
    dtype = narrowest(x.low, x.high, f"Resize {operation.node!r}")
    if dtype == F64:
        raise UnsupportedError(
            f"target integer: Resize {operation.node!r}: onnxruntime resizes no float64, which holds integers beyond int32. "
            f"Received: integers from {x.low} to {x.high}"
        )
    scales = builder.constant(f"{operation.output}__scales", np.array(operation.attributes["scales"], np.float32))
    like = Carried(operation.output, operation.shape, x.low, x.high)
    form = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return builder.made("Resize", [builder.read(x, dtype), None, scales], like, dtype, **form)


def _blocks(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    """DepthToSpace and SpaceToDepth as Reshape, Transpose, Reshape: onnxruntime has neither for int8 and int32 alike."""
    (x,) = operands
    block = operation.attributes["blocksize"]
    _, depth, height, width = x.shape
    if depth is None or height is None or width is None:
        raise UnsupportedError(
            f"target integer: {operation.op} {operation.node!r}: known channels, height and width are expected. "
            f"Received: {list(x.shape)}"
        )
    if operation.op == "SpaceToDepth":
        apart, order = [0, depth, height // block, block, width // block, block], [0, 3, 5, 1, 2, 4]
    elif operation.attributes["mode"] == "DCR":
        apart, order = [0, block, block, depth // block**2, height, width], [0, 3, 4, 1, 5, 2]
    else:
        apart, order = [0, depth // block**2, block, block, height, width], [0, 1, 4, 2, 5, 3]
    dtype = narrowest(x.low, x.high, f"{operation.op} {operation.node!r}")
    name = operation.output
    found = builder.node("Reshape", [builder.read(x, dtype), builder.list(f"{name}__apart", apart)], f"{name}__blocks")
    found = builder.node("Transpose", [found], f"{name}__moved", {"perm": order})
    joined = builder.list(f"{name}__joined", [0, *(size or 0 for size in operation.shape[1:])])
    return builder.made("Reshape", [found, joined], Carried(name, operation.shape, x.low, x.high), dtype)


WRITERS: Final[dict[str, Any]] = {
    "Concat": _concat,
    "DepthToSpace": _blocks,
    "Flatten": _move(attributes=["axis"]),
    "Gather": _move(["indices"], ["axis"]),
    "Identity": _move(),
    "Pad": _pad,
    "Reshape": _move(["shape"], ["allowzero"]),
    "Resize": _resize,
    "Slice": _move(["starts", "ends", "axes", "steps"]),
    "SpaceToDepth": _blocks,
    "Squeeze": _move(["axes"]),
    "Tile": _move(["repeats"]),
    "Transpose": _move(attributes=["perm"]),
    "Unsqueeze": _move(["axes"]),
}
"""Operation of `network.MOVES` -> what writes it."""
