"""Graffitist's example networks with their published depth, widths and node names, at a low resolution, the whole road.

Weights are random: what is proven is that every layer of these topologies converts, quantizes and computes the same integers in
every engine, not what accuracy is left. Inception has a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from darknet_networks import darknet19, yolo_v2, yolo_v2_tiny
from slim_graph import SlimGraph, images
from slim_networks import mobilenet_v1, mobilenet_v2, resnet_v1, resnet_v1p5, vgg
from whole_road import NETWORK, record, take

from tqt_onnx.verbs.presets import preset


@dataclass(frozen=True)
class Example:
    """One network.

    Attributes:
        build: from the size of the input.
        size: of the test's input; 32 halves to 1 in five steps.
        layers: compute layers.
        parameters: as published, for the published resolution.
        facts: nodes that only the true topology has, with their operators.
        not_at_this_size: parameters of kernels that shrink with the resolution.
        without_certificate: layers that may lack their certificate, at most.
    """

    build: Callable[[int], SlimGraph]
    size: int
    layers: int
    parameters: int
    facts: Mapping[str, str] = field(default_factory=dict)
    not_at_this_size: int = 0
    without_certificate: int = 0


_FC6 = (7 * 7 - 1) * 512 * 4096

EXAMPLES = {
    "vgg16": Example(partial(vgg, "vgg_16"), 32, 16, 138_357_544, {"vgg_16/conv5/conv5_3/Relu": "Relu"}, _FC6),
    "vgg19": Example(partial(vgg, "vgg_19"), 32, 19, 143_667_240, {"vgg_19/conv5/conv5_4/Relu": "Relu"}, _FC6),
    "resnet_v1_50": Example(
        partial(resnet_v1, "resnet_v1_50"),
        64,
        54,
        25_557_032,
        {
            "resnet_v1_50/block1/unit_1/bottleneck_v1/shortcut/Conv2D": "Conv2D",
            "resnet_v1_50/block1/unit_3/bottleneck_v1/shortcut/MaxPool": "MaxPool",
            "resnet_v1_50/block1/unit_3/bottleneck_v1/Pad": "Pad",
            "resnet_v1_50/block4/unit_3/bottleneck_v1/add": "AddV2",
            "resnet_v1_50/pool5": "Mean",
        },
    ),
    "resnet_v1_101": Example(
        partial(resnet_v1, "resnet_v1_101"),
        32,
        105,
        44_549_160,
        {"resnet_v1_101/block3/unit_23/bottleneck_v1/shortcut/MaxPool": "MaxPool"},
    ),
    "resnet_v1_152": Example(
        partial(resnet_v1, "resnet_v1_152"),
        32,
        156,
        60_192_808,
        {
            "resnet_v1_152/block2/unit_8/bottleneck_v1/shortcut/MaxPool": "MaxPool",
            "resnet_v1_152/block3/unit_36/bottleneck_v1/shortcut/MaxPool": "MaxPool",
        },
    ),
    # 1001 classes, as MobileNets have: 2,049 parameters more than the published 25,557,032 of 1000 classes.
    "resnet_v1p5_50": Example(
        resnet_v1p5,
        64,
        54,
        25_557_032 + 2_049,
        {
            "resnet_model/Pad_6": "Pad",
            "resnet_model/conv2d_52/Conv2D": "Conv2D",
            "resnet_model/batch_normalization_52/FusedBatchNorm": "FusedBatchNorm",
            "resnet_model/add_15": "AddV2",
            "resnet_model/Relu_48": "Relu",
            "resnet_model/final_dense": "Identity",
        },
    ),
    "mobilenet_v1": Example(
        mobilenet_v1,
        64,
        28,
        4_231_976 + 1_025,
        {
            "MobilenetV1/MobilenetV1/Conv2d_13_depthwise/depthwise": "DepthwiseConv2dNative",
            "MobilenetV1/MobilenetV1/Conv2d_13_pointwise/Relu6": "Relu6",
        },
    ),
    "mobilenet_v2": Example(
        mobilenet_v2,
        64,
        53,
        3_504_872 + 1_281,
        {
            "MobilenetV2/expanded_conv_3/expand/Conv2D": "Conv2D",
            "MobilenetV2/expanded_conv_15/add": "AddV2",
            "MobilenetV2/expanded_conv_16/project/BatchNorm/FusedBatchNorm": "FusedBatchNorm",
            "MobilenetV2/Conv_1/Relu6": "Relu6",
        },
    ),
    "darknet19": Example(
        darknet19,
        64,
        19,
        20_842_376,
        {"darknet19/convolutional18/Activation": "Maximum", "darknet19/maxpool5/MaxPool": "MaxPool"},
    ),
    # The files of weights hold 50,983,561 and 11,237,145 numbers: these, and a mean and a variance per normed channel.
    # convolutional19, 20 and 22 sum 9,216 and 11,520 products of 8 bits: with dense random weights the worst case passes 2^24 (X2).
    "yolo_v2": Example(
        yolo_v2,
        64,
        23,
        50_983_561 - 2 * 10_336,
        {
            "yolov2/convolutional22/Activation": "LeakyRelu",
            "yolov2/reorg1/ExtractImagePatches": "ExtractImagePatches",
            "yolov2/route1": "Identity",
            "yolov2/route2": "ConcatV2",
        },
        without_certificate=3,
    ),
    # convolutional8 sums 9,216 products of 8 bits, likewise.
    "yolo_v2_tiny": Example(
        yolo_v2_tiny, 64, 9, 11_237_145 - 2 * 2_544, {"yolov2-tiny/maxpool6/MaxPool": "MaxPool"}, without_certificate=1
    ),
}

COMPUTE = ("Conv2D", "DepthwiseConv2dNative", "MatMul")


def assert_true_topology(example: Example, net: SlimGraph, needed: tuple[str, ...]) -> None:
    assert net.count(*COMPUTE) == example.layers
    assert net.parameters + example.not_at_this_size == example.parameters
    nodes = net.nodes
    assert [name for name in needed if name not in nodes] == []
    assert {name: nodes.get(name) for name in example.facts} == example.facts


@pytest.mark.parametrize("name", EXAMPLES)
def test_network(name: str, tmp_path: Path) -> None:
    example, known = EXAMPLES[name], preset(name)
    net = example.build(example.size)
    ends = [node for node in (known.bits.first_layer, known.bits.last_layer) if node is not None]
    assert_true_topology(example, net, (*known.inputs, *known.outputs, *ends))
    source = net.save(tmp_path / f"{name}.pb")
    del net  # its probes and constants are as large as the network
    options = {"inputs": known.inputs, "outputs": known.outputs, "bits": known.bits}
    journey = take(source, images(example.size), settings=NETWORK, check_images=1, **options)
    journey.assert_exact(islands=(), without_certificate=example.without_certificate)
    record("networks", name, journey)


def test_vggs_fc6_at_its_full_length(tmp_path: Path) -> None:
    """25,088 products per sum: of 8 bits without certificate (X2), though the engines agree on these images; of 4 bits with one."""
    net = SlimGraph(7, channels=512)
    x = net.layer(net.input, "conv5", 512, 1, norm=False)
    x = net.layer(x, "fc6", 16, 7, padding="VALID", norm=False)
    x = net.layer(x, "fc8", 10, 1, norm=False, activation=None)
    net.squeeze(x, "fc8/squeezed")
    journey = take(net.save(tmp_path / "fc6.pb"), images(7, 4, channels=512), settings=NETWORK)
    journey.assert_exact(islands=(), without_certificate=1)
    missing = {key: [one.output for one in result.certificates if not one.certified] for key, result in journey.checks.items()}
    assert [name.split("/")[0] for name in missing[8, 16]] == ["fc6"]
    assert missing[4, 32] == []
