"""Every kind of branch beside every other, in sums and concatenations (L4, L5): one structure in both orders, and exact."""

from __future__ import annotations

import itertools
import re

import numpy as np
import onnx_ir
import pytest
from quantizer_structure import Structure, merged_pairs

from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.check import check
from tqt_onnx.verbs.quantize import Quantization, quantize

CONV = "Conv<kernel_shape = [1, 1]>"
POOL = "kernel_shape = [2, 2], strides = [1, 1], pads = [0, 0, 1, 1]"
BRANCHES = {
    "input": "",
    "conv": f"B = {CONV}(x, w)",
    "relu": f"B1 = {CONV}(x, w, b) B = Relu(B1)",
    "relu6": f"B1 = {CONV}(x, w) B = Clip(B1, zero, six)",
    "leaky": f"B1 = {CONV}(x, w) B = LeakyRelu<alpha = 0.2>(B1)",
    "clip": f"B1 = {CONV}(x, w) B = Clip(B1, low, six)",
    "relu of the input": "B = Relu(x)",
    "clip of the input": "B = Clip(x, low, six)",
    "max pool": f"B1 = {CONV}(x, w) B = MaxPool<{POOL}>(B1)",
    "max pool of the input": f"B = MaxPool<{POOL}>(x)",
    "average pool": "B = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(x)",
    "sum": f"B1 = {CONV}(x, w) B2 = {CONV}(x, w) B = Add(B1, B2)",
    "concat": f"B1 = {CONV}(x, half) B2 = Relu(B1) B = Concat<axis = 1>(B2, B2)",
    "shared": "B = Identity(r)",  # a relu that a layer reads too
    "shared linear": "B = Identity(s)",
}
JOIN = {"add": "j = Add(p, q)", "concat": "j = Concat<axis = 2>(p, q)"}


def branch(kind: str, name: str) -> tuple[str, str]:
    """Its nodes, and the value it ends in."""
    return (BRANCHES[kind].replace("B", name) + " ", name if BRANCHES[kind] else "x") if kind != "input" else ("", "x")


def network(join: str, first: str, second: str) -> onnx_ir.Model:
    nodes_p, p = branch(first, "p")
    nodes_q, q = branch(second, "q")
    joined = JOIN[join].replace("(p, q)", f"({p}, {q})")
    shared = f"r0 = {CONV}(x, w) r = Relu(r0) u = {CONV}(r, v) " if "shared" in (first, second) else ""
    linear = f"s = {CONV}(x, w) t = {CONV}(s, v) " if "shared linear" in (first, second) else ""
    outputs = ["y", *(["u"] if shared else []), *(["t"] if linear else [])]
    declared = ", ".join(f"float[n,2,c_{name},4] {name}" for name in outputs)
    nodes = f"{shared}{linear}{nodes_p}{nodes_q}{joined} y = {CONV}(j, v)"
    text = f'<ir_version: 10, opset_import: ["" : 21]> g (float[n,2,4,4] x) => ({declared}) {{ {nodes} }}'
    rng = np.random.default_rng(2)
    arrays = {
        "w": rng.normal(size=(2, 2, 1, 1)),
        "v": rng.normal(size=(2, 2, 1, 1)),
        "half": rng.normal(size=(1, 2, 1, 1)),
        "b": [0.3, -0.2],
    }
    arrays |= {"zero": 0.0, "low": -0.5, "six": 1.5}
    used = {name: np.asarray(array, np.float32) for name, array in arrays.items() if re.search(rf"\b{name}[,)]", text)}
    tensors = [onnx_ir.tensor(array, name=name) for name, array in used.items()]
    model = onnx_ir.from_onnx_text(text, initializers=tensors)
    return onnx_ir.serde.deserialize_model(onnx_ir.serde.serialize_model(model))


def quantized(join: str, first: str, second: str, layer: int, images: np.ndarray, *, unsigned: bool) -> Quantization:
    bits = BitWidths(layer=layer, unsigned_input=unsigned)  # type: ignore[arg-type]
    return quantize(network(join, first, second), images, bits=bits, method="max")


CASES = [(kind, False) for kind in BRANCHES] + [(kind, True) for kind in BRANCHES if "x, w" not in BRANCHES[kind]]
"""First branch, and whether the input is unsigned: of interest where the branch begins there."""


@pytest.mark.parametrize("join", JOIN)
@pytest.mark.parametrize(("first", "unsigned"), CASES)
def test_pairs_of_branches(join: str, first: str, unsigned: bool) -> None:
    images = np.random.default_rng(3).normal(size=(2, 2, 4, 4)).astype(np.float32)
    images = np.abs(images) if unsigned else images
    kinds = list(BRANCHES)
    for second, layer in zip(kinds[kinds.index(first) :], itertools.cycle((16, 32))):
        one, other = (quantized(join, *pair, layer, images, unsigned=unsigned) for pair in ((first, second), (second, first)))
        assert one.float_layers == () and merged_pairs(one.model) == [], second
        assert Structure(one.model).fingerprint() == Structure(other.model).fingerprint(), second
        outcome = check(one.model, images)
        assert outcome.exact and outcome.not_certified == () and all(layer.promised for layer in outcome.certificates), second
