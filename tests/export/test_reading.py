"""The network in integers is the model: a second reading of every step gives the oracle's integers, `==`."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import onnx_ir
import pytest
from fuzz_road import quantize_network
from handoff_networks import NETWORKS, examples, quantized
from hypothesis import HealthCheck, given, settings
from integer_reader import run_step
from random_networks import Network, networks

import tqt_onnx
from tqt_onnx.export import IntegerNetwork
from tqt_onnx.ir import DataError, UnsupportedError
from tqt_onnx.verbs.export import make_source


def compare(model: onnx_ir.Model, feeds: dict[str, np.ndarray]) -> IntegerNetwork:
    """Every step from what it reads, as the oracle computed it."""
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


EDGES = {
    "a bound finer than the sum's grid": "c = Clip(s, low, high) y = Transpose<perm = [0, 2, 3, 1]>(c)",
    "one bound": "c = Clip(s, , high) y = Transpose<perm = [0, 2, 3, 1]>(c)",
    "a bound that nothing reaches": "c = Clip(s, , far) y = Transpose<perm = [0, 2, 3, 1]>(c)",
    "a filling": "p = Pad(s, pads, high) y = Transpose<perm = [0, 2, 3, 1]>(p)",
    "a mirror": 'p = Pad<mode = "reflect">(s, pads) y = Transpose<perm = [0, 2, 3, 1]>(p)',
}
"""What else stands beside a sum."""


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("end", EDGES)
def test_bounds_and_fillings_are_integers_too(end: str, layer: int) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N,8,8,3] x) => (float[N,h,w,2] y)
      <float[2,3,1,1] k = {{0.5, -0.25, 1.0, 0.125, 0.75, -1.0}}, float[2] b = {{0.3, -0.7}}, float low = {{-0.61}},
       float high = {{0.7031}}, float far = {{1e30}}, int64[8] pads = {{0, 0, 1, 2, 0, 0, 1, 0}}>
    {{ t = Transpose<perm = [0, 3, 1, 2]>(x) s = Conv<kernel_shape = [1, 1]>(t, k, b) {EDGES[end]} }}"""
    bits = tqt_onnx.BitWidths(layer=layer)  # type: ignore[arg-type]  # 16 or 32
    found = compare(tqt_onnx.quantize(onnx_ir.from_onnx_text(text), examples(), bits=bits).model, {"x": examples(16, 5)})
    assert {"Clip", "Pad"} & {operation.op for step in found.steps for operation in step.operations}


def test_so_it_is_for_random_networks() -> None:
    read, operations = 0, set[str]()

    @settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(network=networks())
    def every(network: Network) -> None:
        nonlocal read
        try:
            model = quantize_network(network)
        except (DataError, UnsupportedError):
            return
        found = compare(model, network.inputs)
        operations.update(operation.op for step in found.steps for operation in step.operations)
        read += 1

    every()
    assert read >= 30
    assert operations >= {"Conv", "ConvTranspose", "Add", "Mul", "Max", "Table", "Concat", "Pad", "Slice", "Transpose"}
