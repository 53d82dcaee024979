"""Every limit of a DPU: the last value inside is taken as it is, the first one outside is refused by name, `--fix` brings it in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from batch_norm_networks import Builder
from dpu_reading import FITS, Reading
from handoff_networks import NETWORKS, SHAPE, examples

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export.dpu_rules.limits import SHIFT_CUT, SHIFT_READ, SHIFT_WRITE, shift_bias_limit
from tqt_onnx.ir import Quantizer, QuantizerGraph, UnsupportedError, UsageError
from tqt_onnx.passes import insert_qdq, remove_qdq
from tqt_onnx.verbs.export import export_model

EXPONENTS = Mapping[str, int]


def elementwise(op: str) -> onnx_ir.Model:
    """Two layers and what joins them, as the output."""
    net = Builder(3)
    net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])
    for name in ("a", "b"):
        net.layer("Conv", "nchw", name, (3, 3, 3, 3), 3, pads=[1] * 4)
    net.op(op, "a", "b", name="joined")
    net.op("Transpose", "joined", name="y", perm=[0, 2, 3, 1])
    return net.model({"x": SHAPE}, {"y": SHAPE})


def first_relu() -> onnx_ir.Model:
    """A relu of the input: two roundings with nothing in between but the relu."""
    net = Builder(4)
    net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])
    net.op("Relu", "nchw", name="relu")
    net.layer("Conv", "relu", "conv", (2, 3, 3, 3), 2, pads=[1] * 4)
    net.op("Transpose", "conv", name="y", perm=[0, 2, 3, 1])
    return net.model({"x": SHAPE}, {"y": (8, 8, 2)})


BUILD = {**NETWORKS, "first_relu": first_relu, **{op: partial(elementwise, op) for op in ("Add", "Sub", "Mul")}}


@cache
def quantized(network: str, bits: BitWidths = FITS) -> onnx_ir.Model:
    return tqt_onnx.quantize(BUILD[network](), examples(16, 0), bits=bits).model


def changed(
    network: str,
    change: Callable[[dict[str, Quantizer]], EXPONENTS],
    constants: Mapping[str, np.ndarray] | None = None,
    bits: BitWidths = FITS,
) -> onnx_ir.Model:
    """The network quantized, some of its exponents (each of a group of its own) and constants replaced."""
    lowered, graph = remove_qdq(quantized(network, bits))
    for name, array in (constants or {}).items():
        old = lowered.graph.initializers[name]
        old.const_value = onnx_ir.tensor(np.broadcast_to(array, old.const_value.shape).astype(np.float32), name=name)
    by_value = graph.by_value()
    for value, exponent in change(by_value).items():
        by_value[value] = replace(by_value[value], exponent=exponent, group=value)
    by_id = {quantizer.id: quantizer for quantizer in by_value.values()}
    decided = [
        q if q.derived_from is None else replace(q, exponent=sum(by_id[name].decided_exponent for name in q.derived_from))
        for q in by_value.values()
    ]
    return insert_qdq(lowered, QuantizerGraph(graph.contract, tuple(decided)))


def exponent(quantizers: Mapping[str, Quantizer], *values: str) -> int:
    return sum(quantizers[value].decided_exponent for value in values)


def write(model: onnx_ir.Model, folder: Path, **options: object) -> tuple[Reading, dict[str, object]]:
    export_model(model, "dpu", folder, options=options, force=True)
    reading = Reading(folder / "model.onnx")
    reading.check()
    return reading, json.loads((folder / "positions.json").read_text())


def compare(model: onnx_ir.Model, folder: Path, node: str, shift: str, value: int) -> None:
    """Taken as it is, with that shift."""
    reading, written = write(model, folder)
    assert reading.shifts()[node][shift] == value
    assert written["changes"] == []


def refused(model: onnx_ir.Model, folder: Path, message: str) -> None:
    target = folder / "refused"
    with pytest.raises(UnsupportedError, match=message):
        export_model(model, "dpu", target)
    assert not target.exists()


@pytest.mark.parametrize(("inside", "outside"), [(0, -1), (16, 17)])
def test_shift_cut(inside: int, outside: int, tmp_path: Path) -> None:
    def last_layer(cut: int) -> onnx_ir.Model:
        return changed("residual", lambda q: {"y": exponent(q, "average", "y/w") + cut})

    compare(last_layer(inside), tmp_path / "in", "y", "shift_cut", inside)
    refused(last_layer(outside), tmp_path, rf"target dpu: layer 'y': shift_cut is {outside}, a DPU has 0 to 16; --fix moves ")
    reading, written = write(last_layer(outside), tmp_path / "out", fix=True)
    assert reading.shifts()["y"]["shift_cut"] == inside
    moves = [entry for entry in written["moved"] if entry["from"]["exponent"] != entry["to"]["exponent"]]
    (moved,) = [entry for entry in moves if entry["tensor"] != "y/b"]
    assert moved["tensor"] == ("y" if outside < 0 else "y/w")
    assert moved["to"]["exponent"] == moved["from"]["exponent"] + 1
    assert [change["rule"] for change in written["changes"]] == ["shift_cut"]


@pytest.mark.parametrize(("inside", "outside"), [(15, 16)])
def test_shift_bias(inside: int, outside: int, tmp_path: Path) -> None:
    """Biases of 8 bits: 127 at that many positions above the sum's."""

    def last_layer(shift: int) -> onnx_ir.Model:
        _, graph = remove_qdq(quantized("residual"))
        bias = np.float32(127 * 2.0 ** (shift + exponent(graph.by_value(), "average", "y/w")))
        return changed("residual", lambda q: {}, {"y/b": bias})

    reading, written = write(last_layer(inside), tmp_path / "in", bias_bits=8)
    assert reading.shifts()["y"]["shift_bias"] == inside
    assert written["changes"] == []
    message = rf"layer 'y': shift_bias is {outside}, a DPU has -\d+ to 15"
    with pytest.raises(UnsupportedError, match=message):
        export_model(last_layer(outside), "dpu", tmp_path / "refused", options={"bias_bits": 8})
    reading, _ = write(last_layer(outside), tmp_path / "out", bias_bits=8, fix=True)
    assert reading.shifts()["y"]["shift_bias"] == inside
    reading, written = write(last_layer(outside), tmp_path / "wide")
    assert reading.shifts()["y"]["shift_bias"] == 0
    assert written["changes"] == []


@pytest.mark.parametrize(("shift", "received"), [(15, 15), (16, 15)])
def test_shift_bias_behind_a_leaky_relu(shift: int, received: int, tmp_path: Path) -> None:
    """There the limit starts at 0; its upper end is the same."""
    _, graph = remove_qdq(quantized("leaky"))
    bias = np.float32(127 * 2.0 ** (shift + exponent(graph.by_value(), "x__input", "conv/w")))
    reading, written = write(changed("leaky", lambda q: {}, {"conv/b": bias}), tmp_path / "out", bias_bits=8, fix=True)
    assert reading.shifts()["conv"] == {"shift_cut": reading.shifts()["conv"]["shift_cut"], "shift_bias": received, "leaky": 1}
    problems = [change["problem"] for change in written["changes"] if change["rule"] == "shift_bias"]
    assert problems == (["shift_bias is 16, a DPU has 0 to 15"] if shift == 16 else [])


@pytest.mark.parametrize("bias_bits", [8, 32])
@pytest.mark.parametrize("network", ["residual", "leaky"])
@pytest.mark.parametrize("cut", [0, 16, 20])
def test_no_bias_is_finer_than_its_sum(network: str, cut: int, bias_bits: int, tmp_path: Path) -> None:
    """The lower end of `shift_bias` is never left: small biases too lie on the grid of their sum, or above."""
    reads = {"residual": "average", "leaky": "leaky2"}[network]
    for constant in (np.float32(2.0**-40), np.float32(0)):
        model = changed(network, lambda q: {"y": exponent(q, reads, "y/w") + cut}, {"y/b": constant})
        reading, _ = write(model, tmp_path / "out", bias_bits=bias_bits, fix=True)
        biased = {node: shifts["shift_bias"] for node, shifts in reading.shifts().items() if "shift_bias" in shifts}
        assert "y" in biased
        assert min(biased.values()) >= 0


@pytest.mark.parametrize("finer", ["a", "b"])
def test_shift_read(finer: str, tmp_path: Path) -> None:
    def joined(shift: int) -> onnx_ir.Model:
        other = "a" if finer == "b" else "b"
        found = changed("Add", lambda q: {finer: -9, other: -2, f"{finer}/w": -12, "joined": -2})
        lowered, graph = remove_qdq(found)
        moved = {finer: replace(graph.by_value()[finer], exponent=-2 - shift)}
        return insert_qdq(lowered, replace(graph, quantizers=tuple(moved.get(q.value, q) for q in graph.quantizers)))

    compare(joined(7), tmp_path / "in", "joined", "shift_read", 7)
    refused(joined(8), tmp_path, r"layer 'joined': shift_read is 8, a DPU has 0 to 7; --fix moves '[ab]' from 2\^-10 to 2\^-9")
    reading, _ = write(joined(8), tmp_path / "out", fix=True)
    assert reading.shifts()["joined"]["shift_read"] == 7


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize(("inside", "outside"), [(-7, -8), (25, 26)])
def test_shift_write(op: str, inside: int, outside: int, tmp_path: Path) -> None:
    def joined(shift: int) -> onnx_ir.Model:
        return changed(op, lambda q: {"joined": exponent(q, "a") + shift})

    compare(joined(inside), tmp_path / "in", "joined", "shift_write", inside)
    refused(joined(outside), tmp_path, rf"layer 'joined': shift_write is {outside}, a DPU has -7 to 25; --fix moves 'joined'")
    reading, _ = write(joined(outside), tmp_path / "out", fix=True)
    assert reading.shifts()["joined"]["shift_write"] == inside


@pytest.mark.parametrize(("inside", "outside"), [(0, -1), (32, 33)])
def test_shift_write_of_a_product(inside: int, outside: int, tmp_path: Path) -> None:
    def joined(shift: int) -> onnx_ir.Model:
        return changed("Mul", lambda q: {"joined": exponent(q, "a", "b") + shift})

    compare(joined(inside), tmp_path / "in", "joined", "product", inside)
    refused(joined(outside), tmp_path, rf"layer 'joined': shift_write is {outside}, a DPU has 0 to 32")
    reading, _ = write(joined(outside), tmp_path / "out", fix=True)
    assert reading.shifts()["joined"]["product"] == inside


def test_a_concatenation_has_one_position(tmp_path: Path) -> None:
    bits = replace(FITS, relu=8)
    export_model(changed("concat", lambda q: {}, bits=bits), "dpu", tmp_path / "same", options={"fix": True})
    same = json.loads((tmp_path / "same" / "positions.json").read_text())
    assert "position" not in {change["rule"] for change in same["changes"]}
    apart = changed("concat", lambda q: {"relu__to__right": exponent(q, "left_relu") + 1}, bits=bits)
    _, written = write(apart, tmp_path / "apart", fix=True)
    (change,) = [change for change in written["changes"] if change["rule"] == "position"]
    assert change["layer"] == "joined"
    with pytest.raises(UnsupportedError, match=r"position: 1"):
        export_model(apart, "dpu", tmp_path / "refused")


def test_a_pool_has_one_position(tmp_path: Path) -> None:
    """A max pool that rounds to a scale of its own: no model of `quantize` has one, a changed one may."""
    lowered, graph = remove_qdq(quantized("depthwise"))
    found = graph.by_value()
    own = replace(found["relu"], id="pool", value="pool", group="pool", exponent=found["relu"].decided_exponent + 1)
    after = [
        replace(q, derived_from=("pool", "y/w"), exponent=q.decided_exponent + 1) if q.value == "y/b" else q
        for q in graph.quantizers
    ]
    index = next(index for index, q in enumerate(after) if q.value == "relu")
    model = insert_qdq(lowered, QuantizerGraph("layer32", (*after[: index + 1], own, *after[index + 1 :])))
    refused(model, tmp_path, r"layer 'pool': the tensors of a MaxPool have one position on a DPU. Received: (-?\d+), (-?\d+)")
    write(model, tmp_path / "out", fix=True)


def test_two_roundings_in_a_row_get_one_scale(tmp_path: Path) -> None:
    """Signed and unsigned kept them apart; as int8 both, onnxruntime would merge them (O5)."""

    def apart(by: int) -> onnx_ir.Model:
        return changed("first_relu", lambda q: {"relu": exponent(q, "x__input") + by})

    _, written = write(apart(0), tmp_path / "same")
    assert written["changes"] == []
    refused(apart(1), tmp_path, r"layer 'relu': two roundings with nothing in between have one position")
    write(apart(1), tmp_path / "out", fix=True)


@pytest.mark.parametrize("slope", [0.001, 0.999])
def test_a_slope_that_is_no_step_of_256_is_refused_even_with_fix(slope: float, tmp_path: Path) -> None:
    net = Builder(2)
    net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])
    net.layer("Conv", "nchw", "conv", (2, 3, 3, 3), 2, pads=[1] * 4)
    net.op("LeakyRelu", "conv", name="leaky", alpha=slope)
    net.op("Transpose", "leaky", name="y", perm=[0, 2, 3, 1])
    model = tqt_onnx.quantize(net.model({"x": SHAPE}, {"y": (8, 8, 2)}), examples(8, 0)).model
    with pytest.raises(UnsupportedError, match=r"layer 'leaky': a leaky relu of a DPU has one slope from 1/256 to 255/256"):
        export_model(model, "dpu", tmp_path / "out", options={"fix": True})


@pytest.mark.parametrize(("slope", "steps"), [(0.1, 26), (0.2, 51), (0.01, 3), (0.5, 128)])
def test_slopes_are_rounded_to_256ths(slope: float, steps: int, tmp_path: Path) -> None:
    net = Builder(2)
    net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])
    net.layer("Conv", "nchw", "conv", (2, 3, 3, 3), 2, pads=[1] * 4)
    net.op("LeakyRelu", "conv", name="leaky", alpha=slope)
    net.op("Transpose", "leaky", name="y", perm=[0, 2, 3, 1])
    model = tqt_onnx.quantize(net.model({"x": SHAPE}, {"y": (8, 8, 2)}), examples(8, 0), bits=FITS).model
    refused(model, tmp_path, r"layer 'leaky': its slope is .* a DPU multiplies by k/256")
    reading, written = write(model, tmp_path / "out", fix=True)
    (node,) = [node for node in reading.graph.node if node.op_type == "LeakyRelu"]
    assert node.attribute[0].f * 256 == steps
    slow = [entry["reason"] for entry in written["cpu"]]
    assert slow == ([] if steps == 26 else [f"a leaky relu of {steps}/256; the engine has 26/256"])


def test_the_table_of_limits() -> None:
    assert [SHIFT_CUT.excess(shift) for shift in (-2, -1, 0, 16, 17)] == [-2, -1, 0, 0, 1]
    assert (SHIFT_READ.least, SHIFT_READ.most) == (0, 7)
    assert {op: (limit.least, limit.most) for op, limit in SHIFT_WRITE.items()} == {
        "Add": (-7, 25),
        "Sub": (-7, 25),
        "Mul": (0, 32),
    }
    for cut in range(17):
        limit = shift_bias_limit(cut, leaky=False)
        assert (limit.least, limit.most) == (cut - 16, 15)
        assert (shift_bias_limit(cut, leaky=True).least, shift_bias_limit(cut, leaky=True).most) == (0, 15)


def test_other_widths_of_biases_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"bias bits must be 8 or 32. Received: 16"):
        export_model(changed("tail", lambda q: {}), "dpu", tmp_path / "out", options={"bias_bits": 16})
