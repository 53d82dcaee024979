"""Topologies with several readers and several outputs (L2, L4, L8, O3, O5)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from topologies import Parts, topology


@topology(
    "relu and a linear reader", "The layer is int8 for both; the relu rounds it once more, to uint8: other type, no pair (L2, O5)."
)
def _(p: Parts, x: Any) -> Any:
    a = p.layer(x)
    return p.layer(p.relu(a)), p.layer(a)


@topology("relu6 and leaky", "The layer is int8 for both: uint8 behind the relu6, a 16-bit rescale for the maximum (L2, L3).")
def _(p: Parts, x: Any) -> Any:
    a = p.layer(x)
    return p.add(p.relu6(a), p.leaky(a))


@topology("clip and a linear reader", "int8 for both: the clip carries the layer's scale (L7).")
def _(p: Parts, x: Any) -> Any:
    a = p.layer(x)
    return p.add(p.layer(p.clip(a)), a)


@topology("relu read by relu6 and conv", "uint8 for both: the bound goes on the relu's scale (L7).")
def _(p: Parts, x: Any) -> Any:
    a = p.relu(p.layer(x))
    return p.layer(p.relu6(a)), p.layer(a)


@topology(
    "weights shared by two layers", "One integer tensor, one scale; accumulators, biases and outputs are each layer's own (L1)."
)
def _(p: Parts, x: Any) -> Any:
    shared = tf.constant(p.weights(3, 3, 4, 4))
    return p.relu(p.bias(p.conv(p.relu(p.bias(p.conv(x, weights=shared))), weights=shared)))


@topology("two outputs", "Each ends in its own int8 or uint8 (L1, L2, O3).")
def _(p: Parts, x: Any) -> Any:
    a = p.relu(p.layer(x))
    return p.layer(a, channels=2), p.relu(p.layer(a, channels=3))


@topology(
    "output in the middle", "An output that is read on: the outside counts as a reader, so the shortcut has its rescale (L4, O3)."
)
def _(p: Parts, x: Any) -> Any:
    a = p.relu(p.layer(x))
    return a, p.relu(p.add(p.layer(x), a))


@topology("sum that is an output and rectified", "An output in front of its relu is rounded for itself: int8, then uint8 (L2, O3).")
def _(p: Parts, x: Any) -> Any:
    a = p.layer(x)
    return tf.identity(a, name="linear"), p.relu(a)


@topology("input that is an output", "The output keeps its name (O3) and is what the layers compute with: the input's int8 (L8).")
def _(p: Parts, x: Any) -> Any:
    return tf.identity(x, name="same"), p.relu(p.layer(x))


@topology(
    "slices with readers of their own",
    "Parts of one value carry its scale; a part in a sum has its rescale behind the fork (L4, L7).",
)
def _(p: Parts, x: Any) -> Any:
    a = p.relu(p.layer(x, channels=8))
    left, right = tf.split(a, 2, axis=-1)
    return p.concat(p.add(left, p.layer(right)), right)
