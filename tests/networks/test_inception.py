"""Inception v1 to v4 of TF-Slim at full depth and width, the whole road."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import tensorflow as tf
from inception_networks import NETWORKS, inception
from slim_graph import images
from whole_road import NETWORK, record, take

from tqt_onnx.verbs.presets import preset

LAYERS = {"inception_v1": (32, 58), "inception_v2": (32, 71), "inception_v3": (75, 95), "inception_v4": (75, 150)}
"""Network -> smallest resolution, convolutions and matrices of the source."""

WITHOUT_CERTIFICATE = {"inception_v3": 2}
"""Layers of so many taps that random weights leave them without a bound (X2): they are checked all the same."""


def variables(file: Path, scope: str) -> int:
    """Numbers in the variables in front of the classifier."""
    graph = tf.compat.v1.GraphDef.FromString(file.read_bytes())
    names = {node.input[0] for node in graph.node if node.name.endswith("/read")}
    sizes = {node.name: node.attr["value"].tensor.tensor_shape.dim for node in graph.node if node.name in names}
    return sum(prod(dim.size for dim in dims) for name, dims in sizes.items() if not name.startswith(f"{scope}/Logits/"))


@pytest.mark.parametrize("name", LAYERS)
def test_inception(name: str, tmp_path: Path) -> None:
    size, layers = LAYERS[name]
    net, known = inception(name, size), preset(name)
    file = net.save(tmp_path / f"{name}.pb")
    assert net.count("Conv2D", "DepthwiseConv2dNative", "MatMul") == layers
    assert variables(file, NETWORKS[name].scope) == NETWORKS[name].model_variables
    assert {*known.inputs, *known.outputs, known.bits.first_layer, known.bits.last_layer} <= net.nodes.keys()
    journey = take(
        file,
        images(size, 2),
        settings=NETWORK,
        bits=known.bits,
        inputs=list(known.inputs),
        outputs=list(known.outputs),
        check_images=1,
    )
    journey.assert_exact(without_certificate=WITHOUT_CERTIFICATE.get(name, 0))
    record("networks", name, journey)
