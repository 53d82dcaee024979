"""The network in integers is the model: a second reading of every step gives the oracle's integers, `==`."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from handoff_networks import NETWORKS, examples, quantized
from integer_reader import run_step

from tqt_onnx.export import IntegerNetwork
from tqt_onnx.verbs.export import make_source


def compare(model: onnx_ir.Model, feeds: dict[str, np.ndarray]) -> IntegerNetwork:
    """Every step from what it reads, as the oracle computed it."""
    from dataclasses import asdict

    source = make_source(model, "net", None)
    network, expected = source.network, source.oracle(feeds)
    tensors = {**expected, **{tensor.name: tensor.integers for tensor in network.constants}}
    for step in network.steps:
        output = network.tensors[step.output]
        found = run_step(asdict(step), tensors, {"lower": output.lower, "upper": output.upper})
        np.testing.assert_array_equal(found, expected[step.output], err_msg=step.output)
        assert found.shape[1:] == output.shape[1:]
    assert set(expected) == {name for name, tensor in network.tensors.items() if tensor.kind != "constant"}
    return network


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_step_read_again_gives_the_oracles_integers(name: str, layer: int) -> None:
    compare(quantized(name, layer), {"x": examples()})
