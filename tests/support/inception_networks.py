"""Inception v1 to v4 as TF-Slim writes them: tables of branches, and what turns a table into a graph.

A row is a layer, or a module: branches that read the same tensor and are concatenated. A branch is a list of steps:

    3x3:96              convolution (batch norm without scale, relu), SAME
    3x3/2:96            with stride 2, padded as the network's reductions are
    3x3v:96             VALID
    3x3:96+1x3:96       two that read the same tensor, concatenated
    max, max/2, avg     pools of 3x3 (`max2/2`: 2x2)
    Name=step           a step whose scope is not called as slim usually calls them

Usually: the second step of a branch is `Conv2d_0b_3x3`, one with stride 2 `Conv2d_1a_3x3`. Only the resolution is free: the pool
in front of the classifier covers the grid that is left (7x7 or 8x8 at the usual resolutions).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from slim_graph import SlimGraph

Module = str | tuple[str, ...]


@dataclass(frozen=True)
class Inception:
    """One network.

    Attributes:
        scope: of its nodes, twice in front of the modules.
        reductions: padding where the stride is 2.
        rows: name of the module -> its branches, or the step that it is.
        ends: name of the last pool, of the dropout and of the classifier.
        model_variables: numbers in the variables in front of the classifier, moving averages among them, as slim counts them.
    """

    scope: str
    reductions: str
    rows: dict[str, Module]
    ends: tuple[str, str, str]
    model_variables: int


def _v1(*widths: int) -> Module:
    a, b, c, d, e, f = widths
    return f"1x1:{a}", f"1x1:{b} 3x3:{c}", f"1x1:{d} 3x3:{e}", f"max 1x1:{f}"


def _v2(*widths: int, pool: str = "avg") -> Module:
    a, b, c, d, e, f = widths
    return f"1x1:{a}", f"1x1:{b} 3x3:{c}", f"1x1:{d} 3x3:{e} 3x3:{e}", f"{pool} 1x1:{f}"


def _v3_first(pool: int, five: str = "1x1:48 5x5:64") -> Module:
    return "1x1:64", five, "1x1:64 3x3:96 3x3:96", f"avg 1x1:{pool}"


def _v3_second(width: int) -> Module:
    w = width
    return "1x1:192", f"1x1:{w} 1x7:{w} 7x1:192", f"1x1:{w} 7x1:{w} 1x7:{w} 7x1:{w} 1x7:192", "avg 1x1:192"


def _v3_third(fork: str) -> Module:
    return "1x1:320", f"1x1:384 {fork}", "1x1:448 3x3:384 1x3:384+3x1:384", "avg 1x1:192"


V4_A: Module = ("1x1:96", "1x1:64 3x3:96", "1x1:64 3x3:96 3x3:96", "avg 1x1:96")
V4_B: Module = ("1x1:384", "1x1:192 1x7:224 7x1:256", "1x1:192 7x1:192 1x7:224 7x1:224 1x7:256", "avg 1x1:128")
V4_C: Module = ("1x1:256", "1x1:384 1x3:256+3x1:256", "1x1:384 3x1:448 1x3:512 1x3:256+3x1:256", "avg 1x1:256")

NETWORKS = {
    "inception_v1": Inception(
        "InceptionV1",
        "SAME",
        {
            "Conv2d_1a_7x7": "7x7/2:64",
            "MaxPool_2a_3x3": "max/2",
            "Conv2d_2b_1x1": "1x1:64",
            "Conv2d_2c_3x3": "3x3:192",
            "MaxPool_3a_3x3": "max/2",
            "Mixed_3b": _v1(64, 96, 128, 16, 32, 32),
            "Mixed_3c": _v1(128, 128, 192, 32, 96, 64),
            "MaxPool_4a_3x3": "max/2",
            "Mixed_4b": _v1(192, 96, 208, 16, 48, 64),
            "Mixed_4c": _v1(160, 112, 224, 24, 64, 64),
            "Mixed_4d": _v1(128, 128, 256, 24, 64, 64),
            "Mixed_4e": _v1(112, 144, 288, 32, 64, 64),
            "Mixed_4f": _v1(256, 160, 320, 32, 128, 128),
            "MaxPool_5a_2x2": "max2/2",
            "Mixed_5b": ("1x1:256", "1x1:160 3x3:320", "1x1:32 Conv2d_0a_3x3=3x3:128", "max 1x1:128"),
            "Mixed_5c": _v1(384, 192, 384, 48, 128, 128),
        },
        ("AvgPool_0a_7x7", "Dropout_0b", "Conv2d_0c_1x1"),
        5_607_184,
    ),
    "inception_v2": Inception(
        "InceptionV2",
        "SAME",
        {
            "Conv2d_1a_7x7": "separable",
            "MaxPool_2a_3x3": "max/2",
            "Conv2d_2b_1x1": "1x1:64",
            "Conv2d_2c_3x3": "3x3:192",
            "MaxPool_3a_3x3": "max/2",
            "Mixed_3b": _v2(64, 64, 64, 64, 96, 32),
            "Mixed_3c": _v2(64, 64, 96, 64, 96, 64),
            "Mixed_4a": ("1x1:128 3x3/2:160", "1x1:64 3x3:96 3x3/2:96", "max/2"),
            "Mixed_4b": _v2(224, 64, 96, 96, 128, 128),
            "Mixed_4c": _v2(192, 96, 128, 96, 128, 128),
            "Mixed_4d": _v2(160, 128, 160, 128, 160, 96),
            "Mixed_4e": _v2(96, 128, 192, 160, 192, 96),
            "Mixed_5a": ("1x1:128 3x3/2:192", "1x1:192 3x3:256 3x3/2:256", "max/2"),
            "Mixed_5b": _v2(352, 192, 320, 160, 224, 128),
            "Mixed_5c": _v2(352, 192, 320, 192, 224, 128, pool="max"),
        },
        ("AvgPool_1a_{0}x{0}", "Dropout_1b", "Conv2d_1c_1x1"),
        10_173_112,
    ),
    "inception_v3": Inception(
        "InceptionV3",
        "VALID",
        {
            "Conv2d_1a_3x3": "3x3/2:32",
            "Conv2d_2a_3x3": "3x3v:32",
            "Conv2d_2b_3x3": "3x3:64",
            "MaxPool_3a_3x3": "max/2",
            "Conv2d_3b_1x1": "1x1v:80",
            "Conv2d_4a_3x3": "3x3v:192",
            "MaxPool_5a_3x3": "max/2",
            "Mixed_5b": _v3_first(32),
            "Mixed_5c": _v3_first(64, "Conv2d_0b_1x1=1x1:48 Conv_1_0c_5x5=5x5:64"),
            "Mixed_5d": _v3_first(64),
            "Mixed_6a": ("Conv2d_1a_1x1=3x3/2:384", "1x1:64 3x3:96 Conv2d_1a_1x1=3x3/2:96", "max/2"),
            "Mixed_6b": _v3_second(128),
            "Mixed_6c": _v3_second(160),
            "Mixed_6d": _v3_second(160),
            "Mixed_6e": _v3_second(192),
            "Mixed_7a": ("1x1:192 3x3/2:320", "1x1:192 1x7:192 7x1:192 3x3/2:192", "max/2"),
            "Mixed_7b": _v3_third("1x3:384+Conv2d_0b_3x1=3x1:384"),
            "Mixed_7c": _v3_third("1x3:384+3x1:384"),
        },
        ("AvgPool_1a_{0}x{0}", "Dropout_1b", "Conv2d_1c_1x1"),
        21_802_784,
    ),
    "inception_v4": Inception(
        "InceptionV4",
        "VALID",
        {
            "Conv2d_1a_3x3": "3x3/2:32",
            "Conv2d_2a_3x3": "3x3v:32",
            "Conv2d_2b_3x3": "3x3:64",
            "Mixed_3a": ("MaxPool_0a_3x3=max/2", "Conv2d_0a_3x3=3x3/2:96"),
            "Mixed_4a": ("1x1:64 Conv2d_1a_3x3=3x3v:96", "1x1:64 1x7:64 7x1:64 Conv2d_1a_3x3=3x3v:96"),
            "Mixed_5a": ("3x3/2:192", "max/2"),
            **{f"Mixed_5{letter}": V4_A for letter in "bcde"},
            "Mixed_6a": ("3x3/2:384", "1x1:192 3x3:224 3x3/2:256", "max/2"),
            **{f"Mixed_6{letter}": V4_B for letter in "bcdefgh"},
            "Mixed_7a": ("1x1:192 3x3/2:192", "1x1:256 1x7:256 7x1:320 3x3/2:320", "max/2"),
            **{f"Mixed_7{letter}": V4_C for letter in "bcd"},
        },
        ("AvgPool_1a", "Dropout_1b", "Logits"),
        41_174_400,
    ),
}

STEP = re.compile(
    r"(?:(?P<name>\w+)=)?"
    r"(?:(?P<h>\d)x(?P<w>\d)|(?P<pool>max|avg)(?P<size>\d?))"
    r"(?P<valid>v?)(?:/(?P<stride>2))?(?::(?P<c>\d+))?"
)


def inception(name: str, size: int, classes: int = 1001) -> SlimGraph:
    """The network as a graph, a softmax behind its classifier."""
    table = NETWORKS[name]
    net = SlimGraph(size)
    x = net.input
    with net.scope(table.scope):
        with net.scope(table.scope):
            for scope, row in table.rows.items():
                x = _row(net, x, scope, row, table.reductions)
        with net.scope("Logits"):
            x = _classifier(net, x, table.ends, classes)
            if name == "inception_v1":  # the others have their predictions outside
                net.softmax(x, "Predictions")
        if name in ("inception_v2", "inception_v3"):
            net.softmax(x, "Predictions")
    return net


def _row(net: SlimGraph, x: Any, scope: str, row: Module, reductions: str) -> Any:
    if row == "separable":
        return _separable(net, x, scope)
    if isinstance(row, str):
        return _step(net, x, f"{scope}={row}", 0, reductions)
    with net.scope(scope):
        branches = []
        for index, steps in enumerate(row):
            with net.scope(f"Branch_{index}"):
                branches.append(_branch(net, x, steps.split(), reductions))
        return net.concat(branches)


def _branch(net: SlimGraph, x: Any, steps: list[str], reductions: str) -> Any:
    position = 0
    for step in steps:
        forks = step.split("+")
        results = [_step(net, x, fork, position + index, reductions) for index, fork in enumerate(forks)]
        position += len(forks)
        x = results[0] if len(forks) == 1 else net.concat(results)
    return x


def _step(net: SlimGraph, x: Any, step: str, position: int, reductions: str) -> Any:
    match = STEP.fullmatch(step)
    assert match is not None, step
    stride = int(match["stride"] or 1)
    padding = "VALID" if match["valid"] else reductions if stride == 2 else "SAME"
    place = "1a" if stride == 2 else f"0{'abcdefg'[position]}"
    if match["pool"]:
        kernel = int(match["size"] or 3)
        kind, operator = ("MaxPool", net.max_pool) if match["pool"] == "max" else ("AvgPool", net.avg_pool)
        return operator(x, match["name"] or f"{kind}_{place}_{kernel}x{kernel}", kernel, stride, padding)
    kernel_size = int(match["h"]), int(match["w"])
    name = match["name"] or f"Conv2d_{place}_{match['h']}x{match['w']}"
    return net.layer(x, name, int(match["c"]), kernel_size, stride, padding, scale=False)


def _separable(net: SlimGraph, x: Any, scope: str) -> Any:
    """Eight depthwise filters for each color, mixed into 64 channels; slim norms plain convolutions only, this one has a bias."""
    with net.scope(scope):
        x = net.depthwise(x, 7, 2, multiplier=8, name="separable_conv2d/depthwise")
        x = net.conv(x, 64, 1, name="separable_conv2d", weights="pointwise_weights")
        return net.activate(net.bias(x))


def _classifier(net: SlimGraph, x: Any, ends: tuple[str, str, str], classes: int) -> Any:
    pool, dropout, logits = ends
    grid = int(x.shape[1])
    x = net.avg_pool(x, pool.format(grid), grid, 1, "VALID")
    x = net.apply(f"{dropout}/Identity", tf.identity, x)
    if logits != "Logits":
        return net.squeeze(net.layer(x, logits, classes, 1, norm=False, activation=None))
    x = net.flatten(x, "PreLogitsFlatten/flatten")
    with net.scope(logits):
        x = net.bias(net.dense(x, classes))
    return net.apply("Predictions", tf.nn.softmax, x)
