"""Topologies without branches: a layer and what follows it, rectifiers, pools, movers (L1, L2, L3, L6, L7, L8, L10)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from topologies import Parts, topology

_LAST = {
    "relu": (Parts.relu, "The relu follows the sum with no quantizer in between; uint8 (L2)."),
    "relu6": (Parts.relu6, "As relu, with the bound 6 on the integers (L2)."),
    "leaky": (
        Parts.leaky,
        """x and a*x are int16 and share a scale with each other (L3), not with accumulator and bias; the slope has 10 bits;
        int8 after the maximum.""",
    ),
}


@topology("conv, bias, clip", "Any other Clip follows the sum as it is, in front of the one rounding; int8 (L2).")
def _(p: Parts, x: Any) -> Any:
    return p.clip(p.layer(x))


@topology(
    "swish", "The layer ends in int8; x * sigmoid(x) is a function of it, a table of 256 entries, with an int8 of its own (L12)."
)
def _(p: Parts, x: Any) -> Any:
    return p.layer(tf.nn.silu(p.layer(x)))


@topology(
    "squeeze and excite",
    """The sigmoid is a table (L12) whose uint8 is multiplied with the block's uint8: two scales, one rounding of the product
    (L13); nothing is shared.""",
)
def _(p: Parts, x: Any) -> Any:
    a = p.relu(p.layer(x))
    squeezed = p.relu(p.layer(tf.reduce_mean(a, (1, 2), keepdims=True), 2, 1))
    return p.layer(a * tf.sigmoid(p.layer(squeezed, 4, 1)))


for _name, (_rectify, _why) in _LAST.items():

    @topology(f"conv, bn, {_name}", f"The batch norm is folded: one layer with a bias (B1, L1). {_why}")
    def _(p: Parts, x: Any, rectify: Any = _rectify) -> Any:
        return rectify(p, p.norm(p.conv(x)))

    @topology(f"conv, bias, {_name}", f"Accumulator and bias share one 16-bit scale, or the bias has 32 bits (L1, L11). {_why}")
    def _(p: Parts, x: Any, rectify: Any = _rectify) -> Any:
        return rectify(p, p.layer(x))

    @topology(
        f"conv without bias, {_name}",
        f"""The sum goes to 16 bits all the same (L10); in front of a leaky relu that is the x of the maximum, since two int16
        quantizers in a row would be merged (L3, O5). {_why}""",
    )
    def _(p: Parts, x: Any, rectify: Any = _rectify) -> Any:
        return rectify(p, p.conv(x))


@topology("conv without bias", "int16, then int8 (L10); layer32 rounds once. An int16 and an int8 in a row are no pair (O5).")
def _(p: Parts, x: Any) -> Any:
    return p.conv(x)


@topology("separable conv", "Two layers; the linear depthwise one ends in int16 and int8 as any other (L1, L10).")
def _(p: Parts, x: Any) -> Any:
    return p.relu(p.bias(p.conv(p.depthwise(x), 6, 1)))


@topology("separable conv with bn between", "Each batch norm is folded into its own layer (B1); relu6 behind both (L2).")
def _(p: Parts, x: Any) -> Any:
    return p.relu6(p.norm(p.conv(p.relu6(p.norm(p.depthwise(x))), 6, 1)))


@topology("relu on the input", "The input has its own int8 (L8), the relu a uint8 behind it: differing types are no pair (O5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu(x))


@topology("relu6 on the input", "As relu: int8, then uint8 up to 6 (L2, L8).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu6(x))


@topology("leaky on the input", "The input keeps its int8; x of the maximum is a 16-bit rescale behind it (L3, L8).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.leaky(x))


@topology(
    "clip on the input",
    "int8 before and after: a quantizer of its own would be merged with the input's (O5), so the clip carries its scale (L7).",
)
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.clip(x))


@topology("relu on an unsigned input", "Nothing to do: the relu carries the input's uint8 (L7, O5).", positive=True)
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu(x))


@topology("relu6 on an unsigned input", "uint8 before and after: the clip carries the input's scale (L7, O5).", positive=True)
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu6(x))


@topology("pool before relu", "The relu moves in front of the pool, to its sum (L2); the pool carries its uint8 (L7).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu(p.max_pool(p.layer(x))))


@topology("pool after relu", "The pool carries the relu's uint8 (L7).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.max_pool(p.relu(p.layer(x))))


@topology("average pool before relu", "The layer ends in int8, the pool is a depthwise sum that the relu follows; uint8 (L2, L6).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu(p.average_pool(p.layer(x))))


@topology("average pool after relu", "uint8 in, uint8 out: a reciprocal of 8 bits, no 16-bit accumulator (L6).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.average_pool(p.relu(p.layer(x))))


@topology("leaky behind max pool", "An increasing leaky relu commutes with the maximum as a relu does, and follows its sum (L3).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.leaky(p.max_pool(p.layer(x))))


@topology("reshape between conv and relu", "The relu moves in front of what only moves elements (L2, L7).")
def _(p: Parts, x: Any) -> Any:
    return p.dense(p.relu(tf.reshape(p.layer(x), (-1, 8 * 8 * 4))))


@topology(
    "transpose between conv and relu",
    "The transpose moves to the end or away; the relu follows its sum, whatever the order of axes (L2, L7).",
)
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu(tf.transpose(p.layer(x), (0, 2, 1, 3))))


@topology("relu of relu", "The second changes nothing and goes (O5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu(p.relu(p.layer(x))))


@topology("relu6 of relu", "One relu6: two quantizers of one type would follow each other (O5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu6(p.relu(p.layer(x))))


@topology("relu6 of a pooled relu", "Moved to its sum, relu and relu6 become one relu6 (L2, O5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu6(p.max_pool(p.relu(p.layer(x)))))


@topology("chain of clips", "Intervals compose; what is left follows the sum (L2).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.clip(p.relu6(p.clip(p.layer(x), -2.0, 5.0)), 0.0, 1.5))


@topology("relu of leaky", "The leaky relu's maximum is followed by the relu, with no quantizer in between (L2, L3).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu(p.leaky(p.layer(x))))


@topology(
    "global mean, dense, softmax", "A global average pool (L6), a dense layer with int8 logits, a Softmax that stays float (L8)."
)
def _(p: Parts, x: Any) -> Any:
    return tf.nn.softmax(p.dense(tf.reduce_mean(p.relu(p.layer(x)), (1, 2))))
