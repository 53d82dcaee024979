"""A second reading of integer networks, written from their description alone: plain NumPy on int64, no code of the package.

An operation is a mapping with the fields of `export.network.Operation`; tensors are arrays by name. What it computes is compared
with the oracle by `==`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


def run_step(step: Mapping[str, Any], tensors: Mapping[str, Integers], output: Mapping[str, Any]) -> Integers:
    """The integers that a step computes of the tensors it reads; `output` describes the tensor it writes."""
    values: dict[str, Integers] = dict(tensors)
    for operation in step["operations"]:
        operands = [values[name] << shift for name, shift in zip(operation["inputs"], operation["shifts"], strict=True)]
        values[operation["output"]] = run_operation(operation["op"], operands, operation["attributes"])
    return round_and_saturate(values[step["result"]], step["shift"], output["lower"], output["upper"])


def round_and_saturate(values: Integers, shift: int, lower: int, upper: int) -> Integers:
    """`clip(values / 2^shift)`, nearest, ties to even."""
    if shift <= 0:
        wide = [min(max(int(value) << -shift, lower), upper) for value in values.ravel()]
        return np.array(wide, np.int64).reshape(values.shape)
    below = values // 2 ** min(shift, 62) if shift <= 62 else np.where(values < 0, -1, 0)
    if shift > 62:
        return np.clip(np.zeros_like(values), lower, upper)
    rest = values - below * 2**shift
    half = 2 ** (shift - 1)
    up = (rest > half) | ((rest == half) & (below % 2 != 0))
    return np.clip(below + up, lower, upper)


def run_operation(op: str, x: Sequence[Integers], a: Mapping[str, Any]) -> Integers:
    """One operator."""
    if op == "Conv":
        return _convolution(x, a)
    if op == "ConvTranspose":
        return _transposed(x, a)
    if op in {"Gemm", "MatMul"}:
        left = x[0].T if a.get("transA") else x[0]
        right = x[1].T if a.get("transB") else x[1]
        y = left @ right
        return y + x[2] if len(x) > 2 else y
    if op in {"Add", "Sub", "Mul"}:
        return {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[op](x[0], x[1])
    if op in {"Max", "Min"}:
        y = x[0]
        for other in x[1:]:
            y = np.maximum(y, other) if op == "Max" else np.minimum(y, other)
        return y
    if op == "Relu":
        return np.where(x[0] > 0, x[0], 0)
    if op == "Clip":
        y = x[0] if a["low"] is None else np.maximum(x[0], a["low"])
        return y if a["high"] is None else np.minimum(y, a["high"])
    if op == "Table":
        return np.array(a["entries"], np.int64)[x[0] - a["first"]]
    if op == "MaxPool":
        return _max_pool(x[0], a)
    return _moved(op, x, a)


def _windows(size: Sequence[int], a: Mapping[str, Any]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Output size and the taps of a window."""
    kernel, spatial = a["kernel_shape"], len(a["kernel_shape"])
    out = []
    for axis in range(spatial):
        reach = a["dilations"][axis] * (kernel[axis] - 1) + 1
        padded = size[axis] + a["pads"][axis] + a["pads"][axis + spatial]
        out.append((padded - reach) // a["strides"][axis] + 1)
    return out, list(itertools.product(*(range(k) for k in kernel)))


def _padded(x: Integers, a: Mapping[str, Any], fill: int) -> Integers:
    spatial = len(a["kernel_shape"])
    return np.pad(x, [(0, 0), (0, 0), *((a["pads"][i], a["pads"][i + spatial]) for i in range(spatial))], constant_values=fill)


def _at(x: Integers, tap: tuple[int, ...], out: Sequence[int], a: Mapping[str, Any]) -> Integers:
    index: list[slice] = [slice(None), slice(None)]
    for axis, place in enumerate(tap):
        start, step = place * a["dilations"][axis], a["strides"][axis]
        index.append(slice(start, start + step * (out[axis] - 1) + 1, step))
    return x[tuple(index)]


def _convolution(x: Sequence[Integers], a: Mapping[str, Any]) -> Integers:
    data, weights = x[0], x[1]
    groups, filters, depth = a["group"], weights.shape[0], weights.shape[1]
    out, taps = _windows(data.shape[2:], a)
    padded = _padded(data, a, 0)
    y = np.zeros((data.shape[0], filters, *out), np.int64)
    for group in range(groups):
        own = slice(group * filters // groups, (group + 1) * filters // groups)
        part = padded[:, group * depth : (group + 1) * depth]
        for tap in taps:
            y[:, own] += np.moveaxis(np.tensordot(weights[(own, slice(None), *tap)], _at(part, tap, out, a), (1, 1)), 1, 0)
    return y + x[2].reshape(-1, *[1] * len(out)) if len(x) > 2 else y


def _transposed(x: Sequence[Integers], a: Mapping[str, Any]) -> Integers:
    """Every input element adds its kernel to the output; then the pads are cut off."""
    data, weights = x[0], x[1]
    groups, depth, per_group = a["group"], weights.shape[0], weights.shape[1]
    spatial = len(a["kernel_shape"])
    size = [
        (data.shape[2 + i] - 1) * a["strides"][i] + (a["kernel_shape"][i] - 1) * a["dilations"][i] + 1 + a["output_padding"][i]
        for i in range(spatial)
    ]
    y = np.zeros((data.shape[0], groups * per_group, *size), np.int64)
    for group in range(groups):
        own = slice(group * depth // groups, (group + 1) * depth // groups)
        target = slice(group * per_group, (group + 1) * per_group)
        for tap in itertools.product(*(range(k) for k in a["kernel_shape"])):
            part = np.moveaxis(np.tensordot(weights[(own, slice(None), *tap)], data[:, own], (0, 1)), 1, 0)
            places = tuple(
                slice(
                    tap[i] * a["dilations"][i],
                    tap[i] * a["dilations"][i] + a["strides"][i] * (data.shape[2 + i] - 1) + 1,
                    a["strides"][i],
                )
                for i in range(spatial)
            )
            y[(slice(None), target, *places)] += part
    cut = tuple(slice(a["pads"][i], size[i] - a["pads"][i + spatial]) for i in range(spatial))
    y = y[(slice(None), slice(None), *cut)]
    return y + x[2].reshape(-1, *[1] * spatial) if len(x) > 2 else y


def _max_pool(x: Integers, a: Mapping[str, Any]) -> Integers:
    out, taps = _windows(x.shape[2:], a)
    padded = _padded(x, a, int(np.iinfo(np.int64).min))
    return np.maximum.reduce([_at(padded, tap, out, a) for tap in taps])


def _moved(op: str, x: Sequence[Integers], a: Mapping[str, Any]) -> Integers:  # noqa: PLR0912  # one case for each operator
    data = x[0]
    if op == "Concat":
        return np.concatenate(list(x), a["axis"])
    if op == "Identity":
        return data
    if op == "Transpose":
        return data.transpose(a["perm"])
    if op == "Reshape":
        wanted = [data.shape[i] if n == 0 and not a.get("allowzero") else n for i, n in enumerate(a["shape"])]
        return data.reshape(wanted)
    if op == "Flatten":
        return data.reshape(int(np.prod(data.shape[: a["axis"]])), -1)
    if op == "Squeeze":
        return data.squeeze(tuple(a["axes"])) if "axes" in a else data.squeeze()
    if op == "Unsqueeze":
        return np.expand_dims(data, tuple(a["axes"]))
    if op == "Tile":
        return np.tile(data, a["repeats"])
    if op == "Gather":
        return np.take(data, np.array(a["indices"]), a["axis"])
    if op == "Slice":
        index = [slice(None)] * data.ndim
        axes = a.get("axes", list(range(len(a["starts"]))))
        for axis, start, end, step in zip(axes, a["starts"], a["ends"], a.get("steps", [1] * len(axes)), strict=True):
            first = max(start, -data.shape[axis]) if step < 0 else start
            index[axis] = slice(first, end if step > 0 or end >= -data.shape[axis] else None, step)
        return data[tuple(index)]
    if op == "Pad":
        axes = a.get("axes", list(range(data.ndim)))
        width = [(0, 0)] * data.ndim
        for place, axis in enumerate(axes):
            width[axis] = (a["pads"][place], a["pads"][place + len(axes)])
        if a["mode"] == "constant":
            return np.pad(data, width, constant_values=a["value"])
        return np.pad(data, width, mode={"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[a["mode"]])
    if op == "Resize":
        for axis, scale in enumerate(
            a["scales"] if "scales" in a else [s / n for s, n in zip(a["sizes"], data.shape, strict=True)]
        ):
            data = np.repeat(data, int(scale), axis)
        return data
    if op in {"DepthToSpace", "SpaceToDepth"}:
        return _blocks(op, data, a["blocksize"], a.get("mode", "DCR"))
    raise AssertionError(f"no reading of {op}")


def _blocks(op: str, x: Integers, b: int, mode: str) -> Integers:
    n, c, h, w = x.shape
    if op == "SpaceToDepth":
        return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)
    if mode == "DCR":
        return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
    return x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)
