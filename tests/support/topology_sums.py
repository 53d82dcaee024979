"""Topologies with sums: shortcuts of every sort, constants, signs (L4, L5)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from topologies import SHAPE, Parts, topology


@topology(
    "conv, add, relu", "Both layers end in int8 on one scale: nobody else reads them, so no rescale (L4); uint8 after the relu."
)
def _(p: Parts, x: Any) -> Any:
    return p.relu(p.add(p.layer(x), p.layer(x)))


@topology(
    "identity shortcut",
    "The relu is read by the block too: its branch gets an int8 rescale that shares the other operand's scale (L4).",
)
def _(p: Parts, x: Any) -> Any:
    a = p.relu(p.layer(x))
    return p.relu(p.add(p.layer(p.relu(p.layer(a))), a))


@topology("projection shortcut", "Both operands are layers of their own: they share a scale without a rescale (L4).")
def _(p: Parts, x: Any) -> Any:
    a = p.relu(p.layer(x))
    return p.relu(p.add(p.layer(p.relu(p.layer(a, strides=2))), p.layer(a, kernel=1, strides=2)))


@topology(
    "pre-activation residual",
    "The sum is read by the next block's batch norm and by the next sum: one int8, and a rescale for the shortcut (L4). "
    "A batch norm between a sum and a relu is a layer of its own, depthwise.",
)
def _(p: Parts, x: Any) -> Any:
    a = p.layer(x)
    b = p.add(p.layer(p.relu(p.norm(a))), a)
    return p.add(p.layer(p.relu(p.norm(b))), b)


@topology(
    "add of three branches",
    "Two sums of two; the first sum's operands share one scale, its result shares another with the third branch (L4).",
)
def _(p: Parts, x: Any) -> Any:
    return p.relu(p.add_n(p.layer(x), p.layer(x), p.layer(x)))


@topology("chain of adds", "Every sum is rounded to int8 and shares its scale with the next operand (L4).")
def _(p: Parts, x: Any) -> Any:
    total = p.layer(x)
    for _ in range(3):
        total = p.add(total, p.layer(x))
    return p.layer(total)


@topology(
    "adds of overlapping operands",
    "What is read twice keeps a scale of its own, and every sum that reads it has its rescale: as many scales as sums (L4).",
)
def _(p: Parts, x: Any) -> Any:
    a, b, c = p.relu(p.layer(x)), p.layer(x), p.layer(x)
    d = p.add(a, b)
    e = p.add(p.add(b, c), d)
    return p.relu(p.add(e, d))


@topology("add where both operands are the same", "One value on one scale: nothing to rescale (L4).")
def _(p: Parts, x: Any) -> Any:
    a = p.layer(x)
    return p.relu(p.add(a, a))


@topology("add of the input to itself", "The input's int8 is both operands (L4, L8).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.add(x, x))


@topology("input used twice", "Read by a layer and by a sum: its int8 (L8), and a rescale for the sum (L4).")
def _(p: Parts, x: Any) -> Any:
    return p.relu(p.add(p.layer(x), x))


@topology(
    "input in two sums",
    "One int8 form of the input (L8), from which each sum has its rescale (L4); the first sum shares the second's scale.",
)
def _(p: Parts, x: Any) -> Any:
    return p.add(p.add(p.layer(tf.constant(0.5) * x), x), x)


@topology("unsigned input in two sums", "uint8 all along: no operand can be negative (L4, L8).", positive=True)
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu(p.add(p.add(x, x), x)))


@topology("add with a constant branch", "A constant of the image's shape is an operand: int8 on the shared scale (L4).")
def _(p: Parts, x: Any) -> Any:
    return p.add(p.relu(p.layer(x)), p.weights(1, *SHAPE))


@topology("add of conv and max pool", "The pool carries the shared scale: the layer in front of it joins (L4, L7).")
def _(p: Parts, x: Any) -> Any:
    return p.relu(p.add(p.layer(x, strides=2), p.max_pool(p.layer(x))))


@topology("add of conv and average pool", "The pool's int8 is a sum of its own that joins the shared scale (L4, L6).")
def _(p: Parts, x: Any) -> Any:
    return p.relu(p.add(p.layer(x, strides=2), p.average_pool(p.layer(x))))


@topology("add of relu and conv", "The uint8 branch gets an int8 rescale: operands agree in sign (L5).")
def _(p: Parts, x: Any) -> Any:
    return p.add(p.relu(p.layer(x)), p.layer(x))


@topology("add of relus", "uint8 on one scale; the sum cannot be negative either: uint8 (L4).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.add(p.relu(p.layer(x)), p.relu6(p.layer(x))))


@topology("add of a pooled relu and leaky", "The rescale stands in front of the pool, directly behind the relu (L5, O5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.add(p.max_pool(p.relu(p.layer(x))), p.leaky(p.layer(x, strides=2))))


@topology("leaky behind add", "The sum is rounded to int16 for the maximum, not to int8 (L3, L4).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.leaky(p.add(p.layer(x), p.layer(x))))


@topology("relu6 behind add", "The bound is on the integers behind the sum's one rounding (L2, L4).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu6(p.add(p.layer(x), p.layer(x))))


@topology("two inputs", "Each has its own int8; they share a scale, since nobody else reads them (L4, L8).", inputs=2)
def _(p: Parts, x: Any, z: Any) -> Any:
    return p.layer(p.add(x, z))
