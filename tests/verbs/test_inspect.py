"""`inspect`: topologies, costs and groups by hand, the same before and after quantizing, and models of other tools."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper

import tqt_onnx
from tqt_onnx import BitWidths, ModelError
from tqt_onnx.passes import annotate, lower, optimize, remove_qdq
from tqt_onnx.passes.flow import analyse
from tqt_onnx.verbs.cost import multiply_accumulates, parameters
from tqt_onnx.verbs.inspection import Inspection
from tqt_onnx.verbs.show import show_inspection
from tqt_onnx.verbs.topology import runs

HEADER = '<ir_version: 10, opset_import: ["" : 21]> net'
RNG = np.random.default_rng(0)


def constants(**shapes: tuple[int, ...]) -> str:
    """Random float initializers in ONNX text."""
    texts = []
    for name, shape in shapes.items():
        numbers = ", ".join(f"{number:.3f}" for number in RNG.normal(size=shape).ravel())
        texts.append(f"float[{','.join(map(str, shape))}] {name} = {{{numbers}}}")
    return ", ".join(texts)


NETWORK = f"""{HEADER} (float[N,2,6,6] x) => (float[N,3] p)
  <{constants(w1=(4, 2, 3, 3), b1=(4,), w2=(4, 1, 3, 3), b2=(4,), w3=(4, 4, 1, 1), w4=(3, 2, 1, 1), w5=(7, 3), b5=(3,))},
   float lo = {{0.0}}, float six = {{6.0}}, int64[2] flat = {{0, -1}}>
{{
  c1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w1, b1)
  r1 = Clip(c1, lo, six)
  c2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 4>(r1, w2, b2)
  a = Add(c2, r1)
  r2 = Relu(a)
  c3 = Conv<kernel_shape = [1, 1], strides = [2, 2]>(r2, w3)
  l3 = LeakyRelu<alpha = 0.125>(c3)
  c4 = Conv<kernel_shape = [1, 1], strides = [2, 2]>(x, w4)
  j = Concat<axis = 1>(l3, c4)
  m = MaxPool<kernel_shape = [3, 3], strides = [3, 3]>(j)
  f = Reshape(m, flat)
  g = Gemm(f, w5, b5)
  p = Softmax<axis = 1>(g)
}}"""

TOPOLOGY = {
    "x__input": "input",
    "r1": "conv+bias+relu6",
    "c2": "depthwise+bias",
    "r2": "eltwise add+relu",
    "l3": "conv+leaky relu",
    "c4": "conv",
    "j": "concat",
    "m": "max pool",
    "f": "reshape",
    "g": "dense+bias",
    "p": "Softmax",
}
"""Value a layer ends in -> its topology; the rescale of the shortcut is named by the lowering."""

MACS = {"r1": 36 * 4 * 18, "c2": 36 * 4 * 9, "l3": 9 * 4 * 4, "c4": 9 * 3 * 2, "g": 7 * 3}
PARAMETERS = {"r1": 4 * 18 + 4, "c2": 4 * 9 + 4, "l3": 16, "c4": 6, "g": 21 + 3}


def network() -> onnx_ir.Model:
    return onnx_ir.from_onnx_text(NETWORK)


@pytest.fixture(name="quantized", scope="module", params=[16, 32])
def quantized_model(request: pytest.FixtureRequest) -> tuple[onnx_ir.Model, BitWidths]:
    bits = BitWidths(layer=request.param)
    data = np.random.default_rng(1).normal(size=(8, 2, 6, 6)).astype(np.float32)
    return tqt_onnx.quantize(network(), data, bits=bits, method="max").model, bits


def by_value(inspection: Inspection) -> dict[str, Any]:
    return {layer.value: layer for layer in inspection.layers}


@pytest.mark.parametrize("bits", [16, 32])
def test_topologies_and_costs_of_a_float_model(bits: Any) -> None:
    found = tqt_onnx.inspect(network(), bits=BitWidths(layer=bits))
    assert (found.kind, found.contract, found.opset) == ("float", f"layer{bits}", 21)
    layers = by_value(found)
    assert {value: layers[value].topology for value in TOPOLOGY} == TOPOLOGY
    assert {layer.topology for value, layer in layers.items() if value not in TOPOLOGY} == {"rescale"}
    assert {value: layer.macs for value, layer in layers.items() if layer.macs} == MACS
    assert {value: layer.parameters for value, layer in layers.items() if layer.parameters} == PARAMETERS
    assert found.macs == sum(MACS.values())
    assert found.parameters == sum(PARAMETERS.values())
    assert found.float_bytes == 4 * found.parameters
    biases = 4 + 4 + 3
    assert found.quantized_bytes == found.parameters - biases + biases * (2 if bits == 16 else 4)
    assert found.topologies["conv"] == 1
    assert [(port.name, port.shape) for port in (*found.inputs, *found.outputs)] == [("x", (None, 2, 6, 6)), ("p", (None, 3))]


def test_a_quantized_model_shows_the_same_and_more(quantized: tuple[onnx_ir.Model, BitWidths]) -> None:
    model, bits = quantized
    before, after = tqt_onnx.inspect(network(), bits=bits), tqt_onnx.inspect(model)
    assert (after.kind, after.contract) == ("quantized", bits.contract)
    told = ("topology", "value", "shape", "parameters", "macs", "carries", "reason", "group")
    plan, done = ([tuple(getattr(layer, name) for name in told) for layer in one.layers] for one in (before, after))
    assert plan == done
    assert before.groups.keys() == after.groups.keys()
    assert (before.parameters, before.macs, before.quantized_bytes) == (after.parameters, after.macs, after.quantized_bytes)
    for planned, decided in zip(before.layers, after.layers, strict=True):
        for role in ("weight", "bias", "accumulator", "output"):
            one, other = getattr(planned, role), getattr(decided, role)
            assert (one and (one.id, one.bits, one.signed)) == (other and (other.id, other.bits, other.signed))
            assert one is None or (one.exponent is None and other.exponent is not None)
    bits_of = {layer.value: layer.accumulator_bits for layer in after.layers if layer.accumulator_bits is not None}
    assert set(bits_of) == {"r1", "c2", "r2", "l3", "c4", "g"}
    assert bits_of["r2"] == 9  # two int8 of one scale
    widest = max(certificate.accumulator_bits or 0 for certificate in tqt_onnx.check(model).certificates)
    assert max(bits_of.values()) == widest
    assert {layer.certified for layer in after.layers} == {True, None}
    assert all(layer.accumulator_bits is None for layer in before.layers)


def test_every_node_belongs_to_one_layer(quantized: tuple[onnx_ir.Model, BitWidths]) -> None:
    model, bits = quantized
    lowered = network()
    optimize(lowered)
    lower(lowered, bits.contract)
    for graph in (lowered.graph, remove_qdq(model)[0].graph):
        found = Counter(node for run in runs(graph, analyse(graph)) for node in run.nodes)
        assert found == Counter(dict.fromkeys(graph, 1))


def test_share_groups_are_those_of_the_quantizers() -> None:
    found = tqt_onnx.inspect(network(), bits=BitWidths(layer=32))
    lowered = network()
    optimize(lowered)
    lower(lowered, "layer32")
    graph = annotate(lowered, BitWidths(layer=32))
    assert found.groups == {name: tuple(members) for name, members in graph.groups().items() if len(members) > 1}
    layers = by_value(found)
    add = next(members for members in found.groups.values() if "c2" in {member.value for member in members})
    assert {member.role for member in add} == {"activation", "rescale"}
    assert layers["c2"].group == add[0].group
    assert layers["j"].group == layers["l3"].group == layers["c4"].group is not None
    assert layers["r2"].group is None


def test_what_stays_float_is_told_with_the_reason() -> None:
    model = onnx_ir.from_onnx_text(
        f"""{HEADER} (float[N,3] x) => (float[N,2] y) <{constants(w=(3, 3), v=(3, 2))}>
        {{ a = MatMul(x, w) s = Sin(a) y = MatMul(s, v) }}"""
    )
    found = tqt_onnx.inspect(model)
    assert [(island.op_type, island.expected) for island in found.float_layers] == [("Sin", False)]
    layer = by_value(found)["s"]
    assert (layer.topology, layer.output) == ("Sin", by_value(found)["s"].output)
    assert "no fixed-point form" in layer.reason
    nothing = onnx_ir.from_onnx_text(f"{HEADER} (float[N,3] x) => (float[N,3] y) {{ y = Sin(x) }}")
    found = tqt_onnx.inspect(nothing)
    assert (found.graph, found.quantized_bytes, found.kind) == (None, 0, "float")
    assert "nothing to quantize" in found.remark


def test_tables_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx_ir.from_onnx_text(
        f"""{HEADER} (float[N,3] x) => (float[N,2] y) <{constants(w=(3, 3), v=(3, 2))}>
        {{ a = MatMul(x, w) t = Sigmoid(a) s = Mul(a, t) y = MatMul(s, v) }}"""
    )
    found = tqt_onnx.inspect(model)
    (swish,) = found.tables
    assert (swish.operators, swish.signed) == (("Sigmoid", "Mul"), True)
    assert found.islands == ()
    show_inspection(found)
    assert "Tables of 256 entries" in (text := capsys.readouterr().out) and "Sigmoid Mul" in text


def test_average_pools_are_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx_ir.from_onnx_text(
        f"""{HEADER} (float[N,2,4,4] x) => (float[N,2,1,1] y) <{constants(w=(2, 2, 1, 1))}>
        {{ a = Conv<kernel_shape = [1, 1]>(x, w) y = GlobalAveragePool(a) }}"""
    )
    found = tqt_onnx.inspect(model)
    pool = by_value(found)["y"]
    assert (pool.topology, pool.parameters, pool.macs) == ("avgpool->depthwise", 0, 2 * 16)
    assert pool.weight is not None and pool.weight.role == "reciprocal"
    assert found.parameters == 4
    show_inspection(found)
    text = capsys.readouterr().out
    assert "avgpool->depthwise" in text
    assert "no layer would stay float" in text


@pytest.mark.parametrize(
    ("node", "weight", "output", "macs"),
    [
        ("Conv<group = 2, kernel_shape = [3, 3]>(x, w)", (6, 4, 3, 3), ("N", 6, 5, 5), 25 * 6 * 36),
        ("Gemm(x, w)", (7, 5), ("N", 5), 35),
        ("Gemm<transB = 1>(x, w)", (5, 7), ("N", 5), 35),
        ("MatMul(x, w)", (7, 5), ("N", 9, 5), 9 * 35),
        ("Conv<kernel_shape = [3, 3]>(x, w)", (6, 4, 3, 3), ("N", 6, "H", "W"), None),
        ("Add(x, w)", (5,), ("N", 5), 0),
    ],
)
def test_multiply_accumulates(node: str, weight: tuple[int, ...], output: tuple[Any, ...], macs: int | None) -> None:
    shape = ",".join(map(str, output))
    model = onnx_ir.from_onnx_text(f"{HEADER} (float[N,A] x) => (float[{shape}] y) <{constants(w=weight)}> {{ y = {node} }}")
    (only,) = model.graph
    assert multiply_accumulates(only) == macs
    assert parameters([only]) == {"w": int(np.prod(weight))}


def save(path: Path, nodes: list[onnx.NodeProto], opset: int, *domains: str, **more: Any) -> Path:
    graph = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2, 4, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.ones((3, 2, 1, 1), np.float32), "w"), *more.get("constants", [])],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="elsewhere", producer_version="2")
    onnx.save(model, path)
    return path


def test_a_float_model_of_another_opset_is_told_as_it_would_be(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], name="first"), helper.make_node("Relu", ["c"], ["y"], name="second")]
    found = tqt_onnx.inspect(save(tmp_path / "m.onnx", nodes, 13))
    assert (found.kind, found.opset, found.producer) == ("float", 13, "elsewhere 2")
    assert "conv+relu" in found.topologies
    assert "opset 21 is expected; `convert` writes it. Received: 13" in found.remark


@pytest.mark.parametrize("opset", [13, 21])
def test_what_is_not_ours_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str], opset: int) -> None:
    scale, zero = (
        onnx.numpy_helper.from_array(np.asarray(value), name) for value, name in ((np.float32(0.1), "s"), (np.uint8(3), "z"))
    )
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
        helper.make_node("Conv", ["d", "w"], ["y"], name="conv"),
    ]
    found = tqt_onnx.inspect(save(tmp_path / "m.onnx", nodes, opset, constants=[scale, zero]))
    assert (found.kind, found.opset, found.producer, found.graph) == ("foreign", opset, "elsewhere 2", None)
    assert [(layer.topology, layer.macs) for layer in found.layers] == [
        ("QuantizeLinear", 0),
        ("DequantizeLinear", 0),
        ("Conv", 16 * 3 * 2),
    ]
    assert found.parameters >= 6
    show_inspection(found)
    text = capsys.readouterr().out.splitlines()
    assert text[0].startswith(f"foreign model, opset {opset}, written by elsewhere 2: x [Nx2x4x4] -> y ")
    assert text[2].startswith("note: ") and "quantiz" in text[2].lower()


def test_foreign_operators_are_listed(tmp_path: Path) -> None:
    nodes = [helper.make_node("Magic", ["x"], ["m"], domain="elsewhere.ops", name="magic"), helper.make_node("Relu", ["m"], ["y"])]
    found = tqt_onnx.inspect(save(tmp_path / "m.onnx", nodes, 13, "elsewhere.ops"))
    assert found.kind == "foreign"
    assert [layer.topology for layer in found.layers] == ["elsewhere.ops.Magic", "Relu"]
    assert found.layers[0].shape is None


def test_unreadable_files_keep_their_reason(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    for path in (tmp_path / "text.onnx", tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(ModelError, match=re.escape(str(path))):
            tqt_onnx.inspect(path)


def test_json_is_strict_complete_and_documented(quantized: tuple[onnx_ir.Model, BitWidths]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`([a-z0-9_]+)`", page))
    for model in (quantized[0], network()):
        found = tqt_onnx.inspect(model)
        decoded = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert decoded["schema"] == "tqt_onnx.inspection/1"
        fields = {*decoded, *decoded["layers"][0], *decoded["quantizers"][0], *decoded["totals"], *decoded["islands"][0]}
        assert fields - documented == set()
        assert set(decoded) == {
            "schema",
            "kind",
            "contract",
            "opset",
            "producer",
            "inputs",
            "outputs",
            "layers",
            "islands",
            "tables",
            "remark",
            "groups",
            "quantizers",
            "totals",
        }
        assert decoded["totals"]["macs"] == sum(MACS.values())
        assert [layer["topology"] for layer in decoded["layers"]] == [layer.topology for layer in found.layers]
        assert len(decoded["quantizers"]) == len(found.graph.quantizers)  # type: ignore[union-attr]
        assert decoded["groups"] == {name: [member.value for member in members] for name, members in found.groups.items()}


def test_shown_tables_fit_and_agree(quantized: tuple[onnx_ir.Model, BitWidths], capsys: pytest.CaptureFixture[str]) -> None:
    show_inspection(tqt_onnx.inspect(quantized[0]))
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith(f"quantized model ({quantized[1].contract}), opset 21: x [Nx2x6x6] -> p [Nx3]")
    for title in ("Layers", "Quantized (layer", "Share groups", "Stays float"):
        assert any(line.startswith(title) for line in lines), title
    assert re.search(r"^ *2  \S+ +conv\+bias\+relu6 +Nx4x6x6 +76  2,592 +\d+$", text, re.MULTILINE)
