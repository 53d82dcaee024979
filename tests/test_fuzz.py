"""Random networks: oracle = onnxruntime (optimizations off and on) = TensorFlow on every integer, or a typed refusal.

`TQT_ONNX_FUZZ=N` runs N networks instead of the fixed number (`make fuzz N=... SEED=...`).
"""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import onnx_ir
from fuzz_road import quantize_network
from hypothesis import HealthCheck, event, given, settings
from random_networks import Network, networks

from tqt_onnx.ir import CURVES, DataError, UnsupportedError
from tqt_onnx.passes import insert_qdq, remove_qdq
from tqt_onnx.verbs.check import check

COUNT = int(os.environ.get("TQT_ONNX_FUZZ", "0"))


REASONS = (
    "(Q5)",  # scales outside the exact range
    "(O5)",  # two roundings that onnxruntime would merge
    "nothing to quantize",
    "(X4)",  # a float Clip that onnxruntime would drop
    "int32",  # a bias that leaves no room
    "2^62",  # scales so far apart that their sum does not fit the oracle
    "62 bits",
    "Received: infinity",  # products of products, in floats
)
"""Every way in which a random network may be refused."""

OUTCOMES: Counter[str] = Counter()


@settings(
    max_examples=COUNT or 100,
    derandomize=not COUNT,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(network=networks())
def compare_engines(network: Network) -> None:
    found = outcome(network)
    OUTCOMES[found.partition(":")[0]] += 1
    event(found)


def outcome(network: Network) -> str:
    """Takes one network the whole road; what it was: certified, uncertified, with an island, or refused and why."""
    try:
        quantized = quantize_network(network)
        result = check(quantized, network.inputs, engines=("oracle", "ort", "tf"))
    except (DataError, UnsupportedError) as error:
        reason = next((reason for reason in REASONS if reason in str(error)), None)
        assert reason is not None, error
        return f"refused: {reason}"
    restored = remove_qdq(quantized)
    again = insert_qdq(*restored)
    assert _edges(again) == _edges(quantized)
    uncertified = [layer for layer in result.certificates if not layer.promised]
    assert result.differences == ()
    assert result.ok or result.nothing_certified
    if not uncertified and not result.islands:
        assert result.not_certified == ()
    assert sum(result.integers.values()) > 0
    return "uncertified" if uncertified else "island" if result.islands else "certified"


def test_every_engine_computes_the_same_integers() -> None:
    """And most networks are computed, of every sort: a fuzzer that refuses everything proves nothing."""
    OUTCOMES.clear()
    compare_engines()
    total = sum(OUTCOMES.values())
    if total >= 100:  # fewer, by hand, need not meet every sort
        assert OUTCOMES["refused"] <= 0.3 * total, OUTCOMES
        assert min(OUTCOMES["certified"], OUTCOMES["island"]) > 0, OUTCOMES


def test_what_follows_a_layer_without_certificate_is_compared_too() -> None:
    """The sort of network the random ones seldom are: a bias far beyond 2^24, then a layer that is certified."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,1,1,2] x) => (float[N,2] y)
      <float[2,2,1,1] w = {0.5, -0.25, 1.0, 0.125}, float[2] b = {256.0, -200.0}, float[2,2] v = {0.5, 1.0, -1.0, 0.25},
       int64[2] s = {-1, 2}>
    { t = Transpose<perm = [0, 3, 1, 2]>(x) c = Conv<kernel_shape = [1, 1]>(t, w, b) f = Reshape(c, s) y = MatMul(f, v) }"""
    inputs = {"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(12, 1, 1, 2) / 64}
    model = onnx_ir.from_onnx_text(text)
    assert outcome(Network(model, inputs, 32, 8, 8, 8, False, [0], "max", True)) == "uncertified"


def _edges(model: onnx_ir.Model) -> set[tuple[str, ...]]:
    """Operators with the names of what they read and write; how nodes are ordered where both orders are right is left out."""
    values = {(node.op_type, *(str(value.name) for value in (*node.inputs, *node.outputs) if value)) for node in model.graph}
    return {tuple("bound" if "bound" in name else name for name in entry) for entry in values}


def test_the_fuzzer_reaches_every_operator() -> None:
    """A generator that stops producing an operator would make the test above weaker without anybody noticing."""
    seen: set[str] = set()

    @settings(max_examples=300, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(network=networks())
    def collect(network: Network) -> None:
        seen.update(node.op_type for node in network.model.graph)

    collect()
    assert seen & CURVES
    assert seen >= {
        "AveragePool", "Add", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Gather", "Gemm", "GlobalAveragePool",
        "LeakyRelu", "MatMul", "Max", "MaxPool", "Min", "Mul", "PRelu", "Pad", "Relu", "Reshape", "Resize", "Slice", "Softmax",
        "SpaceToDepth", "Split", "Sub", "Tile", "Transpose",
    }  # fmt: skip
