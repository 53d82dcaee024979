"""Target `finn`: what FINN lacks is refused by layer, with the limit and the value, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from batch_norm_networks import Builder
from handoff_networks import NETWORKS, SHAPE, examples, quantized

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export import IntegerNetwork
from tqt_onnx.export.finn_model.limits import check_network
from tqt_onnx.ir import UnsupportedError
from tqt_onnx.verbs.export import export_model, make_source


def network_of(model: onnx_ir.Model) -> IntegerNetwork:
    return make_source(model, "net", None).network


def _start() -> tuple[Builder, str]:
    net = Builder(3)
    return net, net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])


def _end(net: Builder, x: str, features: int) -> onnx_ir.Model:
    net.layer("Gemm", net.op("Flatten", x, name="flat"), "y", (features, 5), 5)
    return net.model({"x": SHAPE}, {"y": (5,)})


def grouped() -> onnx_ir.Model:
    net, x = _start()
    x = net.op("Relu", net.layer("Conv", x, "conv", (4, 3, 3, 3), 4, pads=[1] * 4), name="relu")
    return _end(net, net.layer("Conv", x, "groups", (4, 2, 3, 3), 4, pads=[1] * 4, group=2), 256)


def padded_pool() -> onnx_ir.Model:
    net, x = _start()
    x = net.layer("Conv", x, "conv", (4, 3, 3, 3), 4, pads=[1] * 4)
    return _end(net, net.op("MaxPool", x, name="pool", kernel_shape=[3, 3], pads=[1] * 4), 256)


def skipping_pool() -> onnx_ir.Model:
    net, x = _start()
    x = net.op("Relu", net.layer("Conv", x, "conv", (4, 3, 3, 3), 4, pads=[1] * 4), name="relu")
    return _end(net, net.op("MaxPool", x, name="pool", kernel_shape=[1, 1], strides=[2, 2]), 64)


def island() -> onnx_ir.Model:
    net, x = _start()
    x = net.op("Softmax", net.layer("Conv", x, "conv", (4, 3, 3, 3), 4, pads=[1] * 4), name="attention", axis=1)
    return _end(net, x, 256)


def clipped() -> onnx_ir.Model:
    net, x = _start()
    net.constants |= {"low": np.array(-0.5, np.float32), "high": np.array(1.5, np.float32)}
    x = net.op("Clip", net.layer("Conv", x, "conv", (4, 3, 3, 3), 4, pads=[1] * 4), "low", "high", name="clip")
    return _end(net, x, 256)


def sliced() -> onnx_ir.Model:
    net, x = _start()
    x = net.op("Relu", net.layer("Conv", x, "conv", (4, 3, 3, 3), 4, pads=[1] * 4), name="relu")
    net.constants |= {name: np.array([number], np.int64) for name, number in {"from": 1, "to": 3, "axis": 1}.items()}
    return _end(net, net.op("Slice", x, "from", "to", "axis", name="slice"), 128)


def pointwise_stride() -> onnx_ir.Model:
    net, x = _start()
    x = net.op("Relu", net.layer("Conv", x, "conv", (4, 3, 3, 3), 4, pads=[1] * 4, strides=[1, 2]), name="relu")
    return _end(net, net.layer("Conv", x, "point", (4, 4, 1, 1), 4, strides=[2, 2]), 32)


def shrunk() -> onnx_ir.Model:
    net, x = _start()
    x = net.op("Relu", net.layer("Conv", x, "conv", (4, 3, 8, 8), 4), name="relu")
    return _end(net, net.layer("Conv", x, "padded", (4, 4, 3, 3), 4, pads=[1] * 4), 4)


def parallel() -> onnx_ir.Model:
    net, x = _start()
    return _end(net, net.layer("Conv", x, "multiplied", (6, 1, 3, 3), 6, pads=[1] * 4, group=3), 384)


def spread() -> onnx_ir.Model:
    net, x = _start()
    left = net.layer("Conv", x, "left", (4, 3, 3, 3), 4, pads=[1] * 4)
    right = net.layer("Conv", x, "right", (4, 3, 8, 8), 4)
    return _end(net, net.op("Add", left, right, name="sum"), 256)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (grouped, "layer 'groups': one group, or as many as channels in and out, are expected. Received: 2 groups"),
        (parallel, "layer 'multiplied': .*as many channels out as in|layer 'multiplied': one group"),
        (padded_pool, "layer 'pool': a max pool with padding needs unsigned"),
        (skipping_pool, "layer 'pool': windows without gaps"),
        (island, "node 'attention' .* Received: Softmax"),
        (clipped, "layer 'conv': a bound in front of a rounding.* Received: Clip"),
        (sliced, "layer 'slice': FINN has no such layer. Received: Slice 'slice'"),
        (pointwise_stride, "layer 'point': a 1x1 kernel with a stride"),
        (shrunk, r"layer 'padded': a kernel of one tap is expected along an axis of one element.* Received: \[1, 1\]"),
        (spread, "layer 'sum': summands of one shape are expected. Received: Add 'sum' of"),
        (NETWORKS["leaky"], "layer 'Mul:leaky__scaled': a product of two tensors.*Received: Mul"),
        (NETWORKS["transposed"], "layer 'up': a transposed convolution.*Received: ConvTranspose 'up'"),
        (NETWORKS["swish"], "layer 'swish': a function of one integer.*Received: Table"),
        (NETWORKS["wide"], r"layer 'y': its sums must stay below 2\^24.*Received: \d+"),
    ],
)
def test_what_finn_has_not_is_refused_by_name(build: Callable[[], onnx_ir.Model], message: str) -> None:
    model = tqt_onnx.quantize(build(), examples(32, 0), bits=BitWidths(layer=32)).model
    with pytest.raises(UnsupportedError, match=f"target finn: ({message})"):
        check_network(network_of(model))


@pytest.mark.parametrize("name", NETWORKS)
def test_sixteen_bit_accumulators_are_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    tqt_onnx.save(quantized(name, 16), tmp_path / "net.q.onnx")
    with pytest.raises(UnsupportedError, match=r"layer 'conv': .*16 bits.*--layer-bits 32. Received: contract layer16"):
        export_model(tmp_path / "net.q.onnx", "finn", tmp_path / "net")
    assert [path.name for path in tmp_path.iterdir()] == ["net.q.onnx"]


@pytest.mark.parametrize(
    ("tensor", "changes", "message"),
    [
        ("relu__q", {"bits": 9}, "layer 'conv': at most 8 bits are expected. Received: 'relu' of 9 bits"),
        ("a/w__q", {"bits": 10}, "layer 'a': at most 8 bits are expected. Received: 'a/w' of 10 bits"),
        ("relu__q", {"signed": True}, "layer 'conv': behind a relu an unsigned tensor"),
        (
            "b__q",
            {"signed": False},
            "inputs of one width and sign are expected. Received: Add 'sum' of int8 and uint8",
        ),
        ("b__q", {"bits": 4}, "inputs of one width and sign are expected. Received: Add 'sum' of int4 and int8"),
    ],
)
def test_widths_and_signs(tensor: str, changes: dict[str, Any], message: str) -> None:
    network = network_of(quantized("residual", 32))
    check_network(network)
    changed = {**network.tensors, tensor: replace(network.tensors[tensor], **changes)}
    with pytest.raises(UnsupportedError, match=message):
        check_network(replace(network, tensors=changed))


def test_a_transpose_inside_an_image_is_refused() -> None:
    network = network_of(quantized("residual", 32))
    first, *others = network.steps
    operation = replace(first.operations[0], attributes={"perm": [0, 1, 3, 2]})
    with pytest.raises(UnsupportedError, match="layer 'nchw': a Transpose between NHWC and NCHW is expected"):
        check_network(replace(network, steps=(replace(first, operations=(operation,)), *others)))


def test_a_concatenation_of_unlike_signs_is_refused() -> None:
    network = network_of(quantized("concat", 32))
    check_network(network)
    changed = {**network.tensors, "left_relu__q": replace(network.tensors["left_relu__q"], signed=True)}
    steps = tuple(step for step in network.steps if step.output != "left_relu__q")
    with pytest.raises(
        UnsupportedError, match=r"inputs of one width and sign are expected. Received: Concat 'joined' of int8 and uint8"
    ):
        check_network(replace(network, tensors=changed, steps=steps))
