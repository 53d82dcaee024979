"""Topologies with concatenations: members of one scale, and what does not fit it (L5)."""

from __future__ import annotations

from typing import Any

from topologies import Parts, topology


@topology("concat of relus", "uint8 on one scale, which the result carries (L5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.concat(p.relu(p.layer(x)), p.relu(p.layer(x)), p.relu6(p.layer(x))))


@topology("concat of relu and leaky", "The uint8 branch gets an int8 rescale on the shared scale (L5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.concat(p.relu(p.layer(x)), p.leaky(p.layer(x))))


@topology("concat of relu and conv", "As with a leaky branch: int8 wins (L5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.concat(p.relu(p.layer(x)), p.layer(x)))


@topology("nested concats", "One scale through both: the inner result is a member of the outer (L5).")
def _(p: Parts, x: Any) -> Any:
    inner = p.concat(p.relu(p.layer(x)), p.relu(p.layer(x)))
    return p.layer(p.concat(p.max_pool(inner), p.relu(p.layer(x, strides=2))))


@topology("concats on different axes", "Whatever the axis: one scale (L5).")
def _(p: Parts, x: Any) -> Any:
    rows = p.concat(p.relu(p.layer(x)), p.relu(p.layer(x)), axis=1)
    columns = p.concat(rows, p.relu(p.layer(rows)), axis=2)
    return p.layer(p.concat(columns, columns, axis=3))


@topology("concat of a tensor with itself", "One member, read by one operator: nothing to rescale (L5).")
def _(p: Parts, x: Any) -> Any:
    a = p.relu(p.layer(x))
    return p.layer(p.concat(a, a))


@topology("concat that feeds a concat and a conv", "The inner result is read twice: the outer concat gets a rescale (L5).")
def _(p: Parts, x: Any) -> Any:
    inner = p.concat(p.relu(p.layer(x)), p.relu(p.layer(x)))
    return p.concat(inner, p.relu(p.layer(inner)))


@topology("inception", "Conv, max pool and average pool branches share one scale; the pool's own carry joins (L5, L6, L7).")
def _(p: Parts, x: Any) -> Any:
    a = p.relu(p.layer(x))
    pooled = p.relu(p.layer(p.max_pool(a, 3, 1, "SAME"), kernel=1))
    averaged = p.relu(p.layer(p.average_pool(a), kernel=1))
    return p.layer(p.concat(p.relu(p.layer(a, kernel=1, strides=2)), p.max_pool(pooled), averaged, p.average_pool(a)))


@topology(
    "reduction of inception", "The max pool branch carries a value that others read: a rescale in front of the pool (L5, O5)."
)
def _(p: Parts, x: Any) -> Any:
    a = p.relu(p.layer(x))
    return p.layer(p.concat(p.relu(p.layer(a, strides=2)), p.max_pool(a, 3, 2, "SAME")))


@topology("leaky behind concat", "The concatenation is int8 already; x of the maximum is a 16-bit rescale behind it (L3, L5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.leaky(p.concat(p.layer(x), p.relu(p.layer(x)))))


@topology("relu behind concat", "int8 members, then uint8: differing types are no pair (L5, O5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu(p.concat(p.layer(x), p.layer(x))))


@topology("clip behind concat", "int8 before and after: the clip carries the members' scale (L7, O5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.clip(p.concat(p.layer(x), p.layer(x))))


@topology("relu6 behind a concat of relus", "uint8 before and after: the bound goes on the members' scale (L7, O5).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.relu6(p.concat(p.relu(p.layer(x)), p.relu(p.layer(x)))))


@topology(
    "growing concat",
    "As DenseNet without its batch norms: what is read again gets a rescale per concatenation, new layers join it (L5).",
)
def _(p: Parts, x: Any) -> Any:
    grown = p.relu(p.layer(x))
    for _ in range(3):
        grown = p.concat(grown, p.relu(p.layer(grown, channels=2)))
    return p.layer(grown)


@topology("growing concat with batch norms", "As DenseNet: the batch norm behind a concatenation is a depthwise layer (L1, L5).")
def _(p: Parts, x: Any) -> Any:
    grown = p.conv(x)
    for _ in range(2):
        grown = p.concat(grown, p.conv(p.relu(p.norm(grown)), channels=2))
    return p.layer(p.relu(p.norm(grown)))


@topology("concat of the input", "The input's int8 is read by a layer too: a rescale for the concatenation (L5, L8).")
def _(p: Parts, x: Any) -> Any:
    return p.layer(p.concat(x, p.leaky(p.layer(x))))


@topology("add and concat of one layer", "Two shared scales want it: a rescale for each (L4, L5).")
def _(p: Parts, x: Any) -> Any:
    a = p.layer(x)
    return p.add(a, p.layer(x)), p.concat(a, p.layer(x))
